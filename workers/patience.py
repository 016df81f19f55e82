"""Waiting for a catalog that is down, full or read-only, or for the broker, without losing a message and
without spinning."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError

from service.queue import BrokerError

logger = logging.getLogger(__name__)

# InternalError: PostgreSQL's word for a server that has become read-only.
CATALOG_GONE = (OperationalError, InterfaceError, InternalError)
MAX_WAIT_S = 60
ADVICE = {
    "disk is full": "free space on its disk",
    "No space left": "free space on its disk",
    "disk I/O error": "free space on its disk, or look after it",
    "readonly": "let it be written again",
    "read-only": "let it be written again",
}


class AwayError(Exception):
    """The catalog or the broker cannot be used now; one sentence says why and what to do."""


class Stop:
    """Whether this worker was asked to stop. A signal handler may set it, as it could not an Event."""

    def __init__(self) -> None:
        self.requested = False


def say(error: Exception) -> str:
    """One sentence about what is away, and what to do."""
    if not isinstance(error, DBAPIError):
        return str(error)
    said = str(error.orig or error)
    reason = (said.strip() or type(error).__name__).splitlines()[0]
    advice = next((what for word, what in ADVICE.items() if word in said), "see that it is running")
    return f"the catalog cannot be used: {reason}: {advice} (PECULIAR_DATABASE_URL says where it is)"


def patiently(work: Callable[[int], None], stop: Stop, waits: int | None = None) -> None:
    """Call ``work`` with 0, 1, 2, … until nothing it needs is away, waiting longer each time up to MAX_WAIT_S.

    The message stays with this worker meanwhile, which renews its lease; handing it back would only bring
    the next one, that can be worked on no better.

    :param waits: how often to wait, None for ever.
    :raises AwayError: after so many waits, or when ``stop`` is requested.
    """
    for n in itertools.count():
        try:
            return work(n)
        except (*CATALOG_GONE, BrokerError, AwayError) as error:
            sentence = say(error)
            if waits is not None and n >= waits:
                raise AwayError(sentence) from error
            # Spread, so that workers do not knock at once.
            wait = min(MAX_WAIT_S, 2 ** min(n, 10)) * random.uniform(0.5, 1.0)
            logger.warning("%s; trying again in %.0f s", sentence, wait)
            end = time.monotonic() + wait
            while time.monotonic() < end:
                if stop.requested:
                    raise AwayError(sentence) from error
                time.sleep(min(0.2, max(0.0, end - time.monotonic())))
