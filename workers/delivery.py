"""One delivery of a message: what is left of it is scored, and what ends worker processes is found out.

A batch is scored in company. When the message comes back because its process died, what is still queued of
it is scored one by one, each file noted in the catalog before it is touched, so that only the guilty one is
in hand at the next death. A file that has ended ALONE processes by itself becomes a failure row. A process
killed by somebody else costs a repetition: the file it held alone is tried again, and scored.
"""

from __future__ import annotations

import logging
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.catalog.attempts import put_down, take_alone, take_up
from service.catalog.rows import RejectedRow
from service.queue import Manifest
from workers.patience import CATALOG_GONE, Stop
from workers.reading import read_inputs

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from workers.pipeline import LoadScorer, Read

logger = logging.getLogger(__name__)

ALONE = 3
ENDED_THE_WORKER = (
    f"this input ended the worker process, or held it beyond its deadline, {ALONE} times when it was tried alone: "
    "set the file aside and report it with the worker's log"
)
WORKER_FAILED = "the worker failed on this input: the worker's log has the traceback, please report it"


class ReturnedError(Exception):
    """The worker was asked to stop: what is left of the message is to go back to the queue."""


def work_off(
    engine: Engine,
    manifest: Manifest,
    message: str,
    load_scorer: LoadScorer,
    stop: Stop,
    deadline_s: int | None = None,
    read: Read = read_inputs,
) -> None:
    """Score what is still queued of a manifest; when it returns, each of its paths has its row.

    :param message: id of the message, the same in every delivery of it.
    :param read: how to read inputs.
    :param deadline_s: how long one batch, or one file alone, may take until this process ends itself.
    :raises ReturnedError: when ``stop`` was requested; nothing of the rest is in hand then.
    :raises sqlalchemy.exc.OperationalError: when the catalog cannot be reached; call ``put_down`` before the
        next try, since no process has died.
    :raises CatalogError: when there is no such run.
    """
    from service.catalog.runs import finish_if_complete
    from service.catalog.writer import write_batch
    from workers.pipeline import score_manifest

    run = manifest.run
    deaths = take_up(engine, run, manifest.paths, message)
    company = [path for path in manifest.paths if deaths.get(path) == 0]
    # Whoever is suspected most waits until the innocent have their rows.
    alone = sorted((path for path in deaths if deaths[path]), key=lambda path: deaths[path])
    pieces = deque([company] if company else [])
    pieces += [[path] for path in alone]
    while pieces:
        if stop.requested:
            put_down(engine, run, message)
            raise ReturnedError
        piece = pieces.popleft()
        if piece != company:
            n = deaths[piece[0]]
            if n > ALONE:  # the first was in company
                detail = f"{n} worker processes ended with this input in hand, the last {ALONE} with no other"
                write_batch(engine, run, [], [RejectedRow(piece[0], ENDED_THE_WORKER, detail)])
                continue
            take_alone(engine, run, piece[0], message)
        try:
            with deadline(deadline_s):
                score_manifest(engine, manifest.model_copy(update={"paths": piece}), load_scorer, read)
        except CATALOG_GONE:
            raise
        except Exception as error:  # a fault of the program must not keep the run from ending
            logger.exception("failed on %d inputs from %s on", len(piece), piece[0])
            if len(piece) > 1:
                pieces.extend([path] for path in piece)
            else:
                write_batch(engine, run, [], [RejectedRow(piece[0], WORKER_FAILED, repr(error))])
    finish_if_complete(engine, run)


@contextmanager
def deadline(seconds: int | None) -> Iterator[None]:
    """The kernel ends this process when the block takes longer, whatever it hangs in.

    Neither an exception nor a Celery time limit would do: the first does not reach into a stuck read or a
    loop in C, and after the second the message counts as done.
    """
    if seconds is None:
        yield
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
