"""Rows of the catalog as everybody sees them, and the most anomalous of them page by page."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import sqlalchemy as sa

from service.catalog.columns import NAMES, part_name
from service.catalog.filters import DUPLICATE, INSTRUMENT, Filters
from service.catalog.lens import LensFraction, expected_lens_fractions, lens_fractions
from service.catalog.registry import ranked_models
from service.catalog.schema import drift, embeddings, objects, observations, scores
from service.catalog.tokens import make_token, read_token

ROWS_AT_ONCE = 500
"""Looked at where some of those that a database gives are turned away."""
FIRST_PIECE, LARGEST_PIECE = 500, 20_000
"""Observations named in one query; SQLite takes 32,766 values in a statement."""


@dataclass(frozen=True, slots=True)
class Page:
    rows: list[dict[str, Any]]
    """With the columns of ``columns.ROW`` and ``parts``, the most anomalous first."""
    next: str | None
    """The token of the page after this one; None at the end."""


def outliers(engine: sa.Engine, filters: Filters, limit: int, token: str | None = None) -> Page:
    """At most ``limit`` rows, the highest scores first.

    Without a kind or model, scores of several models are mixed, which are not on one scale.
    Raises CatalogError for an unknown model, a token that is none, or filters that cannot be (``filters.check``).
    """
    after = _read_token(token)
    with engine.connect() as connection:
        models = chosen_models(engine, connection, filters)
        fractions = lens_fractions(connection, models)
        # One query a model, because each walks the ranking's index by itself; there are as many as kinds.
        walks = [_walk(connection, filters, model, fractions, after, limit + 1) for model in models]
        found = list(islice(heapq.merge(*walks, key=lambda pair: _position(pair[0])), limit + 1))
    page = found[:limit]
    more = _make_token(page[-1][0]) if page and len(found) > limit else None
    return Page([row for _, row in page], more)


def chosen_models(engine: sa.Engine, connection: sa.Connection, filters: Filters) -> list[str]:
    """The ids of the models whose rows are asked for. Raises CatalogError where the filters do not go with them."""
    models = [model["id"] for model in ranked_models(engine, filters.kind, filters.model)]
    filters.check(connection, models)
    return models


def _walk(
    connection: sa.Connection,
    filters: Filters,
    model: str,
    fractions: dict[str, dict[int, LensFraction]],
    after: tuple[float, int, str] | None,
    n: int,
) -> Iterator[tuple[sa.RowMapping, dict[str, Any]]]:
    """The first ``n`` rows of one model that fit, each raw and as people see it, the highest scores first."""
    while n:
        size = max(n, ROWS_AT_ONCE) if filters.refines else n
        wanted = select_rows().where(scores.c.model_id == model, *filters.conditions(fractions[model]))
        if after is not None:
            wanted = wanted.where(_follows(*after))
        wanted = wanted.order_by(scores.c.score.desc(), scores.c.observation_id).limit(size)
        raw = connection.execute(wanted).mappings().all()
        for pair in zip(raw, finish_rows(raw, fractions), strict=True):
            if n and filters.accept(pair[1]):
                yield pair
                n -= 1
        if len(raw) < size:
            return
        after = raw[-1]["score"], raw[-1]["observation_id"], model


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
            flags.add(DUPLICATE)
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


def _make_token(row: Mapping[str, Any] | sa.RowMapping) -> str:
    return make_token(row["score"], row["observation_id"], row["model"])


def _read_token(token: str | None) -> tuple[float, int, str] | None:
    """Score, observation and model of the last row."""
    return None if token is None else read_token(token, float, int, str)


def outliers_among(
    engine: sa.Engine,
    filters: Filters,
    ids: np.ndarray,
    score: np.ndarray,
    limit: int,
    token: str | None = None,
) -> Page:
    """As ``outliers``, of any number of observations with these ids (n,) and scores (n,), the highest scores first.

    The filters name the model, by its id. Observations are looked at in growing pieces until the page is full.
    """
    after = _read_token(token)
    if after is not None:
        follows = (score < after[0]) | ((score == after[0]) & (ids > after[1]))
        ids, score = ids[follows], score[follows]
    rows: list[dict[str, Any]] = []
    start, size = 0, FIRST_PIECE
    while start < len(ids):
        piece = slice(start, start + size)
        page = outliers(engine, replace(filters, among=ids[piece].tolist()), limit - len(rows), token)
        rows += page.rows
        if page.next is not None:
            return Page(rows, page.next)
        start, size = start + size, min(4 * size, LARGEST_PIECE)
        if len(rows) == limit and start < len(ids):
            last = {
                "score": float(score[start - 1]),
                "observation_id": int(ids[start - 1]),
                "model": filters.model,
            }
            return Page(rows, _make_token(last))
    return Page(rows, None)
