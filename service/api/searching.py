"""A search as the API takes it, as the catalog's filters."""

from __future__ import annotations

from service.api.problems import ProblemError
from service.api.schemas import Search
from service.catalog.filters import Filters
from service.catalog.healpix import Cone
from service.catalog.polygon import Polygon


def filters_of(search: Search) -> Filters:
    """Raises ProblemError (422) for half a cone or half a part, CatalogError for a polygon that is none."""
    centre = (search.ra, search.dec, search.radius)
    if None in centre and centre != (None, None, None):
        raise ProblemError(422, "a cone needs ra, dec and radius")
    if (search.part is None) != (search.part_p is None):
        raise ProblemError(422, "part and part_p go together: a part of the score, and its largest p-value")
    night, since, until = (
        None if day is None else day.isoformat() for day in (search.night, search.since, search.until)
    )
    return Filters(
        kind=search.kind,
        model=search.model,
        night=night,
        since=since,
        until=until,
        cluster=search.cluster,
        p=search.p,
        q=search.q,
        flagged=search.flagged,
        part=None if search.part is None or search.part_p is None else (search.part, search.part_p),
        lens_fraction=search.lens_fraction,
        snr=(search.snr_min, search.snr_max),
        redshift=(search.redshift_min, search.redshift_max),
        spectral_class=search.spectral_class,
        label=search.label,
        labelled=search.labelled,
        flag=search.flag,
        no_flag=search.no_flag,
        search=search.search,
        cone=None if search.ra is None else Cone(search.ra, search.dec or 0.0, search.radius or 0.0),
        polygon=None if search.polygon is None else Polygon.parse(search.polygon),
    )
