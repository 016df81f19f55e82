"""The models that the catalog knows: registering, finding them by name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from service.catalog.bulk import Upsert
from service.catalog.engine import NotFoundError, writing
from service.catalog.rows import ModelRow
from service.catalog.schema import clusters, models, scores
from service.catalog.statements import finite_json

MODELS = Upsert(models, ("id",), ("path", "n_training", "held_out", "smallest_p", "domain"))
CLUSTERS = Upsert(clusters, ("model_id", "cluster"), ("weight",))


def register_model(engine: sa.Engine, model: ModelRow) -> None:
    """Put a trained bundle and its clusters into the catalog; the same id again updates path and figures."""
    with writing(engine) as connection:
        row = {
            "id": model.id,
            "name": model.name,
            "kind": model.kind,
            "path": model.path,
            "created_at": datetime.now(UTC),
            "n_training": model.n_training,
            "held_out": finite_json(model.held_out),
            "smallest_p": model.smallest_p,
            "domain": finite_json(model.domain),
        }
        MODELS.write(connection, {name: [value] for name, value in row.items()})
        n = len(model.cluster_weights)
        weights = [float(weight) for weight in model.cluster_weights]
        CLUSTERS.write(connection, {"model_id": [model.id] * n, "cluster": range(n), "weight": weights})


def list_models(engine: sa.Engine, kind: str | None = None) -> list[dict[str, Any]]:
    """All models, the newest first, with the columns of the table."""
    wanted = sa.select(models).order_by(models.c.created_at.desc(), models.c.id)
    if kind is not None:
        wanted = wanted.where(models.c.kind == kind)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(wanted).mappings()]


def find_models(engine: sa.Engine, name: str, kind: str | None = None) -> list[dict[str, Any]]:
    """The model with this id, or the newest one of each kind with this name.

    Raises NotFoundError, listing what there is, where none fits.
    """
    listed = list_models(engine)
    found = [model for model in listed if name in (model["id"], model["name"])]
    if not found:
        known = ", ".join(model["id"] for model in listed) or "none yet: train one with `peculiar train KIND`"
        raise NotFoundError(f"no model is called {name!r}; the catalog has {known}")
    fitting = newest_by_kind([model for model in found if kind in (None, model["kind"])])
    if not fitting:
        raise NotFoundError(f"the model {found[0]['id']} is of kind {found[0]['kind']}, not {kind}")
    return fitting


def newest_by_kind(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of models listed the newest first, the first of each kind; spectra before cutouts."""
    newest = {model["kind"]: model for model in reversed(listed)}
    return [newest[kind] for kind in sorted(newest, reverse=True)]


def newest_models(engine: sa.Engine) -> dict[str, dict[str, Any]]:
    """The newest model of each kind, by kind."""
    return {model["kind"]: model for model in newest_by_kind(list_models(engine))}


def ranked_models(
    engine: sa.Engine, kind: str | None = None, name: str | None = None
) -> list[dict[str, Any]]:
    """The models whose scores are meant: those named, or else the newest of each kind that has scores."""
    if name is not None:
        return find_models(engine, name, kind)
    has_scores = sa.exists().where(scores.c.model_id == models.c.id)
    with engine.connect() as connection:
        used = set(connection.scalars(sa.select(models.c.id).where(has_scores)))
    return newest_by_kind([model for model in list_models(engine, kind) if model["id"] in used])
