"""A worker that is told to stop does so within ten seconds: it returns what it holds to the queue."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from workers.patience import Stop

GRACE_S = 5


def stop_in_time(stop: Stop) -> None:
    """Let SIGTERM to a worker reach the process that does its work.

    That process sees ``stop`` after the batch in hand and returns the rest of its message. One that is not
    done after GRACE_S is killed, and the message comes back as it does from any dead process.
    """
    from celery import signals

    def note(*_: Any) -> None:
        stop.requested = True

    # Not before: a pool process chooses its own handlers after everything that Celery calls at its start.
    @signals.task_prerun.connect(weak=False)
    def listen(**_: Any) -> None:
        signal.signal(signal.SIGTERM, note)

    @signals.worker_shutting_down.connect(weak=False)
    def pass_on(**_: Any) -> None:
        from billiard import active_children
        from celery.worker.state import active_requests

        if active_requests:
            pids = [child.pid for child in active_children()]
            send(pids, signal.SIGTERM)
            timer = threading.Timer(GRACE_S, send, (pids, signal.SIGKILL))
            timer.daemon = True
            timer.start()


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to those of the processes that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
