"""The Celery tasks, and what a worker process keeps between them: its catalog connections and its models."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from service.catalog.attempts import put_down
from service.catalog.engine import CatalogError, open_catalog
from service.logs import about
from service.queue import NIGHTLY_TASK, RESUME_TASK, SCORE_TASK, SUBMIT_TASK, Manifest, Request
from service.settings import Settings
from workers.delivery import ReturnedError, work_off
from workers.patience import AwayError, Stop, patiently
from workers.reading import read_inputs

if TYPE_CHECKING:
    from celery import Celery

    from models.scorer import Scorer
    from workers.pipeline import LoadScorer

logger = logging.getLogger(__name__)


def register(
    app: Celery,
    settings: Settings,
    load_scorer: LoadScorer | None = None,
    waits: int | None = None,
    stop: Stop | None = None,
    deadline_s: int | None = None,
) -> None:
    """Add the tasks to ``app``.

    Engine and models are made at first use, which is after a worker process has forked. A message is
    acknowledged when its rows are committed; while the catalog cannot be used, it waits.

    :param load_scorer: how to get the scorer of a model id; from the bundles in ``settings.model_dir`` unless
        said otherwise.
    :param waits: how often a task waits for the catalog before it fails; None for ever.
    :param stop: set when the worker is to stop soon; what is in hand then goes back to the queue.
    :param deadline_s: how long a batch may take before the process ends itself; None without limit.
    """
    load = functools.lru_cache(maxsize=4)(load_scorer or functools.partial(load_bundle, settings))
    read = functools.partial(read_inputs, readers=settings.readers)
    stopping = stop or Stop()

    @functools.cache
    def connect() -> Any:
        return open_catalog(settings.database_url)

    def engine() -> Any:
        try:
            return connect()
        except CatalogError as error:  # not there, or not yet upgraded
            raise AwayError(str(error)) from error

    def run(work: Callable[[int], None]) -> None:
        from celery.exceptions import Reject

        try:
            patiently(work, stopping, waits)
        except (ReturnedError, AwayError) as error:
            if not stopping.requested:
                raise
            stopping.requested = False  # for one message: a process that goes on after all works again
            raise Reject("the worker stops", requeue=True) from error

    @app.task(name=SCORE_TASK, bind=True, shared=False)
    def score(task: Any, manifest: dict[str, Any]) -> None:
        batch, message = Manifest.model_validate(manifest), str(task.request.id)

        def work(n: int) -> None:
            if n:
                put_down(engine(), batch.run, message)
            work_off(engine(), batch, message, load, stopping, deadline_s, read)

        with about(run=batch.run, batch=message):
            run(work)

    @app.task(name=NIGHTLY_TASK, shared=False)
    def nightly() -> None:
        from workers.nightly import start_night

        def work(n: int) -> None:
            night = start_night(settings, engine(), app, settings.data_roots)
            logger.info("night %s: run %s, %d new files", night.night, night.run, len(night.queued))

        run(work)

    @app.task(name=SUBMIT_TASK, shared=False)
    def submit(**request: Any) -> None:
        from service.submission import start_request

        asked = Request.model_validate(request)

        def work(n: int) -> None:
            started = start_request(settings, engine(), app, asked)
            logger.info(
                "asked for night %s: run %s, %d files", started.night, started.run, len(started.queued)
            )

        run(work)

    @app.task(name=RESUME_TASK, shared=False)
    def resume() -> None:
        from service.submission import resume as resume_runs

        def work(n: int) -> None:
            for number, paths in resume_runs(settings, engine(), app).items():
                logger.info("run %d: %d inputs queued again", number, len(paths))

        run(work)


def load_bundle(settings: Settings, model: str) -> Scorer:
    """The scorer of a model id such as ``sdss@0123456789ab``.

    :raises OSError: when there is no such bundle.
    :raises ValueError: when the bundle is damaged.
    """
    from models.scorer import Scorer

    return Scorer.from_bundle(settings.model_dir / model.replace("@", "-"), device=settings.device)
