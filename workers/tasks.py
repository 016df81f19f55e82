"""The Celery tasks, and what a worker process keeps between them: its catalog connections and its models."""

from __future__ import annotations

import functools
import logging
import random
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import InterfaceError, OperationalError

from service.catalog.engine import CatalogError, open_catalog
from service.queue import NIGHTLY_TASK, SCORE_TASK, Manifest
from service.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

    from models.scorer import Scorer
    from workers.pipeline import LoadScorer

logger = logging.getLogger(__name__)

CATALOG_GONE = (OperationalError, InterfaceError)
MAX_WAIT_S = 60


def register(
    app: Celery,
    settings: Settings,
    load_scorer: LoadScorer | None = None,
    max_retries: int | None = None,
) -> None:
    """Add the tasks to ``app``.

    Engine and models are made at first use, which is after a worker process has forked. A message is
    acknowledged when its rows are committed. A catalog that does not answer puts it off, longer each time,
    up to MAX_WAIT_S; ``max_retries`` None means for ever.

    :param load_scorer: how to get the scorer of a model id; from the bundles in ``settings.model_dir`` unless
        said otherwise.
    """
    load = functools.lru_cache(maxsize=4)(load_scorer or functools.partial(load_bundle, settings))

    @functools.cache
    def connect() -> Any:
        return open_catalog(settings.database_url)

    def engine(task: Any) -> Any:
        try:
            return connect()
        except CatalogError as error:  # not there, or not yet upgraded
            _put_off(task, error)

    options = {"bind": True, "max_retries": max_retries, "shared": False}

    @app.task(name=SCORE_TASK, **options)
    def score(task: Any, manifest: dict[str, Any]) -> None:
        from workers.pipeline import score_manifest

        try:
            score_manifest(engine(task), Manifest.model_validate(manifest), load, readers=settings.readers)
        except CATALOG_GONE as error:
            _put_off(task, error)

    @app.task(name=NIGHTLY_TASK, **options)
    def nightly(task: Any) -> None:
        from workers.nightly import start_night

        try:
            night = start_night(settings, engine(task), app, settings.data_roots)
        except CATALOG_GONE as error:
            _put_off(task, error)
        else:
            logger.info("night %s: run %s, %d new files", night.night, night.run, len(night.queued))


def load_bundle(settings: Settings, model: str) -> Scorer:
    """The scorer of a model id such as ``sdss@0123456789ab``.

    :raises OSError: when there is no such bundle.
    :raises ValueError: when the bundle is damaged.
    """
    from models.scorer import Scorer

    return Scorer.from_bundle(settings.model_dir / model.replace("@", "-"), device=settings.device)


def _put_off(task: Any, error: Exception) -> None:
    """Give the message back to the queue for later; the old one is acknowledged only after that."""
    wait = min(MAX_WAIT_S, 2**task.request.retries) * random.uniform(
        0.5, 1.0
    )  # spread, so that workers do not knock at once
    logger.warning("the catalog does not answer, trying again in %.0f s: %s", wait, error)
    raise task.retry(exc=error, countdown=wait)
