"""What a search finds, as a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from fastapi import Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from service.api.guard import router_for
from service.api.problems import ProblemError, document
from service.api.schemas import Search
from service.api.searching import filters_of
from service.catalog.export import export_outliers

MEDIA_TYPES = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "fits": "application/fits",
    "votable": "application/x-votable+xml",
}
MAX_IN_MEMORY = 200_000
"""Rows of a FITS table or a VOTable, which are made as a whole; the others are written as the rows come."""
CHUNK = 1 << 20

router = router_for("read")


class ExportQuery(Search):
    """What is wanted, and as what."""

    format: Literal["csv", "parquet", "fits", "votable"] = "csv"
    limit: int | None = Field(None, ge=1, le=10**9, description="at most so many of each model; else all")


class Table(StreamingResponse):
    """A table in a file."""

    media_type = None


@router.get(
    "/outliers/export",
    response_class=Table,
    responses=document(404)
    | {
        200: {
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()
            }
        }
    },
    tags=["objects"],
)
def export(request: Request, query: Annotated[ExportQuery, Query()]) -> StreamingResponse:
    """The rows that a search finds, each model's after another's, as CSV, Parquet, FITS table or VOTable.

    The file is complete before the first byte is sent, so that what fails fails with a problem document.
    """
    in_memory = query.format in ("fits", "votable")
    limit = min(query.limit or MAX_IN_MEMORY + 1, MAX_IN_MEMORY + 1) if in_memory else query.limit
    with tempfile.TemporaryDirectory(prefix="peculiar-export-") as folder:
        out = Path(folder) / f"outliers.{query.format}"
        n = export_outliers(request.app.state.engine, out, filters_of(query), limit)
        if in_memory and n > MAX_IN_MEMORY:
            raise ProblemError(
                422,
                f"more than {MAX_IN_MEMORY} rows fit, too many for {query.format}: ask for parquet or csv",
            )
        size = out.stat().st_size
        file = out.open("rb")  # it outlives its name, and goes when it is closed
    headers = {
        "Content-Disposition": f'attachment; filename="outliers.{query.format}"',
        "Content-Length": str(size),
    }
    return Table(_chunks(file), media_type=MEDIA_TYPES[query.format], headers=headers)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk
