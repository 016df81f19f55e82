"""Routes of the Virtual Observatory's protocols: /vo/cone, and TAP under /vo/tap. Errors are VOTables."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse
from fastapi.routing import APIRoute
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from service.api.guard import allow, limited
from service.api.problems import ProblemError
from service.catalog.engine import CatalogError, revision
from service.vo import tap, uws_documents, vosi
from service.vo.cone import cone_search
from service.vo.errors import VoError
from service.vo.execute import Reader
from service.vo.parameters import Parameters
from service.vo.uws import ACTIVE, PHASES, Job, Jobs
from service.vo.votable import MEDIA_TYPE, error_document

logger = logging.getLogger(__name__)

XML = "application/xml"
LONGEST_WAIT = 60
"""Seconds for which a request may wait for a job to go on."""
POLL_S = 0.25
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")


class VoRoute(APIRoute):
    """A route whose errors are VOTables, as the protocols want them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except Exception as error:
                return await run_in_threadpool(_failed, error)

        return handle


def _failed(error: Exception) -> Response:
    headers: dict[str, str] = {}
    if isinstance(error, VoError):
        status, message = error.status, str(error)
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
    elif isinstance(error, ProblemError):
        status, message, headers = error.status, error.detail, error.headers or {}
    elif isinstance(error, HTTPException):
        status, message, headers = error.status_code, str(error.detail), dict(error.headers or {})
    elif isinstance(error, RequestValidationError | CatalogError):
        status, message = 400, str(error)
    elif isinstance(error, DBAPIError | PoolTimeoutError):
        logger.error("the catalog does not answer: %s", error)
        status, message = 503, "the catalog does not answer; try again later"
        headers["Retry-After"] = "10"
    else:
        logger.error("a VO request failed", exc_info=error)
        status, message = 500, "this is a fault of the program, and its log says more"
    return Response(error_document(message), status, headers, MEDIA_TYPE)


reading = APIRouter(
    prefix="/vo",
    route_class=VoRoute,
    dependencies=[Depends(allow("read", basic=True))],
    include_in_schema=False,  # VOSI describes these
)
anybody = APIRouter(
    prefix="/vo", route_class=VoRoute, dependencies=[Depends(limited)], include_in_schema=False
)
ROUTERS = (anybody, reading)


async def parameters(request: Request) -> Parameters:
    """Those of the URL and of the form in the body."""
    pairs = list(request.query_params.multi_items())
    if request.method == "POST":
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in FORM_TYPES and await request.body():
            raise VoError(f"parameters are posted as {' or '.join(FORM_TYPES)}")
        try:
            form = await request.form(max_files=10, max_fields=200)
        except HTTPException as error:
            raise VoError(f"the form cannot be read: {error.detail}") from None
        # A file that is posted can only be an upload, which its parameter UPLOAD announces.
        pairs += [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    return Parameters(pairs)


Given = Annotated[Parameters, Depends(parameters)]


def _reader(request: Request) -> Reader:
    reader: Reader = request.app.state.vo_reader
    return reader


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.vo_jobs
    return jobs


def _owner(request: Request) -> str | None:
    return getattr(request.state, "caller", None)


def _url(request: Request, path: str) -> str:
    return f"{str(request.base_url).rstrip('/')}/vo{path}"


def answer(request: Request, body: bytes, media_type: str, modified: datetime | None = None) -> Response:
    """The document, or 304 to who has it already. What a query gives may be another at any time, so caches ask."""
    headers = {
        # Weak, because the same document may be sent compressed.
        "ETag": f'W/"{hashlib.sha256(body).hexdigest()[:32]}"',
        "Cache-Control": "private, no-cache",
    }
    if modified is not None:
        headers["Last-Modified"] = format_datetime(modified, usegmt=True)
    known = request.headers.get("If-None-Match")
    if (
        known is not None
        and request.method == "GET"
        and headers["ETag"] in [t.strip() for t in known.split(",")]
    ):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


@reading.api_route("/cone", methods=["GET", "POST"])
def cone(request: Request, given: Given) -> Response:
    result, form = cone_search(_reader(request), given)
    return answer(request, form.write(result), form.media_type)


@reading.api_route("/tap/sync", methods=["GET", "POST"])
def sync(request: Request, given: Given) -> Response:
    asked = tap.read_request(given)
    return answer(request, asked.answer(_reader(request), tap.SYNC_SECONDS), asked.format.media_type)


@anybody.get("/tap/capabilities")
def capabilities(request: Request) -> Response:
    state = request.app.state
    return answer(request, vosi.capabilities(_url(request, "/tap"), state.keys_required), XML)


@anybody.get("/tap/availability")
def availability(request: Request) -> Response:
    state = request.app.state
    try:
        revision(state.engine)
        note = ""
    except CatalogError:
        note = "the catalog does not answer"
    return answer(request, vosi.availability(not note, state.started_at, note), XML)


@anybody.get("/tap/examples")
def examples(request: Request) -> Response:
    return answer(request, vosi.examples(), "application/xhtml+xml")


@reading.get("/tap/tables")
def tables(request: Request, given: Given) -> Response:
    detail = given.one("DETAIL")
    if detail not in (None, "min", "max"):
        raise VoError(f"DETAIL is min or max, not {detail[:40]!r}")
    return answer(request, vosi.tableset(_reader(request).tables().values(), detail != "min"), XML)


@reading.get("/tap/tables/{name}")
def one_table(request: Request, name: str) -> Response:
    every = _reader(request).tables()
    if name.lower() not in every:
        raise HTTPException(404, f"there is no table {name[:100]}")
    return answer(request, vosi.one_table(every[name.lower()], every.values()), XML)


# Jobs


def _see(request: Request, job_id: str) -> RedirectResponse:
    return RedirectResponse(_url(request, f"/tap/async/{job_id}"), 303)


def _time(text: str, name: str) -> datetime:
    try:
        when = datetime.fromisoformat(text.strip())
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise VoError(f"{name} is a time such as 2026-03-01T12:00:00Z, not {text[:40]!r}") from None


@reading.get("/tap/async")
def list_jobs(request: Request, given: Given) -> Response:
    phases = [value for name, value in given.pairs if name == "PHASE"]
    if unknown := [phase for phase in phases if phase not in PHASES]:
        raise VoError(f"there is no phase {unknown[0][:40]!r}")
    after, last = given.one("AFTER"), given.one("LAST")
    jobs = _jobs(request).list(
        _owner(request),
        phases,
        None if after is None else _time(after, "AFTER"),
        None if last is None else given.count("LAST", 0, 10_000),
    )
    return answer(request, uws_documents.list_document(jobs, _url(request, "/tap/async")), XML)


@reading.post("/tap/async")
def create(request: Request, given: Given) -> Response:
    phase = given.one("PHASE")
    if phase not in (None, "RUN"):
        raise VoError(f"a new job takes PHASE=RUN or none, not {phase[:40]!r}")
    jobs, owner = _jobs(request), _owner(request)
    job_id = jobs.create(owner, [pair for pair in given.pairs if pair[0] != "PHASE"])
    if phase == "RUN":
        jobs.run(job_id, owner)
    return _see(request, job_id)


@reading.get("/tap/async/{job_id}")
async def one_job(request: Request, job_id: str, given: Given) -> Response:
    """With WAIT, answers when the phase has changed or that many seconds have passed."""
    jobs, owner = _jobs(request), _owner(request)
    job: Job = await run_in_threadpool(jobs.get, job_id, owner)
    wait = given.one("WAIT")
    if wait is not None:
        seconds = LONGEST_WAIT if wait.strip() == "-1" else given.count("WAIT", 0, LONGEST_WAIT)
        seen = given.one("PHASE") or job.phase
        end = time.monotonic() + seconds
        while job.phase == seen and job.phase in ACTIVE and time.monotonic() < end:
            await asyncio.sleep(POLL_S)
            job = await run_in_threadpool(jobs.get, job_id, owner)
    document = await run_in_threadpool(uws_documents.job_document, job, _url(request, f"/tap/async/{job_id}"))
    return answer(request, document, XML)


@reading.post("/tap/async/{job_id}")
def change_job(request: Request, job_id: str, given: Given) -> Response:
    jobs, owner = _jobs(request), _owner(request)
    if given.one("ACTION") == "DELETE":
        return delete_job(request, job_id)
    if given.one("ACTION") is not None:
        raise VoError("ACTION is DELETE")
    _apply(jobs, owner, job_id, given)
    return _see(request, job_id)


@reading.delete("/tap/async/{job_id}")
def delete_job(request: Request, job_id: str) -> Response:
    _jobs(request).delete(job_id, _owner(request))
    return RedirectResponse(_url(request, "/tap/async"), 303)


CONTROLS = ("PHASE", "DESTRUCTION", "EXECUTIONDURATION", "ACTION")


def _apply(jobs: Jobs, owner: str | None, job_id: str, given: Parameters) -> None:
    """What a POST to a job or to one of its parts wants of it; the phase last."""
    phase = given.one("PHASE")
    if phase not in (None, "RUN", "ABORT"):
        raise VoError(f"PHASE is RUN or ABORT, not {phase[:40]!r}")
    destruction, duration = given.one("DESTRUCTION"), given.one("EXECUTIONDURATION")
    if changed := [pair for pair in given.pairs if pair[0] not in CONTROLS]:
        jobs.set_parameters(job_id, owner, changed)
    if destruction is not None:
        jobs.set_destruction(job_id, owner, _time(destruction, "DESTRUCTION"))
    if duration is not None:
        jobs.set_seconds(job_id, owner, given.count("EXECUTIONDURATION", 0, 10**9))
    if phase is not None:
        (jobs.run if phase == "RUN" else jobs.abort)(job_id, owner)


@reading.get("/tap/async/{job_id}/results/result")
def result(request: Request, job_id: str) -> Response:
    data, media_type, ended_at = _jobs(request).result(job_id, _owner(request))
    return answer(request, data, media_type, ended_at)


@reading.get("/tap/async/{job_id}/{part}")
def job_part(request: Request, job_id: str, part: str) -> Response:
    """One of: phase, quote, executionduration, destruction, owner, error, parameters, results."""
    job = _jobs(request).get(job_id, _owner(request))
    if part in TEXTS:
        return PlainTextResponse(TEXTS[part](job))
    if part == "parameters":
        return answer(request, uws_documents.parameters_document(job), XML)
    if part == "results":
        return answer(
            request, uws_documents.results_document(job, _url(request, f"/tap/async/{job_id}")), XML
        )
    if part == "error":
        if job.error is None:
            return PlainTextResponse("")
        return answer(request, error_document(job.error), MEDIA_TYPE)
    raise HTTPException(404, f"a job has no {part[:40]}")


@reading.post("/tap/async/{job_id}/{part}")
def change_part(request: Request, job_id: str, part: str, given: Given) -> Response:
    if part not in ("phase", "executionduration", "destruction", "parameters"):
        raise HTTPException(404, f"{part[:40]} of a job cannot be changed")
    if part != "parameters":
        given.required(part.upper())
    _apply(_jobs(request), _owner(request), job_id, given)
    return _see(request, job_id)


def _iso(when: datetime | None) -> str:
    return "" if when is None else when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03}Z"


TEXTS: dict[str, Callable[[Job], str]] = {
    "phase": lambda job: job.phase,
    "quote": lambda job: _iso(job.quote),
    "executionduration": lambda job: str(job.seconds),
    "destruction": lambda job: _iso(job.destruction),
    "owner": lambda job: job.owner or "",
}
