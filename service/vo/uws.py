"""Asynchronous queries: jobs as UWS 1.1 has them (https://www.ivoa.net/documents/UWS/20161024/).

Jobs and results lie in the catalog's database, so that they outlive this process; what runs does so in a few threads
of it.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from service.catalog.engine import writing
from service.catalog.schema import vo_jobs, vo_results
from service.vo.errors import BusyError, NoSuchJobError, VoError, WrongPhaseError
from service.vo.execute import Reader, Stopper
from service.vo.parameters import Parameters
from service.vo.tap import read_request

logger = logging.getLogger(__name__)

WORKERS = 2
"""Jobs that run at the same time."""
MOST_JOBS = 1000
"""That are kept at a time, of all owners together."""
MOST_BYTES = 200_000_000
"""Of one result."""
SECONDS, HARD_SECONDS = 600, 3600
RETENTION_S, HARD_RETENTION_S = 7 * 86400, 30 * 86400
RUNNABLE, ACTIVE = ("PENDING", "HELD"), ("PENDING", "QUEUED", "EXECUTING")
PHASES = (
    "PENDING",
    "QUEUED",
    "EXECUTING",
    "COMPLETED",
    "ERROR",
    "ABORTED",
    "UNKNOWN",
    "HELD",
    "SUSPENDED",
    "ARCHIVED",
)
RESTARTED = "the service was stopped while this job ran: run it again as a new job"


@dataclass(frozen=True, slots=True)
class Job:
    id: str
    owner: str | None
    phase: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    seconds: int
    destruction: datetime
    parameters: list[tuple[str, str]]
    error: str | None
    media_type: str | None
    """Of the result, where there is one"""
    size: int | None
    """Of the result in bytes"""

    @property
    def quote(self) -> datetime | None:
        """When it will have ended at the latest; known once it runs."""
        return (
            self.started_at + timedelta(seconds=self.seconds)
            if self.phase == "EXECUTING" and self.started_at
            else None
        )


class Jobs:
    """The jobs of all owners. An owner is the name of a key, or None; nobody sees another's."""

    def __init__(self, engine: sa.Engine, reader: Reader) -> None:
        self.engine, self.reader = engine, reader
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="vo-job")
        self._running: dict[str, Stopper] = {}
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """To be called once, before anything else: ends what ran when the process before this one ended, and
        goes on with what was queued."""
        now = datetime.now(UTC)
        with writing(self.engine) as connection:
            _sweep(connection)
            ended = {"phase": "ERROR", "error": RESTARTED, "ended_at": now}
            connection.execute(sa.update(vo_jobs).where(vo_jobs.c.phase == "EXECUTING").values(ended))
            queued = sa.select(vo_jobs.c.id).where(vo_jobs.c.phase == "QUEUED").order_by(vo_jobs.c.created_at)
            waiting = list(connection.scalars(queued))
        for job_id in waiting:
            self._pool.submit(self._work, job_id)

    def close(self) -> None:
        """Stops what runs."""
        self._closed = True
        with self._lock:
            stoppers = list(self._running.values())
        for stopper in stoppers:
            stopper.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def create(self, owner: str | None, parameters: Sequence[tuple[str, str]]) -> str:
        """A job in phase PENDING; its id. Raises BusyError where too many are kept."""
        now = datetime.now(UTC)
        job_id = secrets.token_urlsafe(12).replace("-", "a").replace("_", "b")
        with writing(self.engine) as connection:
            _sweep(connection)
            if (connection.scalar(sa.select(sa.func.count()).select_from(vo_jobs)) or 0) >= MOST_JOBS:
                raise BusyError(
                    f"{MOST_JOBS} jobs are kept already: delete some, or wait for their destruction"
                )
            row = {
                "id": job_id,
                "owner": owner,
                "phase": "PENDING",
                "created_at": now,
                "seconds": SECONDS,
                "destruction": now + timedelta(seconds=RETENTION_S),
                "parameters": json.dumps([list(pair) for pair in parameters]),
            }
            connection.execute(sa.insert(vo_jobs).values(row))
        return job_id

    def get(self, job_id: str, owner: str | None) -> Job:
        """Raises NoSuchJobError."""
        with self.engine.connect() as connection:
            found = (
                connection.execute(_jobs().where(vo_jobs.c.id == job_id, _visible(owner))).mappings().first()
            )
        if found is None:
            raise NoSuchJobError("there is no such job: it was destroyed, or is somebody else's")
        return _job(found)

    def list(
        self,
        owner: str | None,
        phases: Sequence[str] = (),
        after: datetime | None = None,
        last: int | None = None,
    ) -> list[Job]:
        """The owner's jobs, the newest first."""
        wanted = _jobs().where(_visible(owner)).order_by(vo_jobs.c.created_at.desc())
        if phases:
            wanted = wanted.where(vo_jobs.c.phase.in_(phases))
        if after is not None:
            wanted = wanted.where(vo_jobs.c.created_at > after)
        if last is not None:
            wanted = wanted.limit(last)
        with self.engine.connect() as connection:
            return [_job(row) for row in connection.execute(wanted).mappings()]

    def result(self, job_id: str, owner: str | None) -> tuple[bytes, str, datetime]:
        """Document, media type, and when it was finished. Raises NoSuchJobError, and WrongPhaseError before it is."""
        job = self.get(job_id, owner)
        with self.engine.connect() as connection:
            found = connection.execute(sa.select(vo_results).where(vo_results.c.job_id == job_id)).first()
        if found is None or job.ended_at is None:
            raise WrongPhaseError(f"the job has no result: it is {job.phase}")
        return found.data, found.media_type, job.ended_at

    def set_parameters(self, job_id: str, owner: str | None, changed: Sequence[tuple[str, str]]) -> None:
        """Changes and adds parameters while the job is PENDING. Raises NoSuchJobError, WrongPhaseError."""
        job = self.get(job_id, owner)
        names = {name for name, _ in changed}
        pairs = [pair for pair in job.parameters if pair[0] not in names] + [tuple(pair) for pair in changed]
        if not self._change(job_id, ("PENDING",), parameters=json.dumps(pairs)):
            raise WrongPhaseError(f"a job that is {job.phase} takes no other parameters")

    def set_seconds(self, job_id: str, owner: str | None, seconds: int) -> None:
        """How long it may run; 0 is as long as possible. Raises NoSuchJobError, WrongPhaseError."""
        job = self.get(job_id, owner)
        if not self._change(
            job_id, ("PENDING", "QUEUED"), seconds=min(seconds, HARD_SECONDS) or HARD_SECONDS
        ):
            raise WrongPhaseError(f"the time of a job that is {job.phase} cannot be changed")

    def set_destruction(self, job_id: str, owner: str | None, when: datetime) -> None:
        """When it is forgotten; no later than HARD_RETENTION_S from now. Raises NoSuchJobError."""
        self.get(job_id, owner)
        latest = datetime.now(UTC) + timedelta(seconds=HARD_RETENTION_S)
        self._change(job_id, PHASES, destruction=min(when, latest))

    def run(self, job_id: str, owner: str | None) -> None:
        """Queues a job that is PENDING; one that is queued or runs goes on. Raises NoSuchJobError, WrongPhaseError."""
        job = self.get(job_id, owner)
        if self._change(job_id, RUNNABLE, phase="QUEUED"):
            self._pool.submit(self._work, job_id)
        elif job.phase not in ("QUEUED", "EXECUTING"):
            raise WrongPhaseError(f"a job that is {job.phase} cannot be run: make a new one")

    def abort(self, job_id: str, owner: str | None) -> None:
        """Stops it; one that has ended stays as it is. Raises NoSuchJobError."""
        self.get(job_id, owner)
        self._change(job_id, ACTIVE, phase="ABORTED", ended_at=datetime.now(UTC))
        self._stop(job_id)

    def delete(self, job_id: str, owner: str | None) -> None:
        """Stops and forgets it. Raises NoSuchJobError."""
        self.get(job_id, owner)
        with writing(self.engine) as connection:
            _destroy(connection, vo_jobs.c.id == job_id)
        self._stop(job_id)

    def _stop(self, job_id: str) -> None:
        with self._lock:
            stopper = self._running.get(job_id)
        if stopper is not None:
            stopper.stop()

    def _change(self, job_id: str, phases: Sequence[str], **values: Any) -> bool:
        """Changes a job if it is in one of these phases; whether it was."""
        with writing(self.engine) as connection:
            wanted = sa.update(vo_jobs).where(vo_jobs.c.id == job_id, vo_jobs.c.phase.in_(phases))
            return bool(connection.execute(wanted.values(values)).rowcount)

    def _work(self, job_id: str) -> None:
        """In a thread of the pool: from QUEUED to COMPLETED or ERROR."""
        stopper = Stopper()
        with self._lock:
            self._running[job_id] = stopper
        try:
            if self._change(job_id, ("QUEUED",), phase="EXECUTING", started_at=datetime.now(UTC)):
                self._execute(job_id, stopper)
        except SQLAlchemyError:
            # It stays EXECUTING, and becomes an ERROR when the service starts again.
            logger.exception("the catalog did not take what became of the job %s", job_id)
        finally:
            with self._lock:
                del self._running[job_id]

    def _execute(self, job_id: str, stopper: Stopper) -> None:
        with self.engine.connect() as connection:
            found = connection.execute(_jobs().where(vo_jobs.c.id == job_id)).mappings().first()
        if found is None:
            return
        job = _job(found)
        try:
            asked = read_request(Parameters(job.parameters))
            data = asked.answer(self.reader, job.seconds, stopper)
            if len(data) > MOST_BYTES:
                raise VoError(
                    f"the result has {len(data):,} bytes, and {MOST_BYTES:,} are kept: ask for fewer rows"
                )
            with writing(self.engine) as connection:
                ended = {"phase": "COMPLETED", "ended_at": datetime.now(UTC)}
                mine = sa.update(vo_jobs).where(vo_jobs.c.id == job_id, vo_jobs.c.phase == "EXECUTING")
                if connection.execute(mine.values(ended)).rowcount:
                    row = {"job_id": job_id, "media_type": asked.format.media_type, "data": data}
                    connection.execute(sa.insert(vo_results).values(row))
        except VoError as error:
            message = RESTARTED if self._closed else str(error)
            self._change(job_id, ("EXECUTING",), phase="ERROR", error=message, ended_at=datetime.now(UTC))
        except Exception:  # the outermost frame of its thread: whoever waits for the job has to be told
            logger.exception("the job %s failed", job_id)
            message = "this is a fault of the service, and its log says more"
            self._change(job_id, ("EXECUTING",), phase="ERROR", error=message, ended_at=datetime.now(UTC))


def _jobs() -> sa.Select[Any]:
    size = sa.func.length(vo_results.c.data).label("size")
    return sa.select(vo_jobs, vo_results.c.media_type, size).outerjoin(
        vo_results, vo_results.c.job_id == vo_jobs.c.id
    )


def _visible(owner: str | None) -> sa.ColumnElement[bool]:
    mine = vo_jobs.c.owner.is_(None) if owner is None else vo_jobs.c.owner == owner
    return sa.and_(mine, vo_jobs.c.destruction > datetime.now(UTC))


def _sweep(connection: sa.Connection) -> None:
    """Forgets the jobs whose destruction has come."""
    _destroy(connection, vo_jobs.c.destruction <= datetime.now(UTC))


def _destroy(connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    ids = sa.select(vo_jobs.c.id).where(which)
    connection.execute(sa.delete(vo_results).where(vo_results.c.job_id.in_(ids)))
    connection.execute(sa.delete(vo_jobs).where(which))


def _job(row: sa.RowMapping) -> Job:
    return Job(
        **(dict(row) | {"parameters": [(name, value) for name, value in json.loads(row["parameters"])]})
    )
