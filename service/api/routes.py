"""The routes of the API, on a router for each role that a key may need."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse

from service.api import schemas
from service.api.guard import limited, router_for
from service.api.metrics import CONTENT_TYPE, exposition
from service.api.problems import ProblemError, document
from service.api.searching import filters_of
from service.catalog import interest, labels, queries, ranking, registry
from service.catalog.engine import CatalogError, head_revision, revision
from service.catalog.keys import ROLES
from service.queue import live_workers
from service.settings import Settings

if TYPE_CHECKING:
    from celery import Celery


reading, labelling, submitting, administering = map(router_for, ROLES)
anybody = APIRouter(dependencies=[Depends(limited)], responses=document(429))
ROUTERS = (reading, labelling, submitting, administering, anybody)

Model = Annotated[schemas.Text | None, Query(description="id or name", examples=["sdss"])]
Kind = Annotated[schemas.Kind | None, Query(description="where spectrum and cutout share the identity")]
Survey = Annotated[str | None, Query(description="where surveys share the identity", max_length=100)]
ObjectId = Annotated[str, Path(max_length=1000, examples=["0266-51602-0031"])]


PICTURE_SECONDS = 300
"""For which a picture is shown without asking again."""


class Picture(Response):
    """A PNG image."""

    media_type = "image/png"


@reading.get("/outliers", responses=document(404), tags=["objects"])
def outliers(request: Request, query: Annotated[schemas.OutlierQuery, Query()]) -> schemas.Outliers:
    """The most anomalous observations, page by page; with `for`, what this person finds interesting first."""
    filters = filters_of(query)
    if query.for_ is not None:
        personal = interest.outliers_for(
            request.app.state.engine, filters, query.for_, query.limit, query.page
        )
        return schemas.Outliers.model_validate(
            {"items": personal.rows, "next": personal.next, "labels_needed": personal.labels_needed}
        )
    page = ranking.outliers(request.app.state.engine, filters, query.limit, query.page)
    return schemas.Outliers.model_validate({"items": page.rows, "next": page.next})


@reading.get("/objects/{object_id:path}/neighbours", responses=document(404, 409), tags=["objects"])
def neighbours(
    request: Request,
    object_id: ObjectId,
    k: Annotated[int, Query(ge=1, le=schemas.MAX_NEIGHBOURS)] = 10,
    model: Model = None,
    kind: Kind = None,
    survey: Survey = None,
) -> list[schemas.Neighbour]:
    """The objects nearest to this one in the latent space of a model, the nearest first."""
    found = queries.neighbours(
        request.app.state.engine, object_id, k, model, kind, survey, request.app.state.latents
    )
    return [schemas.Neighbour.model_validate(row) for row in found]


@reading.get(
    "/objects/{object_id:path}/picture.png",
    response_class=Picture,
    responses=document(404, 409) | {304: {"description": "the picture of that ETag is still the one"}},
    tags=["objects"],
)
def picture(
    request: Request, object_id: ObjectId, model: Model = None, kind: Kind = None, survey: Survey = None
) -> Response:
    """An outlier with its reconstruction, the residual in σ and what stands out, as the model saw it last."""
    found = queries.explained(request.app.state.engine, object_id, model, kind, survey)
    if found["data"] is None:
        raise ProblemError(
            404,
            f"no picture of {object_id!r} is kept, since its p-value is only {found['p_value']:.2g}: "
            "`peculiar explain` draws any object",
        )
    # what goes into a picture names it, so that an unchanged one need not be drawn
    named = repr((found["object_id"], found["score"], found["p_value"])).encode() + found["data"]
    headers = {
        "ETag": f'"{hashlib.sha256(named).hexdigest()[:32]}"',
        "Cache-Control": f"private, max-age={PICTURE_SECONDS}",
    }
    if headers["ETag"] in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    from models.explanation import Explanation
    from service import drawing

    title = drawing.title_of(found["object_id"], found["score"], found["p_value"])
    return Picture(drawing.picture(Explanation.from_bytes(found["data"]), title), headers=headers)


@labelling.post(
    "/objects/{object_id:path}/labels", status_code=201, responses=document(400, 404, 413), tags=["objects"]
)
def label(request: Request, object_id: ObjectId, said: schemas.NewLabel) -> schemas.Recorded:
    """Record what somebody says about an object. Nothing is overwritten; each person's newest counts."""
    n = labels.record_labels(request.app.state.engine, [labels.Label(object_id, said.label, said.by)])
    return schemas.Recorded(objects=n)


@reading.get("/objects/{object_id:path}", responses=document(404, 409), tags=["objects"])
def one_object(
    request: Request, object_id: ObjectId, kind: Kind = None, survey: Survey = None
) -> schemas.Object:
    """One object with its observations, scores and labels."""
    return schemas.Object.model_validate(
        queries.one_object(request.app.state.engine, object_id, kind, survey)
    )


@reading.get("/clusters", responses=document(404), tags=["models"])
def clusters(request: Request, model: Model = None) -> list[schemas.Cluster]:
    """The clusters of a model, or of the newest scored model of each kind, with their lens fractions."""
    return [
        schemas.Cluster.model_validate(row) for row in queries.list_clusters(request.app.state.engine, model)
    ]


@reading.get("/models", tags=["models"])
def models(request: Request, kind: Annotated[schemas.Kind | None, Query()] = None) -> list[schemas.Model]:
    """All models, the newest first."""
    return [schemas.Model.model_validate(row) for row in registry.list_models(request.app.state.engine, kind)]


@administering.post("/models/{model}/promote", responses=document(404), tags=["models"])
def promote(
    request: Request, model: Annotated[schemas.Text, Path(examples=["sdss@0123456789ab"])]
) -> schemas.Model:
    """Put a model, by id or name, in force for its kind: it scores what comes from now on."""
    by = getattr(request.state, "caller", "API")
    return schemas.Model.model_validate(registry.promote(request.app.state.engine, model, by))


@reading.get("/runs", tags=["runs"])
def runs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: Annotated[
        int | None, Query(ge=1, le=schemas.BIGGEST_ID, description="id of the last run of the page before")
    ] = None,
) -> list[schemas.Run]:
    """Runs, the newest first."""
    return [
        schemas.Run.model_validate(row) for row in queries.list_runs(request.app.state.engine, limit, before)
    ]


@reading.get("/runs/{run_id}", responses=document(404), tags=["runs"])
def one_run(request: Request, run_id: Annotated[int, Path(ge=1, le=schemas.BIGGEST_ID)]) -> schemas.Run:
    """One run, as far as it is now."""
    return schemas.Run.model_validate(queries.one_run(request.app.state.engine, run_id))


@submitting.post("/batches", status_code=202, responses=document(400, 403, 404, 413, 503), tags=["runs"])
def submit(request: Request, response: Response, batch: schemas.Batch) -> schemas.Accepted:
    """Queue files to be scored by the workers; `/runs/{id}` tells how far they are."""
    from kombu.exceptions import OperationalError

    from service.submission import models_in_force, start_run

    settings: Settings = request.app.state.settings
    paths = list(dict.fromkeys(confined(path, settings.data_roots) for path in batch.paths))
    app = _queue(request)
    engine = request.app.state.engine
    chosen = models_in_force(engine, batch.model)
    try:
        # Asked first, so that a run with nobody to work on it is not even opened.
        check_broker(app)
        started = start_run(settings, engine, app, paths, chosen, batch.night)
    except (OperationalError, OSError) as error:
        raise ProblemError(503, "the broker does not answer; try again later") from error
    response.headers["Location"] = f"/runs/{started.run}"
    return schemas.Accepted(
        run=started.run, queued=len(started.queued), night=started.night, models=started.models
    )


@reading.get("/metrics", response_class=PlainTextResponse, tags=["service"])
def metrics(request: Request) -> Response:
    """Figures of the whole service in Prometheus' text format."""
    return Response(exposition(request.app.state.engine, request.app.state.queue), media_type=CONTENT_TYPE)


@anybody.get("/health", tags=["service"])
def health() -> schemas.Health:
    """This process answers."""
    return schemas.Health()


@anybody.get("/ready", responses=document(503), tags=["service"])
def ready(request: Request) -> schemas.Health:
    """A file that is submitted now would be scored: the catalog answers with this program's schema, the broker
    answers, a worker lives, and a model is in force."""
    from kombu.exceptions import OperationalError

    try:
        current = revision(request.app.state.engine)
    except CatalogError as error:
        raise ProblemError(503, "the catalog does not answer") from error
    if current != head_revision():
        raise ProblemError(503, "the catalog has another schema than this program: run `peculiar db upgrade`")
    app = _queue(request)
    try:
        check_broker(app)
        workers = live_workers(app)
    except (OperationalError, OSError) as error:
        raise ProblemError(503, "the broker does not answer") from error
    if not workers:
        raise ProblemError(503, "no worker answers: start one with `peculiar worker`")
    if not registry.models_in_force(request.app.state.engine):
        raise ProblemError(503, "no model is in force: train one with `peculiar train`")
    return schemas.Health()


def confined(path: str, roots: list[FilePath]) -> str:
    """The path with all links resolved, when it lies under one of the roots. Raises ProblemError (403).

    What is queued is the resolved path. A worker that opens it later follows links that were made in between, so
    only people who may read the workers' files anyway may write to the roots.
    """
    if not roots:
        raise ProblemError(403, "this service reads no files: its operator has not set PECULIAR_DATA_ROOTS")
    # Whether the file exists makes no difference here, so nothing can be learnt about paths elsewhere.
    real = os.path.realpath(path) if path.startswith("/") and "\x00" not in path else ""
    if not any(FilePath(real).is_relative_to(os.path.realpath(root)) for root in roots):
        raise ProblemError(
            403, f"not an absolute path under the folders that this service reads: {path[:200]!r}"
        )
    return real


def check_broker(app: Celery) -> None:
    """Raises kombu's OperationalError or OSError where the broker does not answer soon."""
    with app.connection_for_write(connect_timeout=3) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0.1, interval_max=0.1)


def _queue(request: Request) -> Any:
    app = request.app.state.queue
    if app is None:
        raise ProblemError(503, "no broker is configured: the operator has to set PECULIAR_BROKER_URL")
    return app
