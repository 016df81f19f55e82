"""Every error as a problem document (RFC 9457, application/problem+json)."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from service.catalog.engine import CatalogError, NotFoundError
from service.catalog.labels import UnknownObjectsError
from service.catalog.queries import AmbiguousError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """A problem document (RFC 9457); some carry further members."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "no object '0266-51602-0031' is in the catalog",
                }
            ]
        },
    )

    type: str = Field("about:blank", description="about:blank: the title says what the status means")
    title: str
    status: int
    detail: str = Field(description="what went wrong this time, and what to do")


class ProblemError(Exception):
    """Ends a request with a problem document."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


def problem(
    status: int, detail: str, headers: dict[str, str] | None = None, members: dict[str, Any] | None = None
) -> JSONResponse:
    """The response for a status; ``members`` are added to the document."""
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(document | (members or {}), status, headers, MEDIA_TYPE)


def document(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route says in OpenAPI about its errors."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({*statuses, 422})
    }


def install(api: FastAPI) -> None:
    """Make every exception of ``api`` a problem document."""

    @api.exception_handler(ProblemError)
    def _ours(request: Request, error: ProblemError) -> JSONResponse:
        return problem(error.status, error.detail, error.headers)

    @api.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), dict(error.headers or {}))

    @api.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # The input itself is left out: it may be large, and it may be nothing that JSON can say.
        errors = [{"where": [str(part) for part in e["loc"]], "message": e["msg"]} for e in error.errors()]
        first = errors[0]
        detail = f"{'.'.join(first['where'])}: {first['message']}"
        if len(errors) > 1:
            detail += f", and {len(errors) - 1} more"
        return problem(422, detail, members={"errors": errors[:20]})

    @api.exception_handler(CatalogError)
    def _catalog(request: Request, error: CatalogError) -> JSONResponse:
        if isinstance(error, AmbiguousError):
            choices = [{"kind": kind, "survey": survey} for kind, survey in error.choices]
            return problem(409, str(error), members={"choices": choices})
        return problem(404 if isinstance(error, NotFoundError | UnknownObjectsError) else 422, str(error))

    @api.exception_handler(DBAPIError)
    @api.exception_handler(PoolTimeoutError)
    def _database(request: Request, error: Exception) -> JSONResponse:
        logger.error("the catalog does not answer: %s", error)
        return problem(503, "the catalog does not answer; try again later", {"Retry-After": "10"})

    @api.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> JSONResponse:
        # The server logs the traceback; who asked learns nothing of the inside.
        return problem(500, "this is a fault of the program, and its log says more")
