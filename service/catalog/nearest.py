"""The nearest latents of a model.

From pgvector's index where the catalog has one (``vectors.py``), and exact otherwise: from memory in a process that is
asked often, from the database in any other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import numpy as np
import sqlalchemy as sa

from service.catalog import vectors
from service.catalog.schema import embeddings, scores, stage_seconds

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 20_000
"""Latents read at a time."""
FEW = 20_000
"""Observations of a model that are not worth keeping in memory."""
MOST_MODELS = 4
"""Kept in memory at a time; a million latents of 24 dimensions take 110 MB."""
MAX_AGE_S = 60.0
"""For which latents in memory may lack what was written since."""
PIECE = 32_768
"""Latents compared at a time: what is computed of them stays in the processor's cache."""
ROUNDING = 1e-5
"""Bound on the relative error of a float32 sum of a few hundred products."""

Nearest = dict[int, float]
"""Euclidean distance by observation id, the nearest first."""


@dataclass(frozen=True, slots=True)
class Latents:
    """All latents of a model, also of observations that are no longer current."""

    ids: np.ndarray
    """(n,) int64, observation ids"""
    values: np.ndarray
    """(n, L) float32, each dimension in one piece of memory: the product reads them twice as fast"""
    norms: np.ndarray
    """(n,) float32, a little less than |x|²"""

    @classmethod
    def of(cls, ids: np.ndarray, values: np.ndarray) -> Latents:
        norms = np.einsum("ij,ij->i", values, values) * np.float32(1 - ROUNDING)
        return cls(ids, np.asfortranarray(values), norms)

    def nearest(self, latent: np.ndarray, k: int) -> Nearest:
        """Exact, with a matrix-vector product in float32 and distances in float64 of what that cannot rule out.

        |x − q|² = |x|² − 2 x·q + |q|². Of those seen so far, the k with the least lower bounds are k points, so the k
        nearest of all lie no farther than the farthest of those; what is farther by its lower bound is forgotten.
        """
        twice = np.asarray(2 * latent, np.float32)
        squared = float(np.square(latent.astype(float)).sum())
        rows, lows, bound = np.empty(0, np.int64), np.empty(0, np.float32), np.inf
        for start in range(0, len(self.ids), PIECE):
            piece = slice(start, start + PIECE)
            low = self.norms[piece] - self.values[piece] @ twice
            near = np.flatnonzero(low <= bound)
            rows, lows = np.append(rows, near + start), np.append(lows, low[near])
            if len(rows) > 4 * k:
                some = rows[np.argpartition(lows, k - 1)[:k]]
                reach = max(self._measured(some, latent, k).values())
                bound = reach**2 * (1 + ROUNDING) - squared * (1 - 4 * ROUNDING)
                rows, lows = rows[lows <= bound], lows[lows <= bound]
        return self._measured(rows, latent, k)

    def _measured(self, rows: np.ndarray, latent: np.ndarray, k: int) -> Nearest:
        distance = np.sqrt(np.square(self.values[rows].astype(float) - latent).sum(axis=1))
        ids = self.ids[rows]
        order = np.lexsort((ids, distance))[:k]
        return dict(zip(ids[order].tolist(), distance[order].tolist(), strict=True))


def scan(connection: sa.Connection, model_id: str, latent: np.ndarray, k: int) -> Nearest:
    """The ``k`` nearest, with every latent of the model read from the database."""
    best: Nearest = {}
    for ids, values in read_latents(connection.engine, model_id):
        best |= Latents.of(ids, values).nearest(latent, k)
        best = dict(sorted(best.items(), key=lambda item: (item[1], item[0]))[:k])
    return best


Source = Callable[[sa.Connection, np.ndarray, int], Nearest]
"""The nearest of one model's latents."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a model's latents are found, when a worker had last written then, and since when."""

    source: Source
    written: datetime | None
    since: float


class LatentCache:
    """Where a long-lived process finds latents; safe for threads.

    What was written since is missing for up to MAX_AGE_S and the seconds that reading takes: the next question
    afterwards starts a thread that reads anew, and is itself answered from what is there.
    """

    def __init__(self, engine: sa.Engine, now: Callable[[], float] = time.monotonic, few: int = FEW) -> None:
        self._engine, self._now, self._few = engine, now, few
        self._kept: dict[str, Kept] = {}
        self._reading: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def nearest(self, connection: sa.Connection, model_id: str, latent: np.ndarray, k: int) -> Nearest:
        """As ``scan``; with pgvector's index, almost."""
        kept = self._kept.get(model_id)
        if kept is None:
            if self._is_small(connection, model_id):
                return scan(connection, model_id, latent, k)
            with self._reader(model_id):
                kept = self._kept.get(model_id) or self._load(connection, model_id)
        elif self._now() - kept.since > MAX_AGE_S and self._reader(model_id).acquire(blocking=False):
            threading.Thread(target=self._refresh, args=(model_id, kept), daemon=True).start()
        return kept.source(connection, latent, k)

    def _reader(self, model_id: str) -> threading.Lock:
        with self._lock:
            return self._reading.setdefault(model_id, threading.Lock())

    def _refresh(self, model_id: str, kept: Kept) -> None:
        try:
            with self._engine.connect() as connection:
                if kept.written is not None and kept.written == _last_written(connection):
                    self._keep(model_id, kept.source, kept.written)
                else:
                    self._load(connection, model_id)
        except sa.exc.SQLAlchemyError as error:  # the next question will try again
            logger.warning("cannot read the latents of %s anew: %s", model_id, error)
        finally:
            self._reader(model_id).release()

    def _load(self, connection: sa.Connection, model_id: str) -> Kept:
        written = _last_written(connection)  # asked first: what comes meanwhile is read again
        if vectors.exist(connection):
            try:
                vectors.refresh(self._engine, model_id)
            except sa.exc.DBAPIError as error:  # an account that may only read
                logger.warning("new latents of %s do not come into the index: %s", model_id, error)
            return self._keep(model_id, partial(vectors.nearest, model_id), written)
        parts = list(read_latents(connection.engine, model_id))
        ids, values = (np.concatenate(part) for part in zip(*parts, strict=True))
        latents = Latents.of(ids, values)
        return self._keep(model_id, lambda connection, latent, k: latents.nearest(latent, k), written)

    def _keep(self, model_id: str, source: Source, written: datetime | None) -> Kept:
        entry = Kept(source, written, self._now())
        with self._lock:
            self._kept.pop(model_id, None)
            self._kept[model_id] = entry
            while len(self._kept) > MOST_MODELS:  # the one that was read longest ago goes
                del self._kept[next(iter(self._kept))]
        return entry

    def _is_small(self, connection: sa.Connection, model_id: str) -> bool:
        some = sa.select(scores.c.observation_id).where(scores.c.model_id == model_id).limit(self._few + 1)
        n = connection.execute(sa.select(sa.func.count()).select_from(some.subquery())).scalar_one()
        return bool(n <= self._few)


def _last_written(connection: sa.Connection) -> datetime | None:
    """When a worker last wrote a batch."""
    return connection.scalar(sa.select(sa.func.max(stage_seconds.c.last_at)))


def read_latents(engine: sa.Engine, model_id: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Observation ids (m,) and latents (m, L), some at a time."""
    wanted = sa.select(embeddings.c.observation_id, embeddings.c.latent).where(
        embeddings.c.model_id == model_id
    )
    with engine.connect().execution_options(binary=True) as connection:
        result = connection.execute(wanted, execution_options={"yield_per": ROWS_AT_ONCE})
        for part in result.partitions():
            ids, latents = zip(*part, strict=True)
            values = np.frombuffer(b"".join(latents), dtype="<f4").reshape(len(ids), -1)
            yield np.array(ids, dtype=np.int64), values
