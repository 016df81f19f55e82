"""A real Celery worker in a thread of this process: what ``memory://`` means."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from service.settings import Settings
from workers.tasks import register

if TYPE_CHECKING:
    from celery import Celery

    from workers.pipeline import LoadScorer

STOP_TIMEOUT_S = 30
WAITS = 4  # a person is waiting: say after about fifteen seconds that the catalog cannot be written


class WorkerFailed(RuntimeError):
    """A message could not be worked on; the words are the error's own."""


class Embedded:
    """A running worker, which the thread that waits for it asks whether all is well."""

    def __init__(self, thread: threading.Thread) -> None:
        self.thread = thread
        self.errors: list[BaseException] = []

    def check(self) -> None:
        """:raises WorkerFailed: when a message failed as a whole, or the worker has ended."""
        if self.errors:
            error = self.errors[0]
            raise WorkerFailed(str(error) or repr(error)) from error
        if not self.thread.is_alive():
            msg = "the worker of this process has ended; the log says why"
            raise WorkerFailed(msg)


@contextmanager
def embedded_worker(
    app: Celery, settings: Settings, load_scorer: LoadScorer | None = None
) -> Iterator[Embedded]:
    """Run a worker for ``app`` until the block ends; it finishes what it has in hand."""
    from celery.signals import task_failure
    from celery.worker import WorkController

    register(app, settings, load_scorer, waits=WAITS)
    # Celery looks its application up by thread; what the worker's threads find is the default one.
    app.set_default()
    ready = threading.Event()

    def note_failure(sender: Any = None, exception: BaseException | None = None, **_: Any) -> None:
        if sender is not None and sender.app is app and exception is not None:
            state.errors.append(exception)

    task_failure.connect(note_failure)
    name = f"embedded@{app.conf.task_default_queue}"
    worker = WorkController(
        app=app,
        pool="solo",
        concurrency=1,
        hostname=name,
        ready_callback=lambda consumer: ready.set(),
        without_heartbeat=True,
        without_mingle=True,
        without_gossip=True,
    )
    thread = threading.Thread(target=worker.start, name=name, daemon=True)
    state = Embedded(thread)
    thread.start()
    try:
        ready.wait(STOP_TIMEOUT_S)
        yield state
    finally:
        # Asked over the queue's own control channel, the worker stops in its own thread, between two
        # messages.
        app.control.shutdown(destination=[name])
        thread.join(STOP_TIMEOUT_S)
        task_failure.disconnect(note_failure)
        app.close()
