"""The ranking as one person's labels change it: what they call interesting rises, what they call an artefact sinks.

Only the first CANDIDATES rows of the raw ranking that pass the filters are ranked anew. What is learnt comes from all
labels of that person on objects of the model, whatever the filters. Nothing of it is stored: labels are kept with
author and time (labels.py), and a page token names the newest label that its ranking knew, so that the pages of one
list join although labels come in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from service.catalog.engine import CatalogError, reading
from service.catalog.filters import Filters
from service.catalog.labels import ORDINARY, WITHDRAWN
from service.catalog.lens import lens_fractions
from service.catalog.ranking import chosen_models, finish_rows, outliers, rows_of, select_rows
from service.catalog.schema import clean, embeddings, labels, observations, scores
from service.catalog.statements import chunks
from service.catalog.tokens import make_token, read_token

NEEDED = 10
"""Labels by one person on objects of a model before they change its ranking."""
CANDIDATES = 10_000
MAX_LABELS = 500
"""A person's newest count; the time to learn grows with the cube of their number."""
UNWANTED = (*ORDINARY, "artefact", "known", "wrong-redshift")
"""Labels of what its author does not want to see. Any other, such as ``interesting``, ``lens`` or a word of their own,
says that they do."""
MARK = "for."
"""Page tokens of such a ranking begin with this; those of the raw ranking cannot."""


@dataclass(frozen=True, slots=True)
class PersonalPage:
    rows: list[dict[str, Any]]
    """As ``ranking.Page`` has them, each with ``interest``: larger is ranked higher; None in the raw ranking."""
    next: str | None
    labels_needed: int
    """How many more labels by this person change the ranking; 0 when it is theirs."""


def outliers_for(
    engine: sa.Engine, filters: Filters, who: str, limit: int, token: str | None = None
) -> PersonalPage:
    """At most ``limit`` rows of one model in the ranking that the labels by ``who`` make of it.

    With fewer than NEEDED labels these are the rows of ``ranking.outliers``. A list that began as the raw ranking goes
    on as such. Raises CatalogError where the filters leave several models, and what ``ranking.outliers`` raises.
    """
    after = _read_token(token)
    with reading(engine) as connection:
        models = chosen_models(connection, filters)
        if len(models) > 1:
            raise CatalogError("labels change the ranking of one model: say which kind or model is meant")
        if not models:
            return PersonalPage([], None, NEEDED)
        (model,) = models
        said = _labels(connection, model, clean(who).strip(), None if after is None else after[0])
        missing = max(0, NEEDED - len(said))
        if not missing and (token is None or after is not None):
            ranked = _ranked(connection, filters, model, said)
            start = 0 if after is None else _place(ranked, after)
            page = ranked[start : start + limit]
            rows = _rows(connection, model, page)
            more = start + limit < len(ranked)
            last = _make_token(max(one.label_id for one in said), page[-1]) if page and more else None
            return PersonalPage(rows, last, 0)
    raw = outliers(engine, filters, limit, None if after is not None else token)
    return PersonalPage([row | {"interest": None} for row in raw.rows], raw.next, missing)


@dataclass(frozen=True, slots=True)
class _Said:
    """What the person said last of an object, and the observation that showed it."""

    label_id: int
    observation_id: int
    wanted: bool


@dataclass(frozen=True, slots=True)
class _Ranked:
    interest: float
    observation_id: int

    @property
    def position(self) -> tuple[float, int]:
        return -self.interest, self.observation_id


def _labels(connection: sa.Connection, model: str, who: str, newest: int | None) -> list[_Said]:
    """The newest label by ``who`` on each object that the model has scored, up to the label ``newest``."""
    last = sa.select(sa.func.max(labels.c.id).label("id")).where(labels.c.by == who)
    if newest is not None:
        last = last.where(labels.c.id <= newest)
    last_ids = last.group_by(labels.c.object_id).subquery()
    wanted = (
        sa.select(labels.c.id, labels.c.label, sa.func.max(scores.c.observation_id).label("observation_id"))
        .join(last_ids, last_ids.c.id == labels.c.id)
        .join(observations, observations.c.object_id == labels.c.object_id)
        .join(scores, scores.c.observation_id == observations.c.id)
        .where(
            scores.c.model_id == model,
            observations.c.superseded.is_(False),
            labels.c.label != WITHDRAWN,
        )
        .group_by(labels.c.id, labels.c.label)
        .order_by(labels.c.id.desc())
        .limit(MAX_LABELS)
    )
    return [
        _Said(row.id, row.observation_id, row.label not in UNWANTED) for row in connection.execute(wanted)
    ]


def _ranked(connection: sa.Connection, filters: Filters, model: str, said: list[_Said]) -> list[_Ranked]:
    """The candidates by what the labels say of them, the most interesting first."""
    from models.interest import interest

    wanted_columns = (scores.c.observation_id, scores.c.score, scores.c.parts, embeddings.c.latent)
    of_model = select_rows().where(scores.c.model_id == model, embeddings.c.latent.is_not(None))
    fractions = lens_fractions(connection, [model])
    candidates = of_model.where(*filters.conditions(fractions[model]))
    candidates = candidates.order_by(scores.c.score.desc(), scores.c.observation_id).limit(CANDIDATES)
    found = list(connection.execute(candidates.with_only_columns(*wanted_columns)))
    if filters.refines:  # whole rows decide
        raw = connection.execute(candidates).all()
        fit = [filters.accept(row) for row in finish_rows(raw, fractions)]
        found = [row for row, accepted in zip(found, fit, strict=True) if accepted]
    n = len(found)
    known = {row.observation_id for row in found}
    for part in chunks(one.observation_id for one in said if one.observation_id not in known):
        others = of_model.where(scores.c.observation_id.in_(part)).with_only_columns(*wanted_columns)
        found += connection.execute(others)
    if not n:
        return []
    place = {row.observation_id: i for i, row in enumerate(found)}
    usable = [one for one in said if one.observation_id in place]
    names = sorted(name for name in found[0].parts if name.endswith("_p"))
    values = interest(
        latent=np.frombuffer(b"".join(row.latent for row in found), "<f4").reshape(len(found), -1),
        # no p-value, where the part was not finite, is nothing unusual
        part_p=np.nan_to_num(
            np.array([[row.parts.get(name) for name in names] for row in found], float), nan=1
        ),
        raw=np.array([row.score for row in found]),
        labelled=np.array([place[one.observation_id] for one in usable], int),
        wanted=np.array([one.wanted for one in usable], bool),
    )
    ranked = [
        _Ranked(value, row.observation_id) for value, row in zip(values[:n].tolist(), found[:n], strict=True)
    ]
    return sorted(ranked, key=lambda one: one.position)


def _place(ranked: list[_Ranked], after: tuple[int, float, int]) -> int:
    """How many of the ranking come before what follows the token's row."""
    _, value, observation_id = after
    return sum(one.position <= (-value, observation_id) for one in ranked)


def _rows(connection: sa.Connection, model: str, page: list[_Ranked]) -> list[dict[str, Any]]:
    fractions = lens_fractions(connection, [model])
    rows = rows_of(connection, model, [one.observation_id for one in page], fractions)
    return [
        rows[one.observation_id] | {"interest": one.interest} for one in page if one.observation_id in rows
    ]


def _make_token(label_id: int, last: _Ranked) -> str:
    return MARK + make_token(label_id, last.interest, last.observation_id)


def _read_token(token: str | None) -> tuple[int, float, int] | None:
    """Newest label, interest and observation of a token of ours; None for another's."""
    if token is None or not token.startswith(MARK):
        return None
    return read_token(token.removeprefix(MARK), int, float, int)
