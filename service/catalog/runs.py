"""The ledger of runs: what was found, what is still queued, and the end of a run once nothing is.

A run is named by its key, so that starting it twice gives the same run. Its inputs are rows of
``run_inputs``, ``queued`` until the writer makes them ``scored`` or ``failed``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa

from service.catalog import drift
from service.catalog.engine import CatalogError, writing
from service.catalog.schema import clean, observations, run_inputs, runs, scores
from service.catalog.statements import chunks, insert_into, refresh_statistics, rows_as_json

STATUSES = ("queued", "scored", "failed")


def open_run(engine: sa.Engine, key: str, survey: str, night: str | date, models: dict[str, str]) -> int:
    """The id of the run with this key, which is made where there is none.

    ``models`` is the model id by kind; an existing run keeps its own.
    """
    values = {
        "key": key,
        "survey": survey,
        "night": str(night),
        "models": models,
        "started_at": datetime.now(UTC),
    }
    with writing(engine) as connection:
        statement = (
            insert_into(connection, runs).values(values).on_conflict_do_nothing(index_elements=["key"])
        )
        connection.execute(statement)
        return connection.execute(sa.select(runs.c.id).where(runs.c.key == key)).scalar_one()


def add_inputs(
    engine: sa.Engine,
    run_id: int,
    inputs: Iterable[tuple[str, int | None, int | None]],
    requeue: bool = False,
) -> list[str]:
    """Note the files of a run as (path, size in bytes, mtime in ns); returns the paths that are newly queued.

    New are those that the run has not met and those whose size or mtime changed since; with ``requeue`` all
    of them. A run that had ended is open again once something is queued.
    Raises CatalogError where there is no such run.
    """
    given = {clean(path): (path, size, mtime_ns) for path, size, mtime_ns in inputs}
    queued: list[str] = []
    with writing(engine) as connection:
        lock_run(connection, run_id)
        fresh = {"status": "queued", "attempts": 0, "observation_id": None, "reason": None, "in_hand": None}
        for part in chunks(given[path] for path in sorted(given)):
            table = rows_as_json(connection, [(clean(path), *state) for path, *state in part])
            size, mtime_ns = sa.cast(table.c.c1, sa.BigInteger), sa.cast(table.c.c2, sa.BigInteger)
            values = (sa.literal(run_id), table.c.c0, size, mtime_ns, sa.literal("queued"), sa.literal(0))
            names = ["run_id", "path", "size", "mtime_ns", "status", "attempts"]
            # SQLite takes ON CONFLICT for part of a join unless there is a WHERE.
            chosen = sa.select(*values).where(sa.true())
            statement = insert_into(connection, run_inputs).from_select(names, chosen)
            new = statement.excluded
            changed = sa.or_(
                run_inputs.c.size.is_distinct_from(new.size),
                run_inputs.c.mtime_ns.is_distinct_from(new.mtime_ns),
            )
            statement = statement.on_conflict_do_update(
                index_elements=["run_id", "path"],
                set_=fresh | {"size": new.size, "mtime_ns": new.mtime_ns},
                where=None if requeue else changed,
            ).returning(run_inputs.c.path)
            queued += connection.scalars(statement)
        if queued:
            connection.execute(sa.update(runs).where(runs.c.id == run_id).values(ended_at=None))
    return sorted(given[path][0] for path in queued)


def open_runs(engine: sa.Engine) -> list[sa.Row[Any]]:
    """The runs that have not ended, the oldest first."""
    with engine.connect() as connection:
        return list(connection.execute(sa.select(runs).where(runs.c.ended_at.is_(None)).order_by(runs.c.id)))


def runs_of_night(engine: sa.Engine, night: date) -> list[int]:
    """The ids of a night's runs, the newest first."""
    wanted = sa.select(runs.c.id).where(runs.c.night == night.isoformat()).order_by(runs.c.id.desc())
    with engine.connect() as connection:
        return list(connection.scalars(wanted))


def list_inputs(
    engine: sa.Engine, run_id: int, status: str | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """The files of a run with what became of them: failed ones first, then queued, then scored, each by path.

    ``in_hand`` is whether a worker has begun on the file and not ended.
    """
    order = sa.case({"failed": 0, "queued": 1}, value=run_inputs.c.status, else_=2)
    names = ("path", "status", "reason", "attempts", "in_hand", "size", "mtime_ns")
    wanted = sa.select(*(run_inputs.c[name] for name in names)).where(run_inputs.c.run_id == run_id)
    if status is not None:
        wanted = wanted.where(run_inputs.c.status == status)
    with engine.connect() as connection:
        found = connection.execute(wanted.order_by(order, run_inputs.c.path).limit(limit)).mappings()
        return [{**row, "in_hand": row["status"] == "queued" and row["in_hand"] is not None} for row in found]


def finish_if_complete(engine: sa.Engine, run_id: int) -> bool:
    """End the run when none of its inputs is queued any more; True when it has ended, now or before.

    Ending gives each model's scores their Benjamini–Hochberg q-values over the run, marks equal bytes under
    several paths as duplicates, measures the run's drift, and keeps the counts as the run's summary. Any number
    of processes may ask at once: one does the work, the others wait for it.
    Raises CatalogError where there is no such run.
    """
    with engine.connect() as connection:
        if _has_queued(connection, run_id):
            return False
    with writing(engine) as connection:
        run = lock_run(connection, run_id)
        if _has_queued(connection, run_id):
            return False
        if run.ended_at is not None:
            return True
        _write_q_values(connection, run_id, list(run.models.values()))
        _mark_duplicates(connection, run_id)
        drift.measure(connection, run_id, run.models)
        summary = _counts(connection, run_id)
        summary.pop("queued")
        values = {"ended_at": datetime.now(UTC), "summary": summary}
        connection.execute(sa.update(runs).where(runs.c.id == run_id).values(values))
        refresh_statistics(connection)
    return True


def counts(engine: sa.Engine, run_id: int, paths: Sequence[str] | None = None) -> dict[str, Any]:
    """How far a run is: found, queued, scored, failed, and reasons {reason: how many}.

    With ``paths``, only over those of them that are in the run; each counts once.
    """
    with engine.connect() as connection:
        if paths is None:
            return _counts(connection, run_id)
        total: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for part in chunks(sorted({clean(path) for path in paths})):
            some = _counts(connection, run_id, run_inputs.c.path.in_(part))
            reasons.update(some.pop("reasons"))
            total.update(some)
        return {name: total[name] for name in ("found", *STATUSES)} | {"reasons": dict(reasons.most_common())}


def lock_run(connection: sa.Connection, run_id: int) -> sa.Row[Any]:
    """The run's row, held against others until the transaction ends (SQLite holds the whole file anyway)."""
    wanted = sa.select(runs).where(runs.c.id == run_id).with_for_update()
    row = connection.execute(wanted).one_or_none()
    if row is None:
        raise CatalogError(f"there is no run {run_id} in the catalog")
    return row


def _has_queued(connection: sa.Connection, run_id: int) -> bool:
    queued = sa.select(run_inputs.c.path).where(
        run_inputs.c.run_id == run_id, run_inputs.c.status == "queued"
    )
    return connection.execute(queued.limit(1)).first() is not None


def _counts(connection: sa.Connection, run_id: int, *conditions: sa.ColumnElement[bool]) -> dict[str, Any]:
    number = sa.func.count()
    grouped = (
        sa.select(run_inputs.c.status, run_inputs.c.reason, number)
        .where(run_inputs.c.run_id == run_id, *conditions)
        .group_by(run_inputs.c.status, run_inputs.c.reason)
        .order_by(number.desc(), run_inputs.c.reason)
    )
    total: Counter[str] = Counter()
    reasons: dict[str, int] = {}
    for status, reason, n in connection.execute(grouped):
        total[status] += n
        if status == "failed":
            reasons[reason or ""] = n
    return {"found": total.total()} | {name: total[name] for name in STATUSES} | {"reasons": reasons}


def _write_q_values(connection: sa.Connection, run_id: int, model_ids: list[str]) -> None:
    """Benjamini & Hochberg 1995 (JRSS B 57, 289): q = min over p' ≥ p of m·p' / #{p'' ≤ p'}, by model.

    Window frames by value count ties together, so equal p-values get equal q-values.
    """
    inputs = sa.select(run_inputs.c.observation_id).where(run_inputs.c.run_id == run_id).distinct().subquery()
    s = scores.c
    at_most = sa.func.count().over(partition_by=s.model_id, order_by=s.p_value)
    m = sa.func.count().over(partition_by=s.model_id)
    raw = (
        sa.select(s.observation_id, s.model_id, s.p_value, (s.p_value * m / at_most).label("raw"))
        .join(inputs, inputs.c.observation_id == s.observation_id)
        .where(s.model_id.in_(model_ids))
        .subquery()
    )
    lowest = sa.func.min(raw.c.raw).over(partition_by=raw.c.model_id, order_by=raw.c.p_value.desc())
    found = sa.select(raw.c.observation_id, raw.c.model_id, lowest.label("q")).subquery()
    connection.execute(
        sa.update(scores)
        .where(
            s.observation_id == found.c.observation_id,
            s.model_id == found.c.model_id,
            # Another run may have scored the same file since; its q-values are its own.
            s.run_id == run_id,
        )
        .values(q_value=found.c.q)
    )


def _mark_duplicates(connection: sa.Connection, run_id: int) -> None:
    mine = (
        sa.select(observations.c.sha256)
        .join(run_inputs, run_inputs.c.observation_id == observations.c.id)
        .where(run_inputs.c.run_id == run_id)
    )
    several = (
        sa.select(observations.c.sha256)
        .where(observations.c.sha256.in_(mine), observations.c.superseded.is_(False))
        .group_by(observations.c.sha256)
        .having(sa.func.count() > 1)
    )
    repeated = observations.c.sha256.in_(several) & observations.c.duplicate.is_(False)
    connection.execute(sa.update(observations).where(repeated).values(duplicate=True))
