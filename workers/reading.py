"""Reading many inputs: in this process, or in reader processes whose death costs one input.

The readers are started afresh (spawned), never forked, since this process may have torch's threads. They stay for
the next message. Arrays come back through a pipe, 2 MB for CHUNK spectra, which is a fiftieth of the reading.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import AuthenticationString  # type: ignore[attr-defined]
from multiprocessing.util import Finalize

from workers.batching import Sample
from workers.readers import read_all
from workers.readers.sample import Rejection

logger = logging.getLogger(__name__)

READER_FAILED = "the reader failed on this input: the worker's log has the traceback, please report it"
READER_DIED = "the reader's process died on this input: look at the file; please report it"
CHUNK = 64
"""Paths handed to a reader process at a time; each process has at most one such chunk waiting."""

Result = Sample | Rejection


def read_inputs(paths: Iterable[str], readers: int = 0) -> Iterator[Result]:
    """What the paths hold, in their order, one result each; nothing that a file does is raised.

    :param readers: processes that read; with 0 this one does.
    """
    paths = list(paths)
    if not readers:
        yield from read_guarded(paths)
        return
    chunks = deque(paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK))
    ahead: deque[tuple[list[str], Future[list[Result]]]] = deque()
    while chunks or ahead:
        while chunks and len(ahead) < 2 * readers:
            chunk = chunks.popleft()
            ahead.append((chunk, _submit(readers, chunk)))
        chunk, future = ahead.popleft()
        try:
            yield from future.result()
        except BrokenProcessPool:
            _pool(readers).shutdown(wait=False)
            _pool.cache_clear()
            # The others' chunks are lost with the pool, and innocent.
            ahead = deque((other, _submit(readers, other)) for other, _ in ahead)
            yield from _read_singly(chunk)


def read_guarded(paths: Sequence[str]) -> list[Result]:
    """What the paths hold; where a reader has a bug, each is read by itself, so that it costs one."""
    try:
        return list(read_all(paths))
    except Exception as error:  # a reader promises not to raise; its bug must not cost the other paths
        if len(paths) > 1:
            return [result for path in paths for result in read_guarded([path])]
        logger.exception("the reader failed on %s", paths[0])
        return [Rejection(paths[0], READER_FAILED, repr(error))]


def _read_singly(paths: Sequence[str]) -> Iterator[Result]:
    """Read paths of which one killed its reader, one at a time."""
    todo = deque(paths)
    while todo:
        with _fresh_pool(1) as pool:
            try:
                while todo:
                    yield pool.submit(read_guarded, [todo[0]]).result()[0]
                    todo.popleft()
            except BrokenProcessPool:
                guilty = todo.popleft()
                logger.exception("a reader process died on %s", guilty)
                yield Rejection(guilty, READER_DIED)


@functools.cache
def _pool(readers: int) -> ProcessPoolExecutor:
    pool = _fresh_pool(readers)
    # A process that multiprocessing started waits for its children before it ends, and these for more to read. 100:
    # before the pool's own queues are closed.
    Finalize(None, pool.shutdown, kwargs={"cancel_futures": True}, exitpriority=100)
    return pool


def _fresh_pool(readers: int) -> ProcessPoolExecutor:
    # Celery's children call themselves daemons, which may have no children lest these outlive them; readers do
    # not. Their key is of Celery's own type, which the standard library does not pass on.
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    config |= {"daemon": False, "authkey": AuthenticationString(config["authkey"])}
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(readers, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Let this reader end when the process that started it does, also where that was killed."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _submit(readers: int, chunk: list[str]) -> Future[list[Result]]:
    try:
        return _pool(readers).submit(read_guarded, chunk)
    except BrokenProcessPool:  # it died between two messages, and of none of these paths
        _pool.cache_clear()
        return _pool(readers).submit(read_guarded, chunk)
