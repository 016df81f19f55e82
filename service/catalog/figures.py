"""What monitoring asks of the catalog: totals over all runs, how old the oldest unscored file is, seconds by stage."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from service.catalog.bulk import Upsert
from service.catalog.engine import writing
from service.catalog.runs import counts
from service.catalog.schema import drift, run_inputs, runs, stage_seconds

RECENT = timedelta(days=1)
STAGE_SECONDS = Upsert(
    stage_seconds,
    ("run_id", "stage"),
    ("last_at",),
    lambda new: {"seconds": stage_seconds.c.seconds + new.seconds},
)


@dataclass(slots=True)
class Figures:
    """Of the whole catalog, now; instants in seconds since 1970."""

    scored: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """By reason."""
    queued: int = 0
    oldest_queued: float | None = None
    """When the input that has waited longest came: its file's time, or its run's start where that is later."""
    last_run_end: float | None = None
    flagged: int = 0
    """Runs of the last day that look like an instrument problem."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of all workers, by stage of the work."""
    last_commit: float | None = None


def figures(engine: sa.Engine) -> Figures:
    """Ended runs have their counts in their summary, so only open ones are counted."""
    found = Figures()
    with engine.connect() as connection:
        known = connection.execute(
            sa.select(runs.c.id, runs.c.started_at, runs.c.ended_at, runs.c.summary)
        ).all()
        for run in known:
            summary = run.summary if run.ended_at is not None and run.summary else counts(engine, run.id)
            found.scored += summary["scored"]
            found.failed.update(summary["reasons"])
            found.queued += summary.get("queued", 0)
            if summary.get("queued"):
                mine = sa.and_(run_inputs.c.run_id == run.id, run_inputs.c.status == "queued")
                mtime_ns = connection.scalar(sa.select(sa.func.min(run_inputs.c.mtime_ns)).where(mine)) or 0
                came = max(run.started_at.timestamp(), mtime_ns / 1e9)
                found.oldest_queued = min(found.oldest_queued or came, came)
        ends = [run.ended_at.timestamp() for run in known if run.ended_at is not None]
        found.last_run_end = max(ends, default=None)
        bad = (
            sa.select(sa.func.count(drift.c.run_id.distinct()))
            .join(runs, runs.c.id == drift.c.run_id)
            .where(drift.c.problem != "", runs.c.ended_at > datetime.now(UTC) - RECENT)
        )
        found.flagged = connection.execute(bad).scalar_one()
        s = stage_seconds.c
        by_stage = sa.select(
            s.stage, sa.func.sum(s.seconds).label("seconds"), sa.func.max(s.last_at).label("at")
        )
        for row in connection.execute(by_stage.group_by(s.stage)):
            found.seconds[row.stage] = row.seconds
            if row.stage == "write":
                found.last_commit = row.at.timestamp()
    return found


def add_seconds(engine: sa.Engine, run_id: int, seconds: dict[str, float]) -> None:
    """Add to the time that all workers together have spent on the stages of a run."""
    now = datetime.now(UTC)
    stages, n = sorted(seconds), len(seconds)
    rows: dict[str, list[Any]] = {
        "run_id": [run_id] * n,
        "stage": stages,
        "seconds": [seconds[s] for s in stages],
        "last_at": [now] * n,
    }
    with writing(engine) as connection:
        STAGE_SECONDS.write(connection, rows)
