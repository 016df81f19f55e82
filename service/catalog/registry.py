"""The models that the catalog knows: registering them, finding them by name, and which of them is in force.

In force is what scores inputs when no model is named. The first model of a kind is in force at once; later ones when
they are promoted. A rollback withdraws the last promotion, so the one before it holds again; nothing is forgotten.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from service.catalog.bulk import Upsert
from service.catalog.engine import CatalogError, NotFoundError, reading, writing
from service.catalog.rows import ModelRow
from service.catalog.schema import clusters, models, promotions, scores
from service.catalog.statements import finite_json

MODELS = Upsert(models, ("id",), ("path", "n_training", "held_out", "smallest_p", "domain", "reference"))
CLUSTERS = Upsert(clusters, ("model_id", "cluster"), ("weight",))

HOLDING = promotions.c.withdrawn_at.is_(None)


def register_model(engine: sa.Engine, model: ModelRow, promote: bool = False, by: str = "training") -> None:
    """Put a trained bundle and its clusters into the catalog; the same id again updates path and figures.

    It comes into force where its kind has no model in force yet, or with ``promote``.
    """
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
            "reference": finite_json(model.reference),
        }
        MODELS.write(connection, {name: [value] for name, value in row.items()})
        n = len(model.cluster_weights)
        weights = [float(weight) for weight in model.cluster_weights]
        CLUSTERS.write(connection, {"model_id": [model.id] * n, "cluster": range(n), "weight": weights})
        if promote or model.kind not in holders(connection):
            _promote(connection, model.id, model.kind, by)


def promote(engine: sa.Engine, name: str, by: str) -> dict[str, Any]:
    """Put the model of this id, or the newest of this name, in force for its kind; the model.

    Raises CatalogError where no model has the name, or those of several kinds have it.
    """
    found = find_models(engine, name)
    if len(found) > 1:
        ids = " or ".join(model["id"] for model in found)
        raise CatalogError(f"models of several kinds are called {name!r}: say {ids}")
    with writing(engine) as connection:
        _promote(connection, found[0]["id"], found[0]["kind"], by)
    return found[0] | {"in_force": True}


def roll_back(engine: sa.Engine, kind: str, by: str) -> tuple[str, str]:
    """Withdraw the last promotion of a kind: the ids of the model that was and of the one that is in force.

    Raises CatalogError where there is no promotion before the last.
    """
    wanted = sa.select(promotions).where(HOLDING, promotions.c.kind == kind).order_by(promotions.c.id.desc())
    with writing(engine) as connection:
        last = connection.execute(wanted.limit(2).with_for_update()).all()
        if len(last) < 2:
            raise CatalogError(
                f"there is no model of kind {kind} to go back to: `peculiar models` lists them"
            )
        withdrawn = {"withdrawn_by": by, "withdrawn_at": datetime.now(UTC)}
        connection.execute(sa.update(promotions).where(promotions.c.id == last[0].id).values(withdrawn))
    return last[0].model_id, last[1].model_id


def list_promotions(engine: sa.Engine) -> list[dict[str, Any]]:
    """The whole history of what was in force, the newest first."""
    with reading(engine) as connection:
        found = connection.execute(sa.select(promotions).order_by(promotions.c.id.desc())).mappings()
        return [dict(row) for row in found]


def _promote(connection: sa.Connection, model_id: str, kind: str, by: str) -> None:
    """A model that is in force already is not promoted again: rolling back would seem to do nothing."""
    if holders(connection).get(kind) != model_id:
        row = {"kind": kind, "model_id": model_id, "by": by, "at": datetime.now(UTC)}
        connection.execute(sa.insert(promotions).values(row))


def holders(connection: sa.Connection) -> dict[str, str]:
    """The id of the model in force by kind."""
    wanted = sa.select(promotions.c.kind, promotions.c.model_id).where(HOLDING).order_by(promotions.c.id)
    return {row.kind: row.model_id for row in connection.execute(wanted)}


def list_models(engine: sa.Engine, kind: str | None = None) -> list[dict[str, Any]]:
    """All models, the newest first, with the columns of the table but ``reference``, and ``in_force``."""
    wanted = _select([column for column in models.c if column.name != "reference"], kind)
    with reading(engine) as connection:
        return [dict(row) for row in connection.execute(wanted).mappings()]


def _select(columns: list[sa.Column[Any]], kind: str | None = None) -> sa.Select[Any]:
    """These columns of the models and ``in_force``, the newest first."""
    last = sa.select(sa.func.max(promotions.c.id)).where(HOLDING).group_by(promotions.c.kind)
    held = sa.select(promotions.c.model_id).where(promotions.c.id.in_(last))
    wanted = sa.select(*columns, models.c.id.in_(held).label("in_force"))
    if kind is not None:
        wanted = wanted.where(models.c.kind == kind)
    return wanted.order_by(models.c.created_at.desc(), models.c.id)


def find_models(engine: sa.Engine, name: str, kind: str | None = None) -> list[dict[str, Any]]:
    """The model with this id, or the newest one of each kind with this name.

    Raises NotFoundError, listing what there is, where none fits.
    """
    return _named(list_models(engine), name, kind)


def _named(listed: list[dict[str, Any]], name: str, kind: str | None) -> list[dict[str, Any]]:
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


def models_in_force(engine: sa.Engine) -> dict[str, str]:
    """The id of the model in force by kind."""
    with reading(engine) as connection:
        return holders(connection)


def ranked_models(
    connection: sa.Connection, kind: str | None = None, name: str | None = None
) -> list[dict[str, Any]]:
    """The models whose scores are meant: those named, or else of each kind the one in force where it has scores,
    and otherwise the newest that has; ``id``, ``name``, ``kind``, ``smallest_p`` and ``in_force`` of each.

    Every page of a ranking begins with this, so it is one question without the models' large columns.
    Raises NotFoundError as ``find_models``.
    """
    m = models.c
    wanted = _select([m.id, m.name, m.kind, m.smallest_p], None if name is not None else kind)
    if name is None:
        wanted = wanted.where(sa.exists().where(scores.c.model_id == m.id))
    listed = [dict(row) for row in connection.execute(wanted).mappings()]
    if name is not None:
        return _named(listed, name, kind)
    return newest_by_kind(sorted(listed, key=lambda model: not model["in_force"]))
