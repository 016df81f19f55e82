"""A search as the API takes it, as the catalog's filters."""

from __future__ import annotations

from service.api.problems import ProblemError
from service.api.schemas import OutlierQuery
from service.catalog.healpix import Cone
from service.catalog.ranking import Filters


def filters_of(search: OutlierQuery) -> Filters:
    """Raises ProblemError (422) for half a cone."""
    centre = (search.ra, search.dec, search.radius)
    if None in centre and centre != (None, None, None):
        raise ProblemError(422, "a cone needs ra, dec and radius")
    return Filters(
        kind=search.kind,
        model=search.model,
        night=None if search.night is None else search.night.isoformat(),
        cluster=search.cluster,
        p=search.p,
        q=search.q,
        flagged=search.flagged,
        cone=None if search.ra is None else Cone(search.ra, search.dec or 0.0, search.radius or 0.0),
    )
