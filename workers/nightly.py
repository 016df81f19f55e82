"""The nightly run: every new file under the configured folders, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from service.catalog.schema import clean, run_inputs, runs
from service.catalog.statements import chunks
from service.settings import Settings
from service.submission import Submission, file_states, models_in_force, resume, start_run
from workers.readers import find_inputs

if TYPE_CHECKING:
    from celery import Celery


def start_night(
    settings: Settings,
    engine: sa.Engine,
    app: Celery,
    folders: Sequence[str | Path],
    night: date | None = None,
) -> Submission:
    """Queue what is new under ``folders`` in the run of ``night`` (today in UTC) with the newest models.

    Other nights that have not ended, because their messages were lost, are resumed.

    :raises ValueError: when there is no folder to look through.
    """
    if not folders:
        msg = "no folder to look through: set PECULIAR_DATA_ROOTS, or name one"
        raise ValueError(msg)
    found = find_inputs([str(folder) for folder in folders])
    models = models_in_force(engine)
    new = new_files(engine, found.paths, models)
    resumed = resume(settings, engine, app, only_nights=True)
    started = start_run(settings, engine, app, new, models, night or datetime.now(UTC).date())
    return replace(started, queued=sorted({*started.queued, *resumed.get(started.run, ())}))


def new_files(engine: sa.Engine, paths: Sequence[str], models: dict[str, str]) -> list[str]:
    """Those of ``paths`` that no run has dealt with, or will.

    A file counts as dealt with at its size and mtime: scored in any run (a new model's turn comes with
    `peculiar rescore`), or failed or queued in a run with the same models (a file of a kind that had no model
    then is new once it has one).
    """
    states = file_states(paths)
    with engine.connect() as connection:
        same = [
            run for run, used in connection.execute(sa.select(runs.c.id, runs.c.models)) if used == models
        ]
        done: set[str] = set()
        for part in chunks(states):
            part_states = {clean(path): (path, *states[path]) for path in part}
            known = run_inputs.c.path.in_(part_states)
            scored = sa.select(run_inputs.c.path, run_inputs.c.size, run_inputs.c.mtime_ns).where(
                known, run_inputs.c.status == "scored"
            )
            others = sa.select(run_inputs.c.path, run_inputs.c.size, run_inputs.c.mtime_ns).where(
                known, run_inputs.c.status != "scored", run_inputs.c.run_id.in_(same)
            )
            for path, size, mtime in connection.execute(sa.union(scored, others)):
                given = part_states[path]
                if given[1:] == (size, mtime):
                    done.add(given[0])
    return [path for path in paths if path not in done]
