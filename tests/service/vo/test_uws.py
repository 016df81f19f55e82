"""Asynchronous jobs: their phases, who sees them, and what a restart makes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from service.catalog.engine import writing
from service.catalog.schema import vo_jobs, vo_results
from service.vo import uws
from service.vo.errors import BusyError, NoSuchJobError, WrongPhaseError
from service.vo.execute import Reader
from service.vo.uws import Job, Jobs

QUERY = [("LANG", "ADQL"), ("QUERY", "SELECT COUNT(*) AS n FROM peculiar.scores"), ("RESPONSEFORMAT", "csv")]
LONG = [
    ("LANG", "ADQL"),
    ("QUERY", "SELECT COUNT(*) FROM " + ", ".join(f"TAP_SCHEMA.columns t{i}" for i in range(10))),
]


@pytest.fixture
def jobs(filled: sa.Engine, reader: Reader) -> Iterator[Jobs]:
    jobs = Jobs(filled, reader)
    yield jobs
    jobs.close()
    with writing(filled) as connection:
        connection.execute(sa.delete(vo_results))
        connection.execute(sa.delete(vo_jobs))


def until(jobs: Jobs, job_id: str, *phases: str, owner: str | None = None) -> Job:
    end = time.monotonic() + 60
    while (job := jobs.get(job_id, owner)).phase not in phases:
        assert time.monotonic() < end, f"the job is still {job.phase}"
        time.sleep(0.02)
    return job


def test_a_job_from_pending_to_completed(jobs: Jobs) -> None:
    job_id = jobs.create(None, QUERY)
    job = jobs.get(job_id, None)
    assert (job.phase, job.parameters, job.seconds) == ("PENDING", QUERY, uws.SECONDS)
    with pytest.raises(WrongPhaseError):
        jobs.result(job_id, None)
    jobs.run(job_id, None)
    job = until(jobs, job_id, "COMPLETED")
    data, media_type, ended_at = jobs.result(job_id, None)
    assert (data, media_type, ended_at) == (b"n\r\n14\r\n", "text/csv;header=present", job.ended_at)
    assert job.size == len(data) and job.media_type == media_type and job.error is None
    with pytest.raises(WrongPhaseError):
        jobs.run(job_id, None)
    with pytest.raises(WrongPhaseError):
        jobs.set_parameters(job_id, None, [("QUERY", "x")])
    jobs.abort(job_id, None)
    assert jobs.get(job_id, None).phase == "COMPLETED"
    jobs.delete(job_id, None)
    with pytest.raises(NoSuchJobError):
        jobs.result(job_id, None)


def test_parameters_change_while_it_is_pending(jobs: Jobs) -> None:
    job_id = jobs.create(None, QUERY)
    jobs.set_parameters(
        job_id, None, [("QUERY", "SELECT COUNT(*) AS m FROM peculiar.models"), ("RUNID", "mine")]
    )
    jobs.set_seconds(job_id, None, 7)
    jobs.run(job_id, None)
    assert until(jobs, job_id, "COMPLETED").seconds == 7
    assert jobs.result(job_id, None)[0] == b"m\r\n2\r\n"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("QUERY", "SELECT nosuch FROM peculiar.scores"), "no column nosuch"),
        (("QUERY", "SELECT pg_sleep(9) FROM peculiar.scores"), "no function"),
        (("LANG", "SQL"), "LANG"),
        (("MAXREC", "-1"), "MAXREC"),
        (("RESPONSEFORMAT", "doc"), "RESPONSEFORMAT"),
        (("UPLOAD", "t,http://x"), "uploaded"),
    ],
)
def test_what_cannot_be_done_is_an_error_with_a_reason(
    jobs: Jobs, changed: tuple[str, str], words: str
) -> None:
    job_id = jobs.create(None, [pair for pair in QUERY if pair[0] != changed[0]] + [changed])
    jobs.run(job_id, None)
    job = until(jobs, job_id, "ERROR")
    assert words in (job.error or "") and job.ended_at is not None


def test_a_fault_of_ours_is_an_error_and_not_silence(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uws, "read_request", lambda parameters: 1 / 0)
    job_id = jobs.create(None, QUERY)
    jobs.run(job_id, None)
    assert "fault of the service" in (until(jobs, job_id, "ERROR").error or "")


def test_a_result_too_large_to_keep_is_an_error(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uws, "MOST_BYTES", 3)
    job_id = jobs.create(None, QUERY)
    jobs.run(job_id, None)
    assert "ask for fewer rows" in (until(jobs, job_id, "ERROR").error or "")


def test_a_running_job_is_aborted(jobs: Jobs) -> None:
    job_id = jobs.create(None, LONG)
    jobs.run(job_id, None)
    job = until(jobs, job_id, "EXECUTING")
    assert job.quote is not None and job.started_at is not None and job.quote > job.started_at
    jobs.abort(job_id, None)
    assert jobs.get(job_id, None).phase == "ABORTED"
    end = time.monotonic() + 30
    while jobs._running:  # the query itself ends, too
        assert time.monotonic() < end
        time.sleep(0.02)
    assert jobs.get(job_id, None).phase == "ABORTED"


def test_a_job_has_limited_time(jobs: Jobs) -> None:
    job_id = jobs.create(None, LONG)
    jobs.set_seconds(job_id, None, 1)
    jobs.run(job_id, None)
    assert "longer than 1 s" in (until(jobs, job_id, "ERROR").error or "")


def test_nobody_sees_the_jobs_of_others(jobs: Jobs) -> None:
    mine, theirs, nobodys = (jobs.create(owner, QUERY) for owner in ("ann", "bob", None))
    assert [job.id for job in jobs.list("ann")] == [mine]
    assert [job.id for job in jobs.list(None)] == [nobodys]
    acts: list[Callable[..., Any]] = [jobs.get, jobs.run, jobs.abort, jobs.delete, jobs.result]
    for act in acts:
        with pytest.raises(NoSuchJobError):
            act(theirs, "ann")
    assert jobs.get(theirs, "bob").phase == "PENDING"


def test_lists_are_filtered(jobs: Jobs) -> None:
    ids = [jobs.create(None, QUERY) for _ in range(3)]
    jobs.run(ids[0], None)
    until(jobs, ids[0], "COMPLETED")
    assert {job.id for job in jobs.list(None, ["PENDING"])} == set(ids[1:])
    assert [job.id for job in jobs.list(None, last=1)] == [ids[2]]
    assert jobs.list(None, after=datetime.now(UTC)) == []


def test_destruction(jobs: Jobs, filled: sa.Engine) -> None:
    job_id = jobs.create(None, QUERY)
    jobs.run(job_id, None)
    until(jobs, job_id, "COMPLETED")
    far = datetime.now(UTC) + timedelta(days=4000)
    jobs.set_destruction(job_id, None, far)
    assert jobs.get(job_id, None).destruction < far - timedelta(days=1000)
    jobs.set_destruction(job_id, None, datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(NoSuchJobError):
        jobs.get(job_id, None)
    jobs.create(None, QUERY)  # sweeps
    with filled.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(vo_results)) == 0


def test_no_more_jobs_than_are_kept(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uws, "MOST_JOBS", 2)
    jobs.create(None, QUERY)
    jobs.create("ann", QUERY)
    with pytest.raises(BusyError, match="2 jobs"):
        jobs.create("bob", QUERY)


def test_a_restart(jobs: Jobs, filled: sa.Engine, reader: Reader) -> None:
    ids = {phase: jobs.create(None, QUERY) for phase in ("EXECUTING", "QUEUED", "PENDING", "COMPLETED")}
    with writing(filled) as connection:  # as a process that was killed leaves them
        for phase, job_id in ids.items():
            connection.execute(sa.update(vo_jobs).where(vo_jobs.c.id == job_id).values(phase=phase))
    again = Jobs(filled, reader)
    again.start()
    try:
        assert "run it again" in (until(again, ids["EXECUTING"], "ERROR").error or "")
        until(again, ids["QUEUED"], "COMPLETED")
        assert [again.get(ids[phase], None).phase for phase in ("PENDING", "COMPLETED")] == [
            "PENDING",
            "COMPLETED",
        ]
    finally:
        again.close()


def test_closing_ends_what_runs(filled: sa.Engine, reader: Reader, jobs: Jobs) -> None:
    other = Jobs(filled, reader)
    job_id = other.create(None, LONG)
    other.run(job_id, None)
    until(other, job_id, "EXECUTING")
    other.close()
    job = jobs.get(job_id, None)
    assert job.phase == "ERROR" and "run it again" in (job.error or "")
