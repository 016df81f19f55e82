"""Rows of the catalog as everybody sees them, and the most anomalous of them page by page."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.catalog.columns import NAMES, part_name
from service.catalog.engine import CatalogError
from service.catalog.healpix import Cone, in_cone
from service.catalog.lens import LensFraction, expected_lens_fractions, lens_fractions
from service.catalog.registry import ranked_models
from service.catalog.schema import drift, embeddings, objects, observations, scores

INSTRUMENT = "instrument-problem"
"""Flag of rows whose run is far from what the model learnt."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which rows are wanted; None leaves a question open."""

    kind: str | None = None
    model: str | None = None
    """Id or name. Without one, the newest model of each kind that has scores."""
    night: str | None = None
    """YYYY-MM-DD"""
    cluster: int | None = None
    p: float | None = None
    """p-value at most this"""
    q: float | None = None
    """q-value at most this: the expected share of false discoveries among the rows"""
    cone: Cone | None = None
    flagged: bool = False
    """With ``q``: also discoveries of runs that look like an instrument problem, which are withheld otherwise."""

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        wanted: list[sa.ColumnElement[bool]] = []
        if self.night is not None:
            wanted.append(observations.c.night == self.night)
        if self.cluster is not None:
            wanted.append(scores.c.cluster == self.cluster)
        if self.p is not None:
            wanted.append(scores.c.p_value <= self.p)
        if self.q is not None:
            wanted.append(scores.c.q_value <= self.q)
            if not self.flagged:
                # not by a column of the outer join: PostgreSQL would take the condition for a rare one
                bad = drift.alias("bad")
                of_row = sa.and_(bad.c.run_id == scores.c.run_id, bad.c.model_id == scores.c.model_id)
                wanted.append(~sa.exists().where(of_row, bad.c.problem != ""))
        if self.cone is not None:
            wanted.append(in_cone(self.cone))
        return wanted


@dataclass(frozen=True, slots=True)
class Page:
    rows: list[dict[str, Any]]
    """With the columns of ``columns.ROW`` and ``parts``, the most anomalous first."""
    next: str | None
    """The token of the page after this one; None at the end."""


def outliers(engine: sa.Engine, filters: Filters, limit: int, token: str | None = None) -> Page:
    """At most ``limit`` rows, the highest scores first.

    Without a kind or model, scores of several models are mixed, which are not on one scale.
    Raises CatalogError for an unknown model, a token that is none, or a cluster number that could belong to
    several models.
    """
    after = _read_token(token)
    models = ranked_models(engine, filters.kind, filters.model)
    if filters.cluster is not None and len(models) > 1:
        raise CatalogError("cluster numbers belong to one model: say which kind or model is meant")
    found: list[sa.RowMapping] = []
    with engine.connect() as connection:
        # One query a model, because each walks the ranking's index by itself; there are as many as kinds.
        for model in models:
            wanted = select_rows().where(scores.c.model_id == model["id"], *filters.conditions())
            if after is not None:
                wanted = wanted.where(_follows(*after))
            wanted = wanted.order_by(scores.c.score.desc(), scores.c.observation_id).limit(limit + 1)
            found += connection.execute(wanted).mappings()
        found.sort(key=_position)
        page = found[:limit]
        rows = finish_rows(page, lens_fractions(connection, [model["id"] for model in models]))
    return Page(rows, _make_token(page[-1]) if page and len(found) > limit else None)


def select_rows() -> sa.Select[Any]:
    """The current rows, still raw: ``finish_rows`` makes what people see."""
    of_scores = (name for name in NAMES if name in scores.c and name != "flags")
    return (
        sa.select(
            scores.c.observation_id,
            objects.c.object_id,
            objects.c.kind,
            objects.c.survey,
            observations.c.path,
            objects.c.ra,
            objects.c.dec,
            scores.c.model_id.label("model"),
            *(scores.c[name] for name in of_scores),
            scores.c.flags,
            scores.c.parts,
            scores.c.windows,
            observations.c.reader_flags,
            observations.c.duplicate,
            embeddings.c.responsibilities,
            drift.c.problem,
        )
        .join(observations, observations.c.id == scores.c.observation_id)
        .join(objects, objects.c.id == observations.c.object_id)
        .outerjoin(
            embeddings,
            sa.and_(
                embeddings.c.observation_id == scores.c.observation_id,
                embeddings.c.model_id == scores.c.model_id,
            ),
        )
        .outerjoin(drift, sa.and_(drift.c.run_id == scores.c.run_id, drift.c.model_id == scores.c.model_id))
        .where(observations.c.superseded.is_(False))
    )


def finish_rows(
    raw: Iterable[sa.RowMapping], fractions: dict[str, dict[int, LensFraction]]
) -> list[dict[str, Any]]:
    """Rows with the columns of ``columns.ROW`` in that order, and ``parts``: {name: value}."""
    raw = list(raw)
    rows = []
    for row, lens_fraction in zip(raw, expected_lens_fractions(raw, fractions), strict=True):
        flags = {flag for text in (row["flags"], row["reader_flags"]) for flag in text.split(",") if flag}
        if row["duplicate"]:
            flags.add("duplicate")
        if row["problem"]:
            flags.add(INSTRUMENT)
        derived = {"lens_fraction": lens_fraction, "flags": ",".join(sorted(flags))}
        rows.append(
            {name: derived[name] if name in derived else row[name] for name in NAMES}
            | {"parts": row["parts"], "windows": row["windows"]}
        )
    return rows


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its score components as columns of their own."""
    columns = {name: row[name] for name in NAMES}
    return columns | {part_name(name): value for name, value in row["parts"].items()}


def _position(row: sa.RowMapping) -> tuple[float, int, str]:
    return -row["score"], row["observation_id"], row["model"]


def _follows(score: float, observation_id: int, model: str) -> sa.ColumnElement[bool]:
    s = scores.c
    later = sa.or_(
        s.observation_id > observation_id,
        sa.and_(s.observation_id == observation_id, s.model_id > model),
    )
    # The first condition is implied by the second; it is what the index can use.
    return sa.and_(s.score <= score, sa.or_(s.score < score, later))


def _make_token(row: sa.RowMapping) -> str:
    text = json.dumps([row["score"], row["observation_id"], row["model"]])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_token(token: str | None) -> tuple[float, int, str] | None:
    if token is None:
        return None
    try:
        score, observation_id, model = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if not (isinstance(observation_id, int) and abs(observation_id) < 2**63 and isinstance(model, str)):
            raise ValueError(observation_id)
        if not (isinstance(score, float) and math.isfinite(score)):
            raise ValueError(score)
    except (ValueError, TypeError, binascii.Error):
        raise CatalogError(
            "this page token is not one that was given out: start from the first page"
        ) from None
    return score, observation_id, model
