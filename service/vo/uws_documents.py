"""Jobs as the XML of UWS 1.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.vo.uws import Job
from service.vo.vosi import as_xml
from service.vo.votable import printable

NAMES = ("REQUEST", "LANG", "QUERY", "MAXREC", "RESPONSEFORMAT", "FORMAT", "RUNID", "UPLOAD", "VERSION")
"""Parameters that a job shows."""
LONGEST_SUMMARY = 500


def job_document(job: Job, url: str) -> bytes:
    """The whole job, which is to be found at ``url``."""
    from vo_models.uws import ErrorSummary, JobSummary
    from vo_models.uws.types import ErrorType, ExecutionPhase

    error = None
    if job.error is not None:
        error = ErrorSummary(
            message=printable(job.error)[:LONGEST_SUMMARY], type=ErrorType.FATAL, has_detail=True
        )
    parameters = _parameters(job)
    document = JobSummary[type(parameters)](
        job_id=job.id,
        run_id=_run_id(job),
        owner_id=job.owner,
        phase=ExecutionPhase(job.phase),
        quote=job.quote,
        creation_time=job.created_at,
        start_time=job.started_at,
        end_time=job.ended_at,
        execution_duration=job.seconds,
        destruction=job.destruction,
        parameters=parameters,
        results=_results(job, url),
        error_summary=error,
    )
    return as_xml(document, skip_empty=False)


def list_document(jobs: Sequence[Job], url: str) -> bytes:
    from vo_models.uws import Jobs, ShortJobDescription
    from vo_models.uws.types import ExecutionPhase

    references = [
        ShortJobDescription(
            job_id=job.id,
            phase=ExecutionPhase(job.phase),
            run_id=_run_id(job),
            owner_id=job.owner,
            creation_time=job.created_at,
            href=f"{url}/{job.id}",
        )
        for job in jobs
    ]
    return as_xml(Jobs(jobref=references))


def results_document(job: Job, url: str) -> bytes:
    return as_xml(_results(job, url), skip_empty=False)


def parameters_document(job: Job) -> bytes:
    return as_xml(_parameters(job))


def _results(job: Job, url: str) -> Any:
    from vo_models.uws import ResultReference, Results

    if job.media_type is None:
        return Results(results=[])
    reference = ResultReference(
        id="result", href=f"{url}/results/result", size=job.size, mime_type=job.media_type
    )
    return Results(results=[reference])


def _parameters(job: Job) -> Any:
    from pydantic import create_model
    from vo_models.uws import Parameter, Parameters

    given = {name: value for name, value in job.parameters if name in NAMES}
    fields: dict[str, Any] = {name.lower(): (Parameter, ...) for name in given}
    made = create_model("TapParameters", __base__=Parameters, **fields)
    return made(
        **{name.lower(): Parameter(id=name.lower(), value=printable(value)) for name, value in given.items()}
    )


def _run_id(job: Job) -> str | None:
    return next((printable(value) for name, value in job.parameters if name == "RUNID"), None)
