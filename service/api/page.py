"""The page for looking at a night, and the routes that it needs beside the API's others."""

from __future__ import annotations

import hashlib
import math
import zlib
from datetime import date
from pathlib import Path as FilePath
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.types import Message, Receive, Scope, Send

from service.api import schemas
from service.api.guard import router_for
from service.api.problems import document
from service.api.routes import PICTURE_SECONDS, Kind, Model, ObjectId, Survey
from service.api.searching import filters_of
from service.catalog import labels, maps, queries, ranking
from service.catalog.engine import CatalogError, NotFoundError
from service.catalog.registry import ranked_models

FILES = FilePath(__file__).parents[1] / "page"
HEADERS = {
    # Nothing comes from anywhere else, and no text from a file's header can become a script.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for again each time, and answered by 304 while it is the same
}
MAP_CELLS = (96, 60)
"""Columns and rows of the latent map, which is as much wider than high on the page."""
MAP_POINTS, MAP_SHARE = 100, 0.05
"""Objects that a map shows one by one: the most anomalous, at most so many and at most this share of all."""
MAX_IDS = 200

reading = router_for("read")
anybody = APIRouter()
ROUTERS = (reading, anybody)

Night = Annotated[date | None, Query(description="only what was first scored in this night")]


class Said(schemas.Said):
    """What one person says of one object now."""

    object_id: str
    kind: schemas.Kind
    survey: str


class Point(BaseModel):
    """An object on a map."""

    object_id: str
    kind: schemas.Kind
    survey: str
    ra: float | None
    dec: float | None
    score: float
    p_value: float
    x: float = Field(description="on the latent map")
    y: float


class LatentMap(BaseModel):
    """A model's latents along their two principal axes: how many in each cell, and how anomalous."""

    model: str
    kind: schemas.Kind
    n: int = Field(description="observations on the map")
    bounds: tuple[float, float, float, float] = Field(description="left, bottom, right, top")
    columns: int = Field(description="cells from left to right")
    rows: int = Field(description="cells from bottom to top")
    explained: tuple[float, float] = Field(description="share of the latents' variance along each axis")
    cells: dict[str, list[Any]] = Field(
        description="of the occupied cells: column, row, count, mean and max score"
    )
    points: list[Point] = Field(description="the most anomalous")


class SkyMap(BaseModel):
    """Where a model's objects lie, in HEALPix pixels."""

    model: str
    kind: schemas.Kind
    n: int = Field(description="observations, with and without a position")
    n_placed: int = Field(description="with a position")
    fdr: float = Field(description="discoveries have at most this q-value")
    pixels: dict[str, list[Any]] = Field(
        description="of the occupied pixels: count, discoveries, max score, and in degrees ra, dec and corners"
    )
    points: list[Point] = Field(description="the most anomalous")


class BoxQuery(schemas.OutlierQuery):
    """Which rows of a region of the latent map are wanted."""

    left: schemas.Finite
    bottom: schemas.Finite
    right: schemas.Finite
    top: schemas.Finite


@anybody.get("/", include_in_schema=False)
def page() -> Response:
    """The page itself."""
    return FileResponse(FILES / "index.html", headers=HEADERS)


@reading.get("/nights", tags=["objects"])
def nights(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[str]:
    """The nights that brought observations, the newest first."""
    return list(maps.nights(request.app.state.engine, limit))


@reading.get("/labels", tags=["objects"])
def labels_now(
    request: Request,
    object_id: Annotated[list[Annotated[str, Query(max_length=1000)]], Query(max_length=MAX_IDS)],
) -> list[Said]:
    """What people say of some objects: each person's newest label, unless it was withdrawn."""
    found = labels.labels_now(request.app.state.engine, object_id)
    return [Said.model_validate(row) for row in found]


class Explanation(Response):
    """Bytes of an explanation."""

    media_type = "application/octet-stream"


@reading.get(
    "/objects/{object_id:path}/explanation",
    response_class=Explanation,
    responses=document(404, 409)
    | {
        204: {"description": "this object is no outlier, so nothing is kept"},
        304: {"description": "the explanation of that ETag is still the one"},
    },
    tags=["objects"],
)
def explanation(
    request: Request, object_id: ObjectId, model: Model = None, kind: Kind = None, survey: Survey = None
) -> Response:
    """What there is to draw of an outlier, as the catalog keeps it, to be drawn where it is seen.

    A line of JSON, then planes of one byte a value: flux and reconstruction (0 unmeasured, 1 to 255 between the
    ``limits`` of their channel), and the residual as a signed byte, 127 being 12 σ. The line has the ``shapes`` of the
    three, the ``limits``, ``windows``, ``shares`` of the score, ``bands`` of a cutout, and for a spectrum ``loglam``:
    log10 of the first rest-frame wavelength in Å and the step.
    """
    data = queries.explained(request.app.state.engine, object_id, model, kind, survey)["data"]
    if data is None:
        return Response(status_code=204)
    headers = {
        "ETag": f'"{hashlib.sha256(data).hexdigest()[:32]}"',
        "Cache-Control": f"private, max-age={PICTURE_SECONDS}",
        "Vary": "Accept-Encoding, Authorization",
    }
    if headers["ETag"] in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    # It is kept in zlib's format, which HTTP calls deflate, so every browser unpacks it by itself.
    if "deflate" in request.headers.get("Accept-Encoding", ""):
        return Explanation(data, headers=headers | {"Content-Encoding": "deflate"})
    return Explanation(zlib.decompress(data), headers=headers)


@reading.get("/maps/latent", responses=document(404), tags=["maps"])
def latent_map(request: Request, model: Model = None, kind: Kind = None, night: Night = None) -> LatentMap:
    """The latent space of a model, seen along its two principal axes. What lies far out is drawn at the edge."""
    chosen, atlas = _atlas(request, model, kind)
    of_night = atlas.of_night(_name(night))
    return LatentMap(
        model=chosen["id"],
        kind=chosen["kind"],
        n=int(of_night.sum()),
        bounds=atlas.bounds,
        columns=MAP_CELLS[0],
        rows=MAP_CELLS[1],
        explained=atlas.explained,
        cells=atlas.cells(of_night, *MAP_CELLS),
        points=_points(request, chosen["id"], atlas, of_night),
    )


@reading.get("/maps/latent/outliers", responses=document(404), tags=["maps"])
def outliers_in_box(request: Request, query: Annotated[BoxQuery, Query()]) -> schemas.Outliers:
    """The most anomalous observations of a region of a model's latent map, page by page."""
    chosen, atlas = _atlas(request, query.model, query.kind)
    inside = atlas.in_box((query.left, query.bottom, query.right, query.top))
    if query.night is not None:
        inside &= atlas.of_night(str(query.night))
    page = ranking.outliers_among(
        request.app.state.engine,
        filters_of(query.model_copy(update={"model": chosen["id"]})),
        atlas.observation_id[inside],
        atlas.score[inside],
        query.limit,
        query.page,
    )
    return schemas.Outliers.model_validate({"items": page.rows, "next": page.next})


@reading.get("/maps/sky", responses=document(404), tags=["maps"])
def sky_map(
    request: Request,
    model: Model = None,
    kind: Kind = None,
    night: Night = None,
    fdr: Annotated[float, Query(gt=0, le=1, description="discoveries have at most this q-value")] = 0.1,
) -> SkyMap:
    """Where the objects that a model has scored lie on the sky, and where its discoveries."""
    chosen, atlas = _atlas(request, model, kind)
    of_night = atlas.of_night(_name(night))
    return SkyMap(
        model=chosen["id"],
        kind=chosen["kind"],
        n=int(of_night.sum()),
        n_placed=int((of_night & (atlas.pixel >= 0)).sum()),
        fdr=fdr,
        pixels=atlas.pixels(of_night, fdr),
        points=_points(request, chosen["id"], atlas, of_night),
    )


def mount(api: FastAPI) -> None:
    """Serve the page's files under /page."""
    api.mount("/page", _Files(directory=FILES), name="page")


class _Files(StaticFiles):
    """Files with the headers that the page needs."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *ours]
            await send(message)

        await super().__call__(scope, receive, with_headers)


def _atlas(request: Request, model: str | None, kind: str | None) -> tuple[dict[str, Any], maps.Atlas]:
    """The one model that is meant, and its atlas. Raises NotFoundError and CatalogError."""
    with request.app.state.engine.connect() as connection:
        found = ranked_models(connection, kind, model)
    if not found:
        raise NotFoundError("no model has scored anything yet")
    if len(found) > 1:
        raise CatalogError("a map is of one model: say which kind or model is meant")
    return found[0], request.app.state.atlases.of(found[0]["id"])


def _points(request: Request, model: str, atlas: maps.Atlas, chosen: np.ndarray) -> list[Point]:
    where = np.flatnonzero(chosen)
    where = where[: min(MAP_POINTS, math.ceil(MAP_SHARE * len(where)))]
    found = maps.points(request.app.state.engine, model, atlas.observation_id[where], atlas.place[where])
    return [Point.model_validate(row) for row in found]


def _name(night: date | None) -> str | None:
    return None if night is None else night.isoformat()
