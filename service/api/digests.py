"""What a night brought, as JSON and as an Atom feed."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field

from service.api import schemas
from service.api.guard import router_for
from service.api.problems import document
from service.catalog.digest import digest
from service.feed import MEDIA_TYPE, atom

router = router_for("read", "runs")

Rate = Annotated[
    schemas.Finite, Query(ge=1e-6, le=1, description="false-discovery rate: the largest q-value")
]


class Discoveries(BaseModel):
    """What one model found in a night."""

    kind: schemas.Kind
    model: str
    scored: int = Field(description="observations of the night that it scored")
    smallest_p: float | None = Field(description="the smallest p-value that its calibration set resolves")
    fewest: int | None = Field(
        description="so many objects at that p-value it takes for any to be a discovery at this rate"
    )
    n_discoveries: int
    withheld: int = Field(description="more of them, in runs that look like an instrument problem")
    discoveries: list[schemas.Row] = Field(description="the highest scores first, at most `limit`")


class Digest(BaseModel):
    """What a night brought."""

    night: str
    q: float
    runs: list[schemas.Run]
    models: list[Discoveries]


class Feed(Response):
    """An Atom feed."""

    media_type = MEDIA_TYPE


@router.get("/digest", responses=document(404))
def one_digest(
    request: Request,
    night: Annotated[date | None, Query(description="else the last that has a run which ended")] = None,
    q: Rate = 0.1,
    limit: Annotated[int, Query(ge=1, le=schemas.MAX_PAGE, description="discoveries of each model")] = 100,
) -> Digest:
    """A night's runs, their problems, and each model's discoveries at a false-discovery rate."""
    found = digest(request.app.state.engine, None if night is None else night.isoformat(), q, limit)
    return Digest.model_validate(found)


@router.get("/digest.atom", response_class=Feed)
def feed(
    request: Request,
    q: Rate = 0.1,
    nights: Annotated[int, Query(ge=1, le=100, description="how many, from the last")] = 14,
) -> Response:
    """The last nights' digests for a feed reader, an entry for each night."""
    return Feed(atom(request.app.state.engine, q, nights, str(request.base_url).rstrip("/")))
