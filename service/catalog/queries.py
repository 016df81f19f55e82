"""Reading the catalog: one object, its neighbours, clusters, runs, and figures of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa

from service.catalog.drift import flagged
from service.catalog.engine import CatalogError, NotFoundError, reading
from service.catalog.labels import newest_label
from service.catalog.lens import LENS, lens_fractions
from service.catalog.nearest import LatentCache, scan
from service.catalog.ranking import finish_rows, rows_of, select_rows
from service.catalog.registry import ranked_models
from service.catalog.runs import STATUSES, counts
from service.catalog.schema import (
    clean,
    clusters,
    embeddings,
    explanations,
    failures,
    labels,
    models,
    objects,
    observations,
    runs,
    scores,
)  # fmt: skip
from service.catalog.statements import chunks

MARGIN = 16
"""So many more latents are looked up, since some may not be current."""


class AmbiguousError(CatalogError):
    """Several objects have this identity; ``choices`` holds their (kind, survey)."""

    def __init__(self, object_id: str, choices: list[tuple[str, str]]) -> None:
        named = ", ".join(f"{kind} of {survey or 'no survey'}" for kind, survey in choices)
        super().__init__(
            f"several objects are called {object_id!r}: {named}; say which kind or survey is meant"
        )
        self.choices = choices


def find_object(
    connection: sa.Connection, object_id: str, kind: str | None = None, survey: str | None = None
) -> sa.RowMapping:
    """The one object with this identity. Raises NotFoundError or AmbiguousError."""
    wanted = sa.select(objects).where(objects.c.object_id == object_id)
    if kind is not None:
        wanted = wanted.where(objects.c.kind == kind)
    if survey is not None:
        wanted = wanted.where(objects.c.survey == survey)
    found = connection.execute(wanted.order_by(objects.c.kind.desc(), objects.c.survey)).mappings().all()
    if not found:
        raise NotFoundError(f"no object {clean(object_id)!r} is in the catalog")
    if len(found) > 1:
        raise AmbiguousError(object_id, [(row["kind"], row["survey"]) for row in found])
    return found[0]


def one_object(
    engine: sa.Engine, object_id: str, kind: str | None = None, survey: str | None = None
) -> dict[str, Any]:
    """An object with its observations, its current scores (the newest first) and the history of its labels.

    Raises NotFoundError or AmbiguousError.
    """
    with reading(engine) as connection:
        found = find_object(connection, object_id, kind, survey)
        mine = observations.c.object_id == found["id"]
        seen = sa.select(observations).where(mine).order_by(observations.c.id.desc())
        raw = connection.execute(select_rows().where(mine).order_by(scores.c.scored_at.desc())).all()
        fractions = lens_fractions(connection, sorted({row.model for row in raw}))
        said = sa.select(labels).where(labels.c.object_id == found["id"]).order_by(labels.c.id)
        return {
            **{name: found[name] for name in ("object_id", "kind", "survey", "ra", "dec")},
            "observations": [
                {name: value for name, value in row.items() if name not in ("id", "object_id", "kind")}
                for row in connection.execute(seen).mappings()
            ],
            "scores": finish_rows(raw, fractions),
            "labels": [
                {name: row[name] for name in ("label", "by", "created_at")}
                for row in connection.execute(said).mappings()
            ],
        }


def explained(
    engine: sa.Engine,
    object_id: str,
    model: str | None = None,
    kind: str | None = None,
    survey: str | None = None,
) -> dict[str, Any]:
    """The newest score of an object (``object_id``, ``kind``, ``survey``, ``path``, ``model``, ``score``, ``p_value``)
    with what to show of it as ``data``, which ``models.explanation`` unpacks and is None for what is no outlier.

    ``model`` is an id or a name. Raises NotFoundError or AmbiguousError.
    """
    with reading(engine) as connection:
        found = find_object(connection, object_id, kind, survey)
        s, x = scores.c, explanations.c
        wanted = (
            sa.select(observations.c.path, s.model_id.label("model"), s.score, s.p_value, x.data)
            .join(observations, observations.c.id == s.observation_id)
            .join(models, models.c.id == s.model_id)
            .outerjoin(explanations, sa.and_(x.observation_id == s.observation_id, x.model_id == s.model_id))
            .where(observations.c.object_id == found["id"], observations.c.superseded.is_(False))
            .order_by(s.scored_at.desc(), s.observation_id.desc())
        )
        if model is not None:
            wanted = wanted.where(sa.or_(models.c.id == model, models.c.name == model))
        row = connection.execute(wanted.limit(1)).mappings().first()
    if row is None:
        by = f" by the model {clean(model)}" if model else ""
        raise NotFoundError(f"{clean(object_id)} has no score{by}: score it first")
    return {name: found[name] for name in ("object_id", "kind", "survey")} | dict(row)


def neighbours(
    engine: sa.Engine,
    object_id: str,
    k: int,
    model: str | None = None,
    kind: str | None = None,
    survey: str | None = None,
    cache: LatentCache | None = None,
) -> list[dict[str, Any]]:
    """The ``k`` objects nearest in a model's latent space, the nearest first, as rows with a ``distance``.

    Exact: the Euclidean distance between posterior means to every other current observation. An object that
    was observed several times is taken at its newest observation, and is not its own neighbour.
    Raises NotFoundError where the object, or its score under the model, is not in the catalog.
    """
    with reading(engine) as connection:
        found = find_object(connection, object_id, kind, survey)
        chosen = ranked_models(connection, found["kind"], model)
        if not chosen:
            raise NotFoundError(f"no model has scored {object_id!r} yet")
        model_id = chosen[0]["id"]
        mine = (
            sa.select(embeddings.c.latent)
            .join(observations, observations.c.id == embeddings.c.observation_id)
            .where(embeddings.c.model_id == model_id, observations.c.object_id == found["id"])
            .where(observations.c.superseded.is_(False))
        )
        here = connection.scalar(mine.order_by(embeddings.c.observation_id.desc()).limit(1))
        if here is None:
            raise NotFoundError(f"{model_id} has not scored {object_id!r}")
        return _near(connection, model_id, np.frombuffer(here, dtype="<f4"), k, _identity(found), cache)


def neighbours_of(
    engine: sa.Engine, model_id: str, latent: np.ndarray, k: int, cache: LatentCache | None = None
) -> list[dict[str, Any]]:
    """The ``k`` observations nearest to a latent of a model, (L,), as ``neighbours`` gives them."""
    with reading(engine) as connection:
        return _near(connection, model_id, latent, k, None, cache)


def _near(
    connection: sa.Connection,
    model_id: str,
    latent: np.ndarray,
    k: int,
    leave_out: tuple[str, str, str] | None,
    cache: LatentCache | None,
) -> list[dict[str, Any]]:
    """Rows of the ``k`` nearest current observations of other objects than ``leave_out``."""
    fractions = lens_fractions(connection, [model_id])
    n = k + MARGIN
    while True:
        nearest = (cache.nearest if cache else scan)(connection, model_id, latent, n)
        rows = rows_of(connection, model_id, nearest, fractions)
        near = [
            row | {"distance": nearest[observation_id]}
            for observation_id, row in rows.items()
            if _identity(row) != leave_out
        ]
        if len(near) >= k or len(nearest) < n:
            return sorted(near, key=lambda row: (row["distance"], row["path"]))[:k]
        n *= 4  # many of them are of this object, or no longer current


def _identity(row: Mapping[str, Any] | sa.RowMapping) -> tuple[str, str, str]:
    return row["kind"], row["survey"], row["object_id"]


def list_clusters(engine: sa.Engine, model: str | None = None) -> list[dict[str, Any]]:
    """The clusters of a model, or of the newest scored model of each kind, the largest weight first.

    ``size`` is the number of current observations in it; ``lens_fraction`` and its 95 % interval
    (``lens_fraction_low``, ``lens_fraction_high``) are None for a cluster without labels.
    """
    listed = []
    with reading(engine) as connection:
        chosen = ranked_models(connection, name=model)
        fractions = lens_fractions(connection, [entry["id"] for entry in chosen])
        for entry in chosen:
            in_model = scores.c.model_id == entry["id"]
            sizes_query = (
                sa.select(scores.c.cluster, sa.func.count().label("size"))
                .join(observations, observations.c.id == scores.c.observation_id)
                .where(in_model, observations.c.superseded.is_(False))
                .group_by(scores.c.cluster)
            )
            sizes = {row.cluster: row.size for row in connection.execute(sizes_query)}
            weights = sa.select(clusters.c.cluster, clusters.c.weight).where(
                clusters.c.model_id == entry["id"]
            )
            for cluster, weight in connection.execute(weights.order_by(clusters.c.weight.desc())):
                fraction = fractions[entry["id"]].get(cluster)
                low, high = fraction.interval if fraction else (None, None)
                listed.append(
                    {
                        "model": entry["id"],
                        "kind": entry["kind"],
                        "cluster": cluster,
                        "weight": weight,
                        "size": sizes.get(cluster, 0),
                        "n_labelled": fraction.n_labelled if fraction else 0,
                        "n_lens": fraction.n_lens if fraction else 0,
                        "lens_fraction": fraction.mean if fraction else None,
                        "lens_fraction_low": low,
                        "lens_fraction_high": high,
                    }
                )
    return listed


def cluster_card(engine: sa.Engine, cluster: int, model: str | None, limit: int) -> dict[str, Any]:
    """One cluster as ``list_clusters`` has it, and members of it, each as a row with its ``labels``.

    ``typical``: the highest probability of belonging to it, then the lowest score; ``anomalous``: the highest
    scores; ``lenses``: those that somebody's newest label calls so, the highest scores first. At most ``limit`` each.
    Raises NotFoundError, and CatalogError where several models have a cluster of this number.
    """
    found = [row for row in list_clusters(engine, model) if row["cluster"] == cluster]
    if not found:
        raise NotFoundError(f"there is no cluster {cluster}: `peculiar clusters` lists those that there are")
    if len(found) > 1:
        named = ", ".join(row["model"] for row in found)
        raise CatalogError(f"several models have a cluster {cluster}: say which with --model, of {named}")
    (card,) = found
    s = scores.c
    members = select_rows().where(s.model_id == card["model"], s.cluster == cluster)
    worst = members.order_by(s.score.desc(), s.observation_id)
    chosen = {
        "typical": members.order_by(s.cluster_probability.desc(), s.score, s.observation_id),
        "anomalous": worst,
        "lenses": worst.where(
            observations.c.object_id.in_(sa.select(labels.c.object_id).where(newest_label(LENS)))
        ),
    }
    with reading(engine) as connection:
        fractions = lens_fractions(connection, [card["model"]])
        lists = {
            name: finish_rows(connection.execute(wanted.limit(limit)).all(), fractions)
            for name, wanted in chosen.items()
        }
        said: dict[tuple[str, str], list[str]] = {}
        names = {row["object_id"] for rows in lists.values() for row in rows}
        for part in chunks(names):
            wanted = (
                sa.select(objects.c.survey, objects.c.object_id, labels.c.label)
                .join(labels, labels.c.object_id == objects.c.id)
                .where(objects.c.kind == card["kind"], objects.c.object_id.in_(part), newest_label())
                .order_by(labels.c.id)
            )
            for survey, object_id, label in connection.execute(wanted):
                said.setdefault((survey, object_id), []).append(label)
    for rows in lists.values():
        for row in rows:
            row["labels"] = list(dict.fromkeys(said.get((row["survey"], row["object_id"]), [])))
    return card | lists


def list_runs(engine: sa.Engine, limit: int = 10, before: int | None = None) -> list[dict[str, Any]]:
    """Runs, the newest first, each with its counts as of now; ``before`` is the id of the last one seen."""
    wanted = sa.select(runs).order_by(runs.c.id.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(runs.c.id < before)
    with reading(engine) as connection:
        found = connection.execute(wanted).mappings().all()
    return [_with_counts(engine, row) for row in found]


def one_run(engine: sa.Engine, run_id: int) -> dict[str, Any]:
    """One run with its counts as of now. Raises NotFoundError."""
    with reading(engine) as connection:
        found = connection.execute(sa.select(runs).where(runs.c.id == run_id)).mappings().one_or_none()
    if found is None:
        raise NotFoundError(f"there is no run {run_id} in the catalog")
    return _with_counts(engine, found)


def _with_counts(engine: sa.Engine, run: sa.RowMapping) -> dict[str, Any]:
    row = {name: value for name, value in run.items() if name != "summary"}
    if run["ended_at"] is not None and run["summary"]:
        numbers = {"queued": 0} | run["summary"]
    else:
        numbers = counts(engine, run["id"])
    problems = flagged(engine, [run["id"]]).get(run["id"], {})
    return row | {name: numbers[name] for name in ("found", *STATUSES, "reasons")} | {"problems": problems}


def status(engine: sa.Engine, n_runs: int = 10) -> dict[str, Any]:
    """Figures of the whole catalog: objects, scores, failures by reason, the last runs."""
    number = sa.func.count().label("n")
    reasons = sa.select(failures.c.reason, number).group_by(failures.c.reason).order_by(number.desc())
    with reading(engine) as connection:
        figures = {
            "objects": connection.execute(sa.select(number).select_from(objects)).scalar_one(),
            "scores": connection.execute(sa.select(number).select_from(scores)).scalar_one(),
            "failures": {row.reason: row.n for row in connection.execute(reasons)},
        }
    return figures | {"runs": list_runs(engine, n_runs)}
