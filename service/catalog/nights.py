"""Which files past nights brought: for scoring them again and for training on them."""

from __future__ import annotations

from datetime import date

import sqlalchemy as sa

from service.catalog.schema import drift, observations, scores


def paths_since(engine: sa.Engine, kind: str, night: date) -> list[str]:
    """The files of a kind that were first scored in this night or later, as they are now, the oldest first."""
    wanted = _current(kind).where(observations.c.night >= night.isoformat())
    with engine.connect() as connection:
        return list(connection.scalars(wanted))


def recent_paths(engine: sa.Engine, kind: str, nights: int) -> list[str]:
    """The files of a kind from its last ``nights`` nights, one of each set of copies.

    A night that was an instrument problem must not teach what is ordinary: files that a flagged run scored are left
    out.
    """
    o = observations.c
    last = sa.select(o.night).where(o.kind == kind).distinct().order_by(o.night.desc()).limit(nights)
    flagged = (
        sa.select(scores.c.observation_id)
        .join(drift, sa.and_(drift.c.run_id == scores.c.run_id, drift.c.model_id == scores.c.model_id))
        .where(drift.c.problem != "")
    )
    copies = sa.select(sa.func.min(o.id)).where(o.kind == kind, o.superseded.is_(False)).group_by(o.sha256)
    wanted = _current(kind).where(o.night.in_(last), o.id.not_in(flagged), o.id.in_(copies))
    with engine.connect() as connection:
        return list(connection.scalars(wanted))


def _current(kind: str) -> sa.Select[tuple[str]]:
    o = observations.c
    return sa.select(o.path).where(o.kind == kind, o.superseded.is_(False)).order_by(o.id)
