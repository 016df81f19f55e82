"""Which model is in force: the first of its kind, what was promoted since, and what holds after a rollback."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from service.catalog.engine import CatalogError, NotFoundError
from service.catalog.registry import (
    list_models,
    list_promotions,
    models_in_force,
    promote,
    ranked_models,
    register_model,
    roll_back,
)
from service.catalog.rows import ModelRow
from service.catalog.writer import write_batch

OLD, NEW = "sdss@0123456789ab", "sdss@000000000000"


def row(model_id: str, kind: str = "spectrum") -> ModelRow:
    return ModelRow(model_id, model_id.split("@")[0], kind, f"/models/{model_id}", 100, 0.01, [1.0])


def ranked(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return [model["id"] for model in ranked_models(connection)]


def test_the_first_of_a_kind_is_in_force_and_later_ones_wait(
    engine: sa.Engine, models: dict[str, str]
) -> None:
    assert models_in_force(engine) == models
    register_model(engine, row(NEW))
    assert models_in_force(engine) == models
    register_model(engine, row("x@1"), promote=True, by="ann")
    assert models_in_force(engine) == models | {"spectrum": "x@1"}
    assert {m["id"] for m in list_models(engine) if m["in_force"]} == {"x@1", models["cutout"]}
    assert (list_promotions(engine)[0]["model_id"], list_promotions(engine)[0]["by"]) == ("x@1", "ann")


def test_promotions_are_rolled_back_one_by_one(engine: sa.Engine, models: dict[str, str]) -> None:
    for name in (NEW, "x@1"):
        register_model(engine, row(name))
    assert promote(engine, NEW, "ann")["id"] == NEW
    promote(engine, "x", "ann")
    promote(engine, "x", "ann")  # in force already: nothing to roll back
    assert roll_back(engine, "spectrum", "bob") == ("x@1", NEW)
    assert roll_back(engine, "spectrum", "bob") == (NEW, OLD)
    with pytest.raises(CatalogError, match="no model of kind spectrum to go back to"):
        roll_back(engine, "spectrum", "bob")
    assert models_in_force(engine) == models
    history = [(p["model_id"], p["by"], p["withdrawn_by"]) for p in list_promotions(engine)]
    assert history[:2] == [("x@1", "ann", "bob"), (NEW, "ann", "bob")]


def test_a_name_that_means_several_or_none_is_refused(engine: sa.Engine, models: dict[str, str]) -> None:
    register_model(engine, row("sdss@cccccccccccc", "cutout"))
    with pytest.raises(CatalogError, match="several kinds"):
        promote(engine, "sdss", "ann")
    with pytest.raises(NotFoundError):
        promote(engine, "nope", "ann")


def test_rankings_are_of_the_model_in_force_once_it_has_scores(
    engine: sa.Engine, models: dict[str, str], run: int, make_row: Any
) -> None:
    write_batch(engine, run, [make_row(1)], [])
    register_model(engine, row(NEW), promote=True)
    assert ranked(engine) == [OLD]
    write_batch(engine, run, [make_row(1, model=NEW)], [])
    assert ranked(engine) == [NEW]
    roll_back(engine, "spectrum", "ann")
    assert ranked(engine) == [OLD]


def test_models_on_the_command_line(engine: sa.Engine, models: dict[str, str], catalog_url: str) -> None:
    from service.cli.models import command

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(command, arguments, env={"PECULIAR_DATABASE_URL": catalog_url})
        assert done.exit_code == code, done.output
        return done.stdout

    register_model(engine, row(NEW))
    assert f"{NEW} is in force" in run("promote", NEW)
    listed = json.loads(run("--json"))
    assert {m["id"] for m in listed["models"] if m["in_force"]} == {NEW, models["cutout"]}
    assert f"{OLD} is in force again" in run("rollback", "spectrum")
    assert NEW in run() and "rolled back" in run()
