"""Writing what became of a batch: one transaction, each row by upsert."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sqlalchemy as sa

from service.catalog import healpix
from service.catalog.engine import CatalogError, writing
from service.catalog.rows import RejectedRow, ScoredRow
from service.catalog.schema import (
    clean,
    embeddings,
    failures,
    models,
    objects,
    observations,
    run_inputs,
    runs,
    scores,
)
from service.catalog.statements import chunks, finite_json, insert_into, upsert

NUMBERS = ("elbo", "log_px", "log_density", "chi2", "score", "p_value", "cluster_probability", "snr")
NOT_FINITE = (
    "the model gave a number that is not finite: keep the file and report it as a fault of the program"
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
    bad = [row for row in scored if not _is_finite(row)]
    good = {row.path: row for row in scored if _is_finite(row)}
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
    return all(math.isfinite(getattr(row, name)) for name in NUMBERS)


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


def _position_columns(rows: list[ScoredRow]) -> list[dict[str, Any]]:
    """For each row ra, dec and what derives from them; all None where they are no place on the sky."""
    ra = np.array([math.nan if row.ra is None else row.ra for row in rows], dtype=float)
    dec = np.array([math.nan if row.dec is None else row.dec for row in rows], dtype=float)
    known = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    columns: list[dict[str, Any]] = [dict.fromkeys(("ra", "dec", "x", "y", "z", "healpix29")) for _ in rows]
    if known.any():
        ra, dec = ra[known] % 360, dec[known]
        vectors, pixels = healpix.unit_vectors(ra, dec), healpix.healpix29(ra, dec)
        for i, where in enumerate(np.flatnonzero(known)):
            x, y, z = vectors[i].tolist()
            columns[where] = {
                "ra": float(ra[i]), "dec": float(dec[i]), "x": x, "y": y, "z": z, "healpix29": int(pixels[i]),
            }  # fmt: skip
    return columns


def _write_objects(connection: sa.Connection, rows: list[ScoredRow]) -> dict[tuple[str, str, str], int]:
    """Object ids by (kind, survey, object_id); a known position is kept where none comes."""
    rows = list({(row.kind, row.survey, row.object_id): row for row in rows}.values())
    rows.sort(key=lambda row: (row.kind, row.survey, row.object_id))
    values = [
        {"kind": row.kind, "survey": row.survey, "object_id": row.object_id} | position
        for row, position in zip(rows, _position_columns(rows), strict=True)
    ]
    statement = insert_into(connection, objects)
    position = ("ra", "dec", "x", "y", "z", "healpix29")
    changed = {name: sa.func.coalesce(statement.excluded[name], objects.c[name]) for name in position}
    statement = statement.on_conflict_do_update(index_elements=["kind", "survey", "object_id"], set_=changed)
    key = (objects.c.kind, objects.c.survey, objects.c.object_id)
    found = connection.execute(statement.returning(objects.c.id, *key), values)
    return {(kind, survey, object_id): id_ for id_, kind, survey, object_id in found}


def _write_observations(connection: sa.Connection, rows: list[ScoredRow], now: datetime) -> dict[str, int]:
    """Observation ids by path."""
    if not rows:
        return {}
    object_ids = _write_objects(connection, rows)
    values = [
        {
            "object_id": object_ids[row.kind, row.survey, row.object_id],
            "path": row.path,
            "sha256": row.sha256,
            "kind": row.kind,
            "night": row.night,
            "first_seen": now,
            "redshift": row.redshift if row.redshift is not None and math.isfinite(row.redshift) else None,
            "spectral_class": row.spectral_class,
            "zwarning": int(row.zwarning),
            "reader_flags": ",".join(sorted(row.reader_flags)),
            "duplicate": False,
            "superseded": False,
        }
        for row in rows
    ]
    statement = insert_into(connection, observations)
    update = ("object_id", "kind", "redshift", "spectral_class", "zwarning", "reader_flags", "superseded")
    statement = statement.on_conflict_do_update(
        index_elements=["path", "sha256"], set_={name: statement.excluded[name] for name in update}
    )
    found = connection.execute(statement.returning(observations.c.path, observations.c.id), values)
    ids = {row.path: row.id for row in found}
    for paths in chunks(ids):
        older = sa.and_(
            observations.c.path.in_(paths),
            observations.c.id.not_in([ids[path] for path in paths]),
            observations.c.superseded.is_(False),
        )
        connection.execute(sa.update(observations).where(older).values(superseded=True))
    return ids


def _float32(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values, dtype="<f4").tobytes()


def _write_scores(
    connection: sa.Connection,
    run_id: int,
    rows: list[ScoredRow],
    observation_ids: dict[str, int],
    now: datetime,
) -> None:
    if not rows:
        return
    order = sorted(rows, key=lambda row: observation_ids[row.path])
    keys = [{"observation_id": observation_ids[row.path], "model_id": row.model} for row in order]
    values = [
        key
        | {name: float(getattr(row, name)) for name in NUMBERS}
        | {
            "run_id": run_id,
            "scored_at": now,
            "q_value": None,
            "cluster": int(row.cluster),
            "flags": ",".join(sorted(row.flags)),
            "parts": finite_json({name: float(value) for name, value in row.parts.items()}),
            "windows": finite_json(row.windows),
        }
        for key, row in zip(keys, order, strict=True)
    ]
    # A batch that comes twice keeps the q-values its run has found.
    excluded = insert_into(connection, scores).excluded
    same = sa.and_(scores.c.run_id == excluded.run_id, scores.c.p_value == excluded.p_value)
    update = [*NUMBERS, "run_id", "scored_at", "cluster", "flags", "parts", "windows"]
    upsert(
        connection, scores, values, ["observation_id", "model_id"], update,
        {"q_value": sa.case((same, scores.c.q_value), else_=None)},
    )  # fmt: skip
    blobs = ["latent", "latent_var", "responsibilities"]
    vectors = [
        key | {name: _float32(getattr(row, name)) for name in blobs}
        for key, row in zip(keys, order, strict=True)
    ]
    upsert(connection, embeddings, vectors, ["observation_id", "model_id"], blobs)


def _write_failures(connection: sa.Connection, run_id: int, rows: list[RejectedRow], now: datetime) -> None:
    if not rows:
        return
    values = [
        {
            "path": row.path,
            "reason": row.reason,
            "detail": row.detail,
            "kind": row.kind,
            "model": row.model,
            "run_id": run_id,
            "attempts": 1,
            "first_seen": now,
            "last_seen": now,
        }
        for row in rows
    ]
    update = ["reason", "detail", "kind", "run_id", "last_seen"]
    upsert(connection, failures, values, ["path", "model"], update, {"attempts": failures.c.attempts + 1})
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
    observation_ids: dict[str, int],
    failed: dict[str, RejectedRow],
) -> None:
    common: dict[str, Any] = {"run_id": run_id, "attempts": 1}
    rows: list[dict[str, Any]] = [
        common
        | {"path": row.path, "status": "scored", "observation_id": observation_ids[row.path], "reason": None}
        for row in accepted
    ] + [
        common | {"path": path, "status": "failed", "observation_id": None, "reason": row.reason}
        for path, row in failed.items()
    ]
    if rows:
        rows.sort(key=lambda row: row["path"])
        update = ["status", "observation_id", "reason"]
        upsert(
            connection, run_inputs, rows, ["run_id", "path"], update, {"attempts": run_inputs.c.attempts + 1}
        )
