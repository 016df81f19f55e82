"""All scored observations of a model as arrays, for maps: of its latent space, seen flat, and of the sky.

Reading a million latents takes seconds, so what was read is kept until another run has begun or ended.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from service.catalog.healpix import ORDER
from service.catalog.schema import drift, embeddings, objects, observations, runs, scores

ROWS_AT_ONCE = 20_000
SAMPLE = 20_000
"""Latents from which the principal axes are computed."""
EDGE = 1.0
"""Percentage of objects beyond each side of the latent map, which are drawn at its edge."""
MARGIN = 0.3
"""Of the range between these percentiles, left free on each side."""
SKY_ORDER = 4
"""HEALPix order of the pixels of the sky map, 3.7 degrees wide."""
PATIENCE_S = 2.0
SKY_PIXELS = 12 * 4**SKY_ORDER


@dataclass(frozen=True, slots=True)
class Atlas:
    """The current observations that a model has scored, the highest score first, one value each."""

    observation_id: np.ndarray
    score: np.ndarray
    q_value: np.ndarray
    """NaN until the run has ended, and where the run looks like an instrument problem."""
    night: np.ndarray
    """Index into ``nights``."""
    nights: tuple[str, ...]
    pixel: np.ndarray
    """Nested HEALPix index of SKY_ORDER; -1 without a position."""
    place: np.ndarray
    """(n, 2) float32: the latent along the two axes, no further out than ``bounds``."""
    bounds: tuple[float, float, float, float]
    """Left, bottom, right, top of the latent map."""
    explained: tuple[float, float]
    """Share of the latents' variance along each of the two axes."""

    def of_night(self, night: str | None) -> np.ndarray:
        """(n,) bool"""
        if night is None:
            return np.ones(len(self.score), bool)
        return self.night == (self.nights.index(night) if night in self.nights else -1)

    def in_box(self, box: tuple[float, float, float, float]) -> np.ndarray:
        """(n,) bool: inside of left, bottom, right, top; what is drawn at the edge counts as there."""
        left, bottom, right, top = box
        x, y = self.place.T.astype(float)
        return (x >= left) & (x <= right) & (y >= bottom) & (y <= top)

    def cells(self, chosen: np.ndarray, columns: int, rows: int) -> dict[str, list[Any]]:
        """The occupied cells of the latent map: column, row, count, mean and max score."""
        left, bottom, right, top = self.bounds
        share = (self.place[chosen] - (left, bottom)) / (right - left, top - bottom)
        column, row = np.clip((share * (columns, rows)).astype(int), 0, (columns - 1, rows - 1)).T
        cell, count, mean, highest = _grouped(row * columns + column, self.score[chosen], columns * rows)
        return {
            "column": (cell % columns).tolist(),
            "row": (cell // columns).tolist(),
            "count": count.tolist(),
            "mean": mean.round(3).tolist(),
            "max": highest.round(3).tolist(),
        }

    def pixels(self, chosen: np.ndarray, fdr: float) -> dict[str, list[Any]]:
        """The occupied pixels of the sky: count, discoveries, max score, the centre and four corners in degrees."""
        chosen = chosen & (self.pixel >= 0)
        pixel, count, _, highest = _grouped(self.pixel[chosen], self.score[chosen], SKY_PIXELS)
        found = np.bincount(self.pixel[chosen & (self.q_value <= fdr)], minlength=SKY_PIXELS)[pixel]
        ra, dec, corners = _outlines(pixel)
        return {
            "count": count.tolist(),
            "discoveries": found.tolist(),
            "max": highest.round(3).tolist(),
            "ra": ra.round(4).tolist(),
            "dec": dec.round(4).tolist(),
            "corners": corners.round(4).tolist(),
        }


class Atlases:
    """Keeps the last atlas of each model."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._kept: dict[str, tuple[Any, Atlas]] = {}
        self._reading: dict[str, Future[Atlas]] = {}
        self._lock = threading.Lock()
        self._reader = ThreadPoolExecutor(1, "atlas")

    def of(self, model: str) -> Atlas:
        """The atlas of the model with this id; what a run brings comes into it when the run has ended.

        Nobody waits longer than PATIENCE_S while a newer one is read: the one before is still good to look at.
        """
        last = sa.select(sa.func.max(runs.c.id), sa.func.max(runs.c.ended_at))
        with self.engine.connect() as connection:
            now = tuple(connection.execute(last).one())
        then, kept = self._kept.get(model, (None, None))
        if kept is not None and then == now:
            return kept
        with self._lock:
            reading = self._reading.get(model)
            if reading is None or reading.done():
                reading = self._reading[model] = self._reader.submit(self._read, model, now)
        try:
            return reading.result(None if kept is None else PATIENCE_S)
        except TimeoutError:
            if kept is None:
                raise
            return kept

    def _read(self, model: str, now: Any) -> Atlas:
        with self.engine.connect() as connection:
            atlas = read_atlas(connection, model)
        self._kept[model] = now, atlas
        return atlas


def read_atlas(connection: sa.Connection, model: str) -> Atlas:
    """Read all current observations that the model with this id has scored."""
    s = scores.c
    wanted = (
        sa.select(
            s.observation_id, s.score, s.q_value, drift.c.problem,
            observations.c.night, objects.c.healpix29, embeddings.c.latent,
        )
        .join(observations, observations.c.id == s.observation_id)
        .join(objects, objects.c.id == observations.c.object_id)
        .join(
            embeddings,
            sa.and_(
                embeddings.c.observation_id == s.observation_id, embeddings.c.model_id == s.model_id
            ),
        )
        .outerjoin(drift, sa.and_(drift.c.run_id == s.run_id, drift.c.model_id == s.model_id))
        .where(s.model_id == model, observations.c.superseded.is_(False))
    )  # fmt: skip
    nights: dict[str, int] = {}
    parts: list[tuple[np.ndarray, ...]] = []
    latents: list[np.ndarray] = []
    for part in connection.execution_options(yield_per=ROWS_AT_ONCE).execute(wanted).partitions():
        columns = dict(zip(part[0]._fields, zip(*part, strict=True), strict=True))
        withheld = np.array([bool(problem) for problem in columns["problem"]])
        pixels = [-1 if p is None else p >> 2 * (ORDER - SKY_ORDER) for p in columns["healpix29"]]
        parts.append(
            (
                np.array(columns["observation_id"], np.int64),
                np.array(columns["score"], float),
                np.where(withheld, np.nan, np.array(columns["q_value"], float)),
                np.array([nights.setdefault(night, len(nights)) for night in columns["night"]], np.int32),
                np.array(pixels, np.int64),
            )
        )
        latents.append(np.frombuffer(b"".join(columns["latent"]), "<f4").reshape(len(part), -1))
    if not parts:
        nothing = np.empty(0, np.int64)
        flat = np.empty((0, 2), np.float32)
        return Atlas(nothing, flat[:, 0], flat[:, 0], nothing, (), nothing, flat, (-1, -1, 1, 1), (0, 0))
    ids, score, q, night, pixel = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    order = np.lexsort((ids, -score))
    place, explained = flattened(np.concatenate(latents))
    bulk = np.percentile(place, [EDGE, 100 - EDGE], axis=0)
    room = MARGIN * np.maximum(bulk[1] - bulk[0], 1e-6)
    # in the precision of the places, so that what is moved to the edge is not beyond it
    low, high = (bulk[0] - room).astype(np.float32), (bulk[1] + room).astype(np.float32)
    return Atlas(
        observation_id=ids[order],
        score=score[order],
        q_value=q[order],
        night=night[order],
        nights=tuple(nights),
        pixel=pixel[order],
        place=np.clip(place, low, high)[order],
        bounds=(float(low[0]), float(low[1]), float(high[0]), float(high[1])),
        explained=explained,
    )


def flattened(latents: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Latents (n, L) along the two principal axes of a sample of them, (n, 2), and the variance's shares there.

    The sign of an axis is such that its largest component is positive, so that the map does not turn over between
    two readings.
    """
    chosen = np.linspace(0, len(latents) - 1, min(len(latents), SAMPLE)).astype(int)
    sample = latents[chosen].astype(float)
    mean = sample.mean(0)
    _, spread, axes = np.linalg.svd(sample - mean, full_matrices=False)
    two = np.zeros((2, latents.shape[1]))
    two[: len(axes[:2])] = axes[:2]
    two *= np.where(np.take_along_axis(two, np.abs(two).argmax(1)[:, None], 1) < 0, -1.0, 1.0)
    share = np.append(spread**2, [0.0, 0.0]) / max(float((spread**2).sum()), 1e-30)
    return ((latents - mean) @ two.T).astype(np.float32), (float(share[0]), float(share[1]))


def points(engine: sa.Engine, model: str, ids: np.ndarray, place: np.ndarray) -> list[dict[str, Any]]:
    """Who the observations with these ids (n,) are, and their place (n, 2) as ``x`` and ``y``; highest score first."""
    o, s = objects.c, scores.c
    wanted = (
        sa.select(s.observation_id, o.object_id, o.kind, o.survey, o.ra, o.dec, s.score, s.p_value)
        .join(observations, observations.c.id == s.observation_id)
        .join(objects, o.id == observations.c.object_id)
        .where(s.model_id == model, s.observation_id.in_(ids.tolist()))
        .order_by(s.score.desc(), s.observation_id)
    )
    places = dict(zip(ids.tolist(), place.tolist(), strict=True))
    with engine.connect() as connection:
        return [
            {**row, "x": places[row["observation_id"]][0], "y": places[row["observation_id"]][1]}
            for row in connection.execute(wanted).mappings()
        ]


def nights(engine: sa.Engine, limit: int) -> Iterator[str]:
    """Nights that brought observations, the newest first. Each is one step along an index, however many rows."""
    o = observations.c
    step = sa.select(sa.func.max(o.night).label("night")).cte("step", recursive=True)
    before = sa.select(sa.func.max(o.night)).where(o.night < step.c.night).scalar_subquery()
    step = step.union_all(sa.select(before).where(step.c.night.is_not(None)))
    wanted = sa.select(step.c.night).where(step.c.night.is_not(None)).limit(limit)
    with engine.connect() as connection:
        yield from connection.scalars(wanted)


def _grouped(key: np.ndarray, score: np.ndarray, n_keys: int) -> tuple[np.ndarray, ...]:
    """The keys that occur, of 0 … n_keys − 1, with the count, mean score and highest score of each.

    The highest scores come first, so that of all that are assigned from the end the highest stays.
    """
    count = np.bincount(key, minlength=n_keys)
    found = np.flatnonzero(count)
    total = np.bincount(key, weights=score, minlength=n_keys)
    highest = np.zeros(n_keys)
    highest[key[::-1]] = score[::-1]
    return found, count[found], total[found] / count[found], highest[found]


def _outlines(pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right ascension (n,), declination (n,) and corners (n, 4, 2) of pixels of SKY_ORDER, degrees."""
    from astropy_healpix import HEALPix

    grid = HEALPix(nside=1 << SKY_ORDER, order="nested")
    ra, dec = grid.healpix_to_lonlat(pixel)
    corner_ra, corner_dec = grid.boundaries_lonlat(pixel, step=1)
    return ra.deg, dec.deg, np.stack([corner_ra.deg, corner_dec.deg], axis=-1)
