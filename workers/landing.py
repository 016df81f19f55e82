"""Files that arrive in landing folders: each is queued once it has stopped changing.

The folders are looked through at intervals, since network file systems tell nobody of changes. What was
queued before is known from the catalog, so a restart forgets nothing and queues nothing twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from service.queue import BrokerError
from service.settings import Settings
from service.submission import file_states, models_in_force, resume, start_run
from workers.nightly import new_files
from workers.patience import CATALOG_GONE, Stop, say
from workers.readers import find_inputs

if TYPE_CHECKING:
    import sqlalchemy as sa
    from celery import Celery

logger = logging.getLogger(__name__)

State = tuple[int | None, int | None]


class Landing:
    """What was seen in some folders: by path its size and mtime, and since when they are what they are."""

    def __init__(self, folders: Sequence[str | Path], settle_s: float) -> None:
        self.folders = [str(folder) for folder in folders]
        self.settle_s = settle_s
        self.seen: dict[str, tuple[State, float]] = {}
        self.given: dict[str, State] = {}

    def look(self, now: float) -> list[str]:
        """The paths that have settled at ``now``, in seconds, and were not given in this state."""
        states = file_states(find_inputs(self.folders).paths)
        before = self.seen
        self.seen = {}
        for path, state in states.items():
            if state == (None, None):
                continue  # gone since the folder was read
            known, since = before.get(path, (None, now))
            self.seen[path] = (state, since if known == state else now)
        self.given = {path: state for path, state in self.given.items() if path in self.seen}
        return [
            path
            for path, (state, since) in self.seen.items()
            if now - since >= self.settle_s and self.given.get(path) != state
        ]

    def give(self, paths: Sequence[str]) -> None:
        """These have been dealt with in the state they were last seen in."""
        self.given |= {path: self.seen[path][0] for path in paths}

    def forget(self) -> None:
        """Give every settled path again, such as when a new model may want it."""
        self.given = {}


def watch(
    settings: Settings,
    engine: sa.Engine,
    app: Celery,
    folders: Sequence[str | Path],
    every_s: float,
    settle_s: float,
    stop: Stop,
    check: Callable[[], None],
) -> None:
    """Queue what settles under ``folders`` until ``stop`` is requested; a catalog or broker that is away is
    asked again at the next look.

    :param check: called before each look; what it raises ends the watch.
    """
    landing = Landing(folders, settle_s)
    resumed = False
    models: dict[str, str] = {}
    while not stop.requested:
        check()
        try:
            if not resumed:
                resume(settings, engine, app, only_nights=True)
                resumed = True
            newest = models_in_force(engine)
            if newest != models:
                landing.forget()
                models = newest
            _take(settings, engine, app, landing, models)
        except (*CATALOG_GONE, BrokerError) as error:
            logger.warning("%s; looking again in %.0f s", say(error), every_s)
        end = time.monotonic() + every_s
        while not stop.requested and time.monotonic() < end:
            time.sleep(min(0.2, every_s))


def _take(
    settings: Settings, engine: sa.Engine, app: Celery, landing: Landing, models: dict[str, str]
) -> None:
    settled = landing.look(time.monotonic())
    if not settled:
        return
    new = new_files(engine, settled, models)
    if new:
        started = start_run(settings, engine, app, new, models, datetime.now(UTC).date())
        logger.info("night %s: run %d, %d new files", started.night, started.run, len(started.queued))
    landing.give(settled)
