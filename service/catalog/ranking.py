"""Rows of the catalog as everybody sees them, and the most anomalous of them page by page."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import sqlalchemy as sa

from service.catalog.columns import NAMES, part_name
from service.catalog.engine import reading
from service.catalog.filters import DUPLICATE, INSTRUMENT, Filters
from service.catalog.lens import LensFraction, expected_lens_fractions, lens_fractions
from service.catalog.registry import ranked_models
from service.catalog.schema import drift, embeddings, objects, observations, scores
from service.catalog.statements import chunks, one_of
from service.catalog.tokens import make_token, read_token

ROWS_AT_ONCE = 500
"""Looked at where some of those that a database gives are turned away."""
FIRST_PIECE, LARGEST_PIECE = 500, 20_000
"""Observations named in one query; SQLite takes 32,766 values in a statement."""
SEEN = (*NAMES, "parts", "windows")
"""What a row has."""
CURRENT = observations.c.superseded.is_(False)
WHOLE = (
    scores.join(observations)
    .join(objects, objects.c.id == observations.c.object_id)
    .outerjoin(
        embeddings,
        sa.and_(
            embeddings.c.observation_id == scores.c.observation_id,
            embeddings.c.model_id == scores.c.model_id,
        ),
    )
    .outerjoin(drift, sa.and_(drift.c.run_id == scores.c.run_id, drift.c.model_id == scores.c.model_id))
)
"""Each score with all that a row takes from other tables."""

Place = tuple[float, int, str]
"""Score, observation and model of a row."""


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
    with reading(engine) as connection:
        models = chosen_models(connection, filters)
        fractions = lens_fractions(connection, models)
        # One query a model, because each walks the ranking's index by itself; there are as many as kinds.
        walks = [_walk(connection, filters, model, fractions, after, limit + 1) for model in models]
        found = list(islice(heapq.merge(*walks, key=lambda pair: _position(*pair[0])), limit + 1))
    page = found[:limit]
    more = make_token(*page[-1][0]) if page and len(found) > limit else None
    return Page([row for _, row in page], more)


def chosen_models(connection: sa.Connection, filters: Filters) -> list[str]:
    """The ids of the models whose rows are asked for. Raises CatalogError where the filters do not go with them."""
    models = [model["id"] for model in ranked_models(connection, filters.kind, filters.model)]
    filters.check(connection, models)
    return models


def _walk(
    connection: sa.Connection,
    filters: Filters,
    model: str,
    fractions: dict[str, dict[int, LensFraction]],
    after: Place | None,
    n: int,
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The first ``n`` rows of one model that fit, each with its place, the highest scores first.

    Two tables say which rows these are, and a second question gets them. Planning one question about all tables takes
    a server longer than both answers, while the plan for rows by their ids is made once and kept.
    """
    s = scores.c
    fit = sa.and_(s.model_id == model, CURRENT, *filters.conditions(fractions[model]))
    places = sa.select(s.score, s.observation_id).join_from(scores, observations).where(fit)
    places = places.order_by(s.score.desc(), s.observation_id)
    while n:
        size = max(n, ROWS_AT_ONCE) if filters.refines else n
        wanted = places if after is None else places.where(_follows(*after))
        found = connection.execute(wanted.limit(size)).all()
        rows = rows_of(connection, model, [place.observation_id for place in found], fractions)
        for score, observation_id in found:
            row = rows.get(observation_id)
            if n and row is not None and filters.accept(row):  # None if its file was replaced meanwhile
                yield (score, observation_id, model), row
                n -= 1
        if len(found) < size:
            return
        after = found[-1].score, found[-1].observation_id, model


def rows_of(
    connection: sa.Connection, model: str, ids: Iterable[int], fractions: dict[str, dict[int, LensFraction]]
) -> dict[int, dict[str, Any]]:
    """The current rows of one model by observation id, in no order."""
    rows: dict[int, dict[str, Any]] = {}
    for part in chunks(ids):
        these = one_of(connection, scores.c.observation_id, part)
        raw = connection.execute(select_rows().where(scores.c.model_id == model, these)).all()
        rows |= zip((row.observation_id for row in raw), finish_rows(raw, fractions), strict=True)
    return rows


@cache
def select_rows() -> sa.Select[Any]:
    """The current rows, still raw: the columns of SEEN in that order, then what ``finish_rows`` makes into them."""
    columns: dict[str, sa.ColumnElement[Any]] = {column.name: column for column in scores.c}
    columns |= {name: objects.c[name] for name in ("object_id", "kind", "survey", "ra", "dec")}
    columns |= {
        "path": observations.c.path,
        "model": scores.c.model_id.label("model"),
        "lens_fraction": sa.null().label("lens_fraction"),
    }
    return (
        sa.select(
            *(columns[name] for name in SEEN),
            scores.c.observation_id,
            embeddings.c.responsibilities,
            observations.c.reader_flags,
            observations.c.duplicate,
            drift.c.problem,
        )
        .select_from(WHOLE)
        .where(CURRENT)
    )


def finish_rows(
    raw: Sequence[sa.Row[Any]], fractions: dict[str, dict[int, LensFraction]]
) -> list[dict[str, Any]]:
    """Rows with the columns of ``columns.ROW`` in that order, ``parts``: {name: value}, and ``windows``."""
    rows, shares = [], []
    for source in raw:
        row = dict(zip(SEEN, source, strict=False))
        _, responsibilities, reader_flags, duplicate, problem, *_ = source[len(SEEN) :]
        flags = {flag for text in (row["flags"], reader_flags) for flag in text.split(",") if flag}
        if duplicate:
            flags.add(DUPLICATE)
        if problem:
            flags.add(INSTRUMENT)
        row["flags"] = ",".join(sorted(flags))
        rows.append(row)
        shares.append((row["model"], row["cluster"], responsibilities))
    for row, lens_fraction in zip(rows, expected_lens_fractions(shares, fractions), strict=True):
        row["lens_fraction"] = lens_fraction
    return rows


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its score components as columns of their own."""
    columns = {name: row[name] for name in NAMES}
    return columns | {part_name(name): value for name, value in row["parts"].items()}


def _position(score: float, observation_id: int, model: str) -> Place:
    return -score, observation_id, model


def _follows(score: float, observation_id: int, model: str) -> sa.ColumnElement[bool]:
    s = scores.c
    later = sa.or_(
        s.observation_id > observation_id,
        sa.and_(s.observation_id == observation_id, s.model_id > model),
    )
    # The first condition is implied by the second; it is what the index can use.
    return sa.and_(s.score <= score, sa.or_(s.score < score, later))


def _read_token(token: str | None) -> Place | None:
    """The place of the last row."""
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
            return Page(rows, make_token(float(score[start - 1]), int(ids[start - 1]), str(filters.model)))
    return Page(rows, None)
