"""What a night brought: its runs, and for each model the discoveries at a false-discovery rate."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import sqlalchemy as sa

from service.catalog.engine import NotFoundError
from service.catalog.filters import Filters
from service.catalog.queries import one_run
from service.catalog.ranking import outliers, select_rows
from service.catalog.registry import list_models
from service.catalog.runs import runs_of_night
from service.catalog.schema import runs, scores


def last_nights(engine: sa.Engine, n: int) -> list[str]:
    """The last ``n`` nights with a run that has ended, the newest first."""
    wanted = sa.select(runs.c.night).where(runs.c.ended_at.is_not(None)).distinct()
    with engine.connect() as connection:
        return list(connection.scalars(wanted.order_by(runs.c.night.desc()).limit(n)))


def first_run_at(engine: sa.Engine) -> str:
    """When the first run began, which no other catalog shares; empty before."""
    with engine.connect() as connection:
        first = connection.scalar(sa.select(runs.c.started_at).order_by(runs.c.id).limit(1))
    return first.isoformat() if first else ""


def digest(engine: sa.Engine, night: str | None = None, q: float = 0.1, limit: int = 100) -> dict[str, Any]:
    """A night, or else the last that has a run which ended: ``night``, ``q``, ``runs`` as ``one_run`` gives them, and
    ``models``, each with

    - ``kind``, ``model``, ``scored``: how many observations of that night it scored;
    - ``smallest_p`` that its calibration set resolves, and ``fewest``: so many objects at that p-value it takes for any
      to be a discovery at this q, since Benjamini–Hochberg gives k of n objects at p the q-value p n / k;
    - ``discoveries``: rows with a q-value of at most ``q``, the highest scores first, at most ``limit`` of the
      ``n_discoveries``; and how many more are ``withheld``, because their run looks like an instrument problem.

    Raises NotFoundError for a night without runs.
    """
    if night is None:
        night = next(iter(last_nights(engine, 1)), None)
        if night is None:
            raise NotFoundError("no run has ended yet: `peculiar nightly` or `peculiar score` makes one")
    listed = [one_run(engine, run_id) for run_id in runs_of_night(engine, date.fromisoformat(night))]
    if not listed:
        raise NotFoundError(f"there is no run of the night {night}")
    used = {model for run in listed for model in run["models"].values()}
    models = [model for model in list_models(engine) if model["id"] in used]
    models.sort(key=lambda model: model["kind"], reverse=True)  # spectra before cutouts, as everywhere
    return {
        "night": night,
        "q": q,
        "runs": listed,
        "models": [_of_model(engine, model, night, q, limit) for model in models],
    }


def _of_model(engine: sa.Engine, model: dict[str, Any], night: str, q: float, limit: int) -> dict[str, Any]:
    found = Filters(model=model["id"], night=night, q=q)
    scored = _count(engine, Filters(model=model["id"], night=night))
    n = _count(engine, found)
    smallest = model["smallest_p"]
    return {
        "kind": model["kind"],
        "model": model["id"],
        "scored": scored,
        "smallest_p": smallest,
        # A little less, so that rounding does not ask for one more.
        "fewest": None if smallest is None else max(1, math.ceil(smallest * scored / q - 1e-9)),
        "n_discoveries": n,
        "withheld": _count(engine, Filters(model=model["id"], night=night, q=q, flagged=True)) - n,
        "discoveries": outliers(engine, found, limit).rows if n else [],
    }


def _count(engine: sa.Engine, filters: Filters) -> int:
    wanted = select_rows().with_only_columns(sa.func.count(), maintain_column_froms=True)
    wanted = wanted.where(scores.c.model_id == filters.model, *filters.conditions({}))
    with engine.connect() as connection:
        return int(connection.execute(wanted).scalar_one())
