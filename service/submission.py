"""Starting a run: choose its models, note its inputs in the catalog, put them on the queue.

The command line, the nightly run, the API and other programs' messages all start runs through here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import sqlalchemy as sa

from service.catalog import registry, runs
from service.catalog.attempts import recover
from service.catalog.rows import RejectedRow
from service.catalog.writer import write_batch
from service.queue import Request, idle, submit_paths, waiting_messages
from service.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

MEMBER = re.compile(r"(.+)#\d+", re.DOTALL)
ANY_SURVEY = "all"
"""Survey of a run over whatever files there are; each object keeps its own."""

OUTSIDE = (
    "not an absolute path under the folders that the workers read: add its folder to PECULIAR_DATA_ROOTS"
)


@dataclass(frozen=True, slots=True)
class Submission:
    """What was started: ``queued`` are the paths that were put on the queue by this call."""

    run: int
    night: date
    models: dict[str, str]
    queued: list[str]


def models_in_force(engine: sa.Engine, name: str | None = None) -> dict[str, str]:
    """Model id by kind: those in force, or only what goes by this name or full id.

    :raises CatalogError: when no model is called ``name``.
    """
    if name is not None:
        return {model["kind"]: model["id"] for model in registry.find_models(engine, name)}
    return registry.models_in_force(engine)


def start_run(
    settings: Settings,
    engine: sa.Engine,
    app: Celery,
    paths: Sequence[str],
    models: dict[str, str],
    night: date | None = None,
    backfill: bool = False,
) -> Submission:
    """Put paths into a run and on the queue; with ``backfill`` behind everything else that waits there.

    With ``night`` they join that night's run with these models, which is one however often it is started:
    what it has scored or failed already is not queued again unless the file has changed. Without, they get
    a run of their own, and all are scored.

    :raises BrokerError: when the queue cannot be reached; no run is begun then.
    """
    waiting_messages(app)  # says now, before a run is begun, that the queue cannot be reached
    today = night or datetime.now(UTC).date()
    key = f"{ANY_SURVEY}/{night}/{'+'.join(sorted(models.values()))}" if night else f"score/{uuid4()}"
    run = runs.open_run(engine, key, ANY_SURVEY, str(today), models)
    queued = runs.add_inputs(engine, run, map(file_state, paths))
    if night is not None and idle(app):
        # Left over from a start that died, or from a broker that lost its messages. What is scored twice by
        # this changes nothing.
        queued = sorted({*queued, *recover(engine, run)})
    submit_paths(app, run, today, models, queued, settings.batch_size, backfill)
    runs.finish_if_complete(engine, run)  # nothing may have been queued at all
    return Submission(run, today, models, queued)


def start_request(settings: Settings, engine: sa.Engine, app: Celery, request: Request) -> Submission:
    """What a message ``peculiar.submit`` asks for; paths that may not be read become failures of the run.

    :raises CatalogError: when no model goes by the name.
    :raises BrokerError: when the queue cannot be reached.
    """
    allowed = {path: confine(path, settings.data_roots) for path in request.paths}
    models = models_in_force(engine, request.model)
    night = request.night or datetime.now(UTC).date()
    inside = list(dict.fromkeys(path for path in allowed.values() if path is not None))
    started = start_run(settings, engine, app, inside, models, night)
    outside = [RejectedRow(path, OUTSIDE) for path, real in allowed.items() if real is None]
    if outside:
        write_batch(engine, started.run, [], outside)
        runs.finish_if_complete(engine, started.run)
    return started


def confine(path: str, roots: Sequence[Path]) -> str | None:
    """An absolute path with all links resolved, when it lies under one of the roots; else None."""
    if not path.startswith("/") or "\x00" in path:
        return None
    real = os.path.realpath(path)
    return real if any(Path(real).is_relative_to(os.path.realpath(root)) for root in roots) else None


def resume(
    settings: Settings, engine: sa.Engine, app: Celery, only_nights: bool = False
) -> dict[int, list[str]]:
    """Queue again what open runs wait for when no message carries it any more; the paths by run.

    Messages get lost with a broker's memory, and with a process that dies while it starts a run.

    :raises BrokerError: when the queue cannot be reached.
    """
    if not idle(app):
        return {}
    resumed = {}
    for run in runs.open_runs(engine):
        if only_nights and not run.key.startswith(f"{ANY_SURVEY}/"):
            continue
        paths = resumed[run.id] = recover(engine, run.id)
        submit_paths(app, run.id, date.fromisoformat(run.night), run.models, paths, settings.batch_size)
        runs.finish_if_complete(engine, run.id)
    return resumed


def file_state(path: str) -> tuple[str, int | None, int | None]:
    """(path, size in bytes, mtime in ns), the last two None where there is no such file.

    A member of a file, ``night.h5#123``, has the state of the file.
    """
    container = MEMBER.fullmatch(path)
    try:
        status = Path(container[1] if container and not os.path.lexists(path) else path).stat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return path, None, None
    return path, status.st_size, status.st_mtime_ns


def file_states(paths: Iterable[str]) -> dict[str, tuple[int | None, int | None]]:
    """(size, mtime in ns) by path."""
    return {path: (size, mtime) for path, size, mtime in map(file_state, paths)}
