"""Writing what became of a batch: one transaction, each row by upsert."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import numpy as np
import sqlalchemy as sa

from service.catalog import healpix
from service.catalog.bulk import Upsert
from service.catalog.engine import CatalogError, writing
from service.catalog.rows import RejectedRow, ScoredRow
from service.catalog.schema import (
    clean,
    embeddings,
    explanations,
    failures,
    models,
    objects,
    observations,
    run_inputs,
    runs,
    scores,
)
from service.catalog.statements import chunks, finite_json

NUMBERS = ("elbo", "log_px", "log_density", "chi2", "score", "p_value", "cluster_probability", "snr")
_numbers = attrgetter(*NUMBERS)
POSITION = ("ra", "dec", "x", "y", "z", "healpix29")
BLOBS = ("latent", "latent_var", "responsibilities")

NOT_FINITE = (
    "the model gave a number that is not finite: keep the file and report it as a fault of the program"
)

OBJECTS = Upsert(
    objects,
    ("kind", "survey", "object_id"),
    extra=lambda new: {name: sa.func.coalesce(new[name], objects.c[name]) for name in POSITION},
)
"""A known position is kept where none comes."""

OBSERVATIONS = Upsert(
    observations,
    ("path", "sha256"),
    ("object_id", "kind", "redshift", "spectral_class", "zwarning", "reader_flags", "superseded"),
)


def _kept_q_value(new: Any) -> sa.ColumnElement[Any]:
    same = sa.and_(scores.c.run_id == new.run_id, scores.c.p_value == new.p_value)
    return sa.case((same, scores.c.q_value), else_=sa.null())


SCORES = Upsert(
    scores,
    ("observation_id", "model_id"),
    (*NUMBERS, "run_id", "scored_at", "cluster", "flags", "parts", "windows"),
    lambda new: {"q_value": _kept_q_value(new)},
)
"""A batch that comes twice keeps the q-values its run has found."""

EMBEDDINGS = Upsert(embeddings, ("observation_id", "model_id"), BLOBS)
EXPLANATIONS = Upsert(explanations, ("observation_id", "model_id"), ("data",))
"""Only outliers have one. None goes away: the same bytes under the same model are explained alike whenever scored."""
_ONE_MORE: sa.ColumnElement[int] = sa.literal_column("1")
FAILURES = Upsert(
    failures,
    ("path", "model"),
    ("reason", "detail", "kind", "run_id", "last_seen"),
    lambda new: {"attempts": failures.c.attempts + _ONE_MORE},
)
LEDGER = Upsert(
    run_inputs,
    ("run_id", "path"),
    ("status", "observation_id", "reason"),
    lambda new: {"attempts": run_inputs.c.attempts + _ONE_MORE},
)


def write_batch(
    engine: sa.Engine, run_id: int, scored: Sequence[ScoredRow], rejected: Sequence[RejectedRow]
) -> None:
    """Write what became of a batch, all of it or nothing; doing so twice changes nothing.

    Each path ends as a score or as a failure and is no longer queued in its run. A success ends earlier
    failures of the path under that model. A score with a number that is not finite is written as a failure.
    Raises CatalogError where the run or a model is not in the catalog.
    """
    now = datetime.now(UTC)
    for row in scored:
        row.path, row.survey, row.object_id = clean(row.path), clean(row.survey), clean(row.object_id)
    for refused in rejected:
        refused.path = clean(refused.path)
    good = {row.path: row for row in scored if _is_finite(row)}
    bad = [row for row in scored if not _is_finite(row)] if len(good) < len(scored) else []
    failed = {row.path: row for row in rejected}
    failed |= {
        row.path: RejectedRow(row.path, NOT_FINITE, "", row.kind, row.model, row.sha256) for row in bad
    }
    # The same path twice in a batch is one input, and a score is worth more than a failure.
    failed = {path: row for path, row in failed.items() if path not in good}
    with writing(engine) as connection:
        _enter_run(connection, run_id)
        _check_models(connection, {row.model for row in good.values()})
        # Sorted rows make concurrent writers lock in the same order, so none waits for another in a circle.
        accepted = [good[path] for path in sorted(good)]
        observation_ids = _write_observations(connection, accepted, now)
        _write_scores(connection, run_id, accepted, observation_ids, now)
        _write_failures(connection, run_id, [failed[path] for path in sorted(failed)], now)
        _end_failures(connection, accepted)
        _write_ledger(connection, run_id, accepted, observation_ids, failed)


def _is_finite(row: ScoredRow) -> bool:
    return all(map(math.isfinite, _numbers(row)))


def _enter_run(connection: sa.Connection, run_id: int) -> None:
    """Hold the run so that it does not end under this batch, and reopen it where it had ended."""
    held = sa.select(runs.c.id).where(runs.c.id == run_id).with_for_update(read=True, key_share=True)
    if connection.scalar(held) is None:
        raise CatalogError(f"there is no run {run_id} in the catalog")
    connection.execute(
        sa.update(runs).where(runs.c.id == run_id, runs.c.ended_at.is_not(None)).values(ended_at=None)
    )


def _check_models(connection: sa.Connection, wanted: set[str]) -> None:
    known = set(connection.scalars(sa.select(models.c.id).where(models.c.id.in_(wanted))))
    if wanted - known:
        raise CatalogError(f"the catalog does not list the model {', '.join(sorted(wanted - known))}")


def _position_columns(rows: list[ScoredRow]) -> dict[str, list[Any]]:
    """ra, dec and what derives from them; all None where they are no place on the sky."""
    ra = np.array([math.nan if row.ra is None else row.ra for row in rows], dtype=float)
    dec = np.array([math.nan if row.dec is None else row.dec for row in rows], dtype=float)
    known = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    ra, dec = np.where(known, ra % 360, 0), np.where(known, dec, 0)
    values = [ra, dec, *healpix.unit_vectors(ra, dec).T, healpix.healpix29(ra, dec)]
    columns = {name: column.tolist() for name, column in zip(POSITION, values, strict=True)}
    for i in np.flatnonzero(~known):
        for column in columns.values():
            column[i] = None
    return columns


def _write_objects(connection: sa.Connection, rows: list[ScoredRow]) -> list[int]:
    """Object ids of the rows."""
    keys = [(row.kind, row.survey, row.object_id) for row in rows]
    newest = dict(zip(keys, rows, strict=True))
    sorted_keys = sorted(newest)
    kinds, surveys, names = map(list, zip(*sorted_keys, strict=True))
    columns: dict[str, list[Any]] = {"kind": kinds, "survey": surveys, "object_id": names}
    OBJECTS.write(connection, columns | _position_columns([newest[key] for key in sorted_keys]))
    ids: dict[tuple[str, str, str], int] = {}
    for part in chunks(names):
        wanted = sa.select(objects.c.kind, objects.c.survey, objects.c.object_id, objects.c.id)
        found = connection.execute(wanted.where(objects.c.object_id.in_(part)))
        ids |= {(kind, survey, name): id_ for kind, survey, name, id_ in found}
    return [ids[key] for key in keys]


def _write_observations(connection: sa.Connection, rows: list[ScoredRow], now: datetime) -> list[int]:
    """Observation ids of the rows, which are sorted by path."""
    if not rows:
        return []
    n = len(rows)
    columns = {name: [getattr(row, name) for row in rows] for name in ("path", "sha256", "kind", "night")}
    columns |= {
        "object_id": _write_objects(connection, rows),
        "first_seen": [now] * n,
        "redshift": [z if (z := row.redshift) is not None and math.isfinite(z) else None for row in rows],
        "spectral_class": [row.spectral_class for row in rows],
        "zwarning": [int(row.zwarning) for row in rows],
        "reader_flags": [_joined(row.reader_flags) for row in rows],
        "duplicate": [False] * n,
        "superseded": [False] * n,
    }
    OBSERVATIONS.write(connection, columns)
    ids: dict[str, int] = {}
    older: list[int] = []
    current = {row.path: row.sha256 for row in rows}
    o = observations.c
    for paths in chunks(current):
        for path, sha256, id_, superseded in connection.execute(
            sa.select(o.path, o.sha256, o.id, o.superseded).where(o.path.in_(paths))
        ):
            if current[path] == sha256:
                ids[path] = id_
            elif not superseded:
                older.append(id_)
    for part in chunks(older):
        connection.execute(sa.update(observations).where(o.id.in_(part)).values(superseded=True))
    return [ids[row.path] for row in rows]


def _joined(flags: set[str]) -> str:
    return ",".join(sorted(flags)) if flags else ""


def _float32(values: np.ndarray) -> bytes:
    return np.asarray(values, dtype="<f4").tobytes()


def _finite_parts(parts: dict[str, float]) -> Mapping[str, float | None]:
    return finite_json(parts) if not all(map(math.isfinite, parts.values())) else parts


def _write_scores(
    connection: sa.Connection, run_id: int, rows: list[ScoredRow], observation_ids: list[int], now: datetime
) -> None:
    if not rows:
        return
    pairs = sorted(zip(observation_ids, rows, strict=True), key=lambda pair: pair[0])
    key: dict[str, Sequence[Any]] = {
        "observation_id": [id_ for id_, _ in pairs],
        "model_id": [row.model for _, row in pairs],
    }
    rows = [row for _, row in pairs]
    n = len(rows)
    numbers = dict(zip(NUMBERS, zip(*map(_numbers, rows), strict=True), strict=True))
    columns = key | numbers | {
        "run_id": [run_id] * n,
        "scored_at": [now] * n,
        "q_value": [None] * n,
        "cluster": [int(row.cluster) for row in rows],
        "flags": [_joined(row.flags) for row in rows],
        "parts": [_finite_parts(row.parts) for row in rows],
        "windows": [finite_json(row.windows) for row in rows],
    }  # fmt: skip
    SCORES.write(connection, columns)
    EMBEDDINGS.write(
        connection, key | {name: [_float32(getattr(row, name)) for row in rows] for name in BLOBS}
    )
    explained = [pair for pair in pairs if pair[1].explanation is not None]
    EXPLANATIONS.write(
        connection,
        {
            "observation_id": [id_ for id_, _ in explained],
            "model_id": [row.model for _, row in explained],
            "data": [row.explanation for _, row in explained],
        },
    )


def _write_failures(connection: sa.Connection, run_id: int, rows: list[RejectedRow], now: datetime) -> None:
    if not rows:
        return
    n = len(rows)
    columns = {
        name: [getattr(row, name) for row in rows] for name in ("path", "reason", "detail", "kind", "model")
    }
    columns |= {"run_id": [run_id] * n, "attempts": [1] * n, "first_seen": [now] * n, "last_seen": [now] * n}
    FAILURES.write(connection, columns)
    for row in rows:
        # A file fails in one way at a time: as such, or under a model.
        other = failures.c.model != "" if row.model == "" else failures.c.model == ""
        connection.execute(sa.delete(failures).where(failures.c.path == row.path, other))
        if row.sha256:
            changed = sa.and_(observations.c.path == row.path, observations.c.sha256 != row.sha256)
            connection.execute(sa.update(observations).where(changed).values(superseded=True))


def _end_failures(connection: sa.Connection, rows: list[ScoredRow]) -> None:
    for part in chunks(rows):
        wanted = failures.c.path.in_([row.path for row in part])
        found = connection.execute(
            sa.select(failures.c.id, failures.c.path, failures.c.model).where(wanted)
        ).all()
        solved = {(row.path, row.model) for row in part} | {(row.path, "") for row in part}
        ended = [id_ for id_, path, model in found if (path, model) in solved]
        if ended:
            connection.execute(sa.delete(failures).where(failures.c.id.in_(ended)))


def _write_ledger(
    connection: sa.Connection,
    run_id: int,
    accepted: list[ScoredRow],
    observation_ids: list[int],
    failed: dict[str, RejectedRow],
) -> None:
    rows: list[tuple[Any, ...]] = [
        (row.path, "scored", id_, None) for row, id_ in zip(accepted, observation_ids, strict=True)
    ]
    rows += [(path, "failed", None, row.reason) for path, row in failed.items()]
    if rows:
        rows.sort(key=lambda row: row[0])
        names = ("path", "status", "observation_id", "reason")
        columns: dict[str, Sequence[Any]] = dict(zip(names, zip(*rows, strict=True), strict=True))
        common = {"run_id": [run_id] * len(rows), "attempts": [1] * len(rows)}
        LEDGER.write(connection, columns | common)
