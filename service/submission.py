"""Starting a run: choose its models, note its inputs in the catalog, put them on the queue.

The command line, the nightly run and the API all start runs through here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import sqlalchemy as sa

from service.catalog import registry, runs
from service.queue import submit_paths, waiting_messages
from service.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

ANY_SURVEY = "all"
"""Survey of a run over whatever files there are; each object keeps its own."""


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
    queue_is_empty = waiting_messages(app) == 0
    today = night or datetime.now(UTC).date()
    key = f"{ANY_SURVEY}/{night}/{'+'.join(sorted(models.values()))}" if night else f"score/{uuid4()}"
    run = runs.open_run(engine, key, ANY_SURVEY, str(today), models)
    queued = runs.add_inputs(engine, run, map(file_state, paths))
    if night is not None and queue_is_empty:
        # Left over from a start that died, or from a broker that lost its messages. What is scored twice by
        # this changes nothing.
        queued = sorted({*queued, *runs.outstanding(engine, run)})
    submit_paths(app, run, today, models, queued, settings.batch_size, backfill)
    runs.finish_if_complete(engine, run)  # nothing may have been queued at all
    return Submission(run, today, models, queued)


def file_state(path: str) -> tuple[str, int | None, int | None]:
    """(path, size in bytes, mtime in ns), the last two None where there is no such file."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return path, None, None
    return path, status.st_size, status.st_mtime_ns


def file_states(paths: Iterable[str]) -> dict[str, tuple[int | None, int | None]]:
    """(size, mtime in ns) by path."""
    return {path: (size, mtime) for path, size, mtime in map(file_state, paths)}
