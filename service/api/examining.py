"""More like this, by a file: what is sent is read, scored and compared with the catalog, and then forgotten."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from pathlib import PurePath
from typing import Annotated

from fastapi import Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import State

from service.api.guard import router_for
from service.api.problems import ProblemError, document
from service.api.schemas import MAX_NEIGHBOURS, Examined, Kind, Text
from service.catalog.queries import neighbours_of
from service.catalog.registry import ranked_models
from service.catalog.rows import RejectedRow, ScoredRow, described

PATH = "/neighbours"
MAX_UPLOAD = 20_000_000
"""Bytes of one file: an SDSS spectrum with all its exposures, or a large cutout with all its planes."""
MAX_WAITING = 8
"""Files in memory at a time: they are examined one by one."""
BODY = {"schema": {"type": "string", "format": "binary"}}

Examine = Callable[[bytes, str, dict[str, str]], ScoredRow | RejectedRow]
"""A file's bytes, its name and the model id by kind: its row, or why there is none."""

_waiting = threading.BoundedSemaphore(MAX_WAITING)
router = router_for("read")


@router.post(
    PATH,
    responses=document(404, 413, 503),
    tags=["objects"],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/fits": BODY, "application/octet-stream": BODY},
        }
    },
)
async def neighbours_of_a_file(
    request: Request,
    k: Annotated[int, Query(ge=1, le=MAX_NEIGHBOURS)] = 10,
    model: Annotated[Text | None, Query(description="id or name; else what ranks its kind")] = None,
    kind: Annotated[Kind | None, Query(description="with a model that both kinds have")] = None,
    name: Annotated[
        str, Query(max_length=255, description="the file's, which names the object where its header does not")
    ] = "upload.fits",
    picture: Annotated[bool, Query(description="also draw it with its reconstruction and residual")] = False,
) -> Examined:
    """The objects nearest to a FITS file, which is the body of the request, and how anomalous it is.

    The file need not be in the catalog and does not come into it.
    """
    examine: Examine | None = request.app.state.examine
    if examine is None:
        raise ProblemError(503, "this service cannot read files: it was started without `peculiar serve`")
    if not _waiting.acquire(blocking=False):
        raise ProblemError(503, "too many files are being examined; try again soon", {"Retry-After": "5"})
    try:
        content = await request.body()
        if not content:
            raise ProblemError(422, "there is no file: send its bytes as the body of the request")
        # The last component only: a name must not pass for the path of a file on this machine.
        named = PurePath(name.replace("\x00", "")).name or "upload.fits"
        return await run_in_threadpool(
            _examined, request.app.state, examine, content, named, model, kind, k, picture
        )
    finally:
        _waiting.release()


def _examined(
    state: State,
    examine: Examine,
    content: bytes,
    name: str,
    model: str | None,
    kind: str | None,
    k: int,
    picture: bool,
) -> Examined:
    with state.engine.connect() as connection:
        models = {entry["kind"]: entry["id"] for entry in ranked_models(connection, kind, model)}
    row = examine(content, name, models)
    if isinstance(row, RejectedRow):
        raise ProblemError(422, row.reason + (f" ({row.detail})" if row.detail else ""))
    return Examined.model_validate(
        described(row)
        | {
            "picture": _drawn(row) if picture else None,
            "neighbours": neighbours_of(state.engine, row.model, row.latent, k, state.latents),
        }
    )


def _drawn(row: ScoredRow) -> str | None:
    if row.explanation is None:
        return None
    from models.explanation import Explanation
    from service import drawing

    title = drawing.title_of(row.object_id, row.score, row.p_value)
    image = drawing.picture(Explanation.from_bytes(row.explanation), title)
    return "data:image/png;base64," + base64.b64encode(image).decode()
