"""Every path of a message ends as one score or one failure, whatever its neighbours do."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa

from service.catalog.runs import add_inputs, counts, open_run
from service.catalog.schema import failures, scores
from service.queue import Manifest
from workers import batching, pipeline
from workers.pipeline import score_manifest, score_paths

NIGHT = date(2026, 3, 1)


def collect(paths: list[str], models: dict[str, str], load_scorer: Any, read: Any) -> tuple[Any, Any]:
    scored, rejected = [], []
    for rows in score_paths(paths, models, NIGHT, load_scorer, read):
        scored += rows.scored
        rejected += rows.rejected
    return {row.path: row for row in scored}, {row.path: row for row in rejected}


def test_rows_carry_what_reader_and_scorer_said(models: Any, load_scorer: Any, read: Any) -> None:
    scored, rejected = collect(["/spectrum/200", "/cutout/3", "/bad"], models, load_scorer, read)
    spectrum = scored["/spectrum/200"]
    assert (spectrum.kind, spectrum.model, spectrum.score) == ("spectrum", models["spectrum"], 200)
    assert (spectrum.cluster, spectrum.cluster_probability) == (1, 0.75)
    assert spectrum.reader_flags == {"noise-estimated"}
    assert spectrum.flags == {"outside-domain"}
    assert (spectrum.night, spectrum.redshift, spectrum.parts) == ("2026-03-01", 0.1, {"density": 200.0})
    assert scored["/cutout/3"].model == models["cutout"]
    assert rejected["/bad"].reason == "not a FITS file: look at it"
    assert rejected["/bad"].sha256


@pytest.mark.parametrize("where", [0, 3, 6])
def test_one_guilty_input_costs_only_itself(where: int, models: Any, load_scorer: Any, read: Any) -> None:
    paths = [f"/spectrum/{i}" for i in range(6)]
    paths.insert(where, "/poison")
    scored, rejected = collect(paths, models, load_scorer, read)
    assert set(scored) == set(paths) - {"/poison"}
    assert rejected["/poison"].reason == pipeline.SCORER_FAILED
    assert rejected["/poison"].model == models["spectrum"]
    assert rejected["/poison"].detail == "a fault in the model"


def test_what_the_model_does_not_take_is_the_inputs_fault(models: Any, load_scorer: Any, read: Any) -> None:
    _, rejected = collect(["/short/1"], models, load_scorer, read)
    assert rejected["/short/1"].reason == pipeline.DOES_NOT_FIT
    assert "needs 4 pixels" in rejected["/short/1"].detail


def test_a_kind_without_model_says_how_to_get_one(models: Any, load_scorer: Any, read: Any) -> None:
    del models["cutout"]
    scored, rejected = collect(["/spectrum/1", "/cutout/1"], models, load_scorer, read)
    assert set(scored) == {"/spectrum/1"}
    assert "peculiar train cutout" in rejected["/cutout/1"].reason


def test_a_bundle_that_cannot_be_loaded_is_named(models: Any, read: Any) -> None:
    def load(model: str) -> Any:
        raise FileNotFoundError(model)

    _, rejected = collect(["/spectrum/1"], models, load, read)
    assert rejected["/spectrum/1"].reason == pipeline.MODEL_MISSING
    assert models["spectrum"] in rejected["/spectrum/1"].detail


def test_memory_is_bounded_by_batches(
    models: Any, load_scorer: Any, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "MAX_PIXELS", 10)
    monkeypatch.setattr(batching, "MAX_PIXELS", 10)
    scored, _ = collect([f"/spectrum/{i}" for i in range(7)], models, load_scorer, read)
    assert len(scored) == 7
    assert load_scorer(models["spectrum"]).batches == [2, 2, 2, 1]


def run_of(engine: sa.Engine, models: dict[str, str], paths: list[str]) -> Manifest:
    run = open_run(engine, "a run", "sim", NIGHT, models)
    add_inputs(engine, run, [(path, None, None) for path in paths])
    return Manifest(run=run, night=NIGHT, models=models, paths=paths)


def table(engine: sa.Engine, columns: sa.Table, names: list[str]) -> list[Any]:
    with engine.connect() as connection:
        return sorted(map(tuple, connection.execute(sa.select(*(columns.c[name] for name in names)))))


def test_the_run_ends_when_all_are_accounted_for(
    engine: Any, models: Any, load_scorer: Any, read: Any
) -> None:
    paths = ["/spectrum/1", "/spectrum/2", "/cutout/1", "/poison", "/bad"]
    manifest = run_of(engine, models, paths)
    score_manifest(engine, manifest, load_scorer, read)
    result = counts(engine, manifest.run)
    assert (result["found"], result["queued"], result["scored"], result["failed"]) == (5, 0, 3, 2)
    with engine.connect() as connection:
        assert (
            connection.execute(sa.select(sa.func.count()).where(scores.c.q_value.is_(None))).scalar_one() == 0
        )


def test_a_message_that_comes_twice_changes_nothing(
    engine: Any, models: Any, load_scorer: Any, read: Any
) -> None:
    manifest = run_of(engine, models, ["/spectrum/1", "/cutout/1", "/bad"])
    kept = ["observation_id", "model_id", "score", "p_value", "q_value", "run_id"]
    seen = []
    for _ in range(2):
        score_manifest(engine, manifest, load_scorer, read)
        seen.append((table(engine, scores, kept), table(engine, failures, ["path", "reason", "model"])))
    assert seen[0] == seen[1]
    assert len(seen[0][0]) == 2


def test_a_row_that_the_catalog_refuses_costs_only_itself(
    engine: Any, models: Any, load_scorer: Any, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.catalog import writer

    honest = writer.write_batch

    def picky(engine: Any, run: int, scored: Any, rejected: Any) -> None:
        if any(row.path == "/spectrum/2" for row in scored):
            raise sa.exc.IntegrityError("INSERT", {}, ValueError("a constraint"))
        honest(engine, run, scored, rejected)

    monkeypatch.setattr(writer, "write_batch", picky)
    paths = ["/spectrum/1", "/spectrum/2", "/spectrum/3", "/bad"]
    manifest = run_of(engine, models, paths)
    score_manifest(engine, manifest, load_scorer, read)
    result = counts(engine, manifest.run)
    assert (result["scored"], result["failed"], result["queued"]) == (2, 2, 0)
    assert pipeline.WRITER_FAILED in result["reasons"]


def test_a_catalog_that_is_gone_is_not_the_inputs_fault(
    sqlite_engine: Any, models: Any, load_scorer: Any, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.catalog import writer

    def gone(*_: Any) -> None:
        raise sa.exc.OperationalError("INSERT", {}, OSError("no connection"))

    monkeypatch.setattr(writer, "write_batch", gone)
    manifest = run_of(sqlite_engine, models, ["/spectrum/1"])
    with pytest.raises(sa.exc.OperationalError):
        score_manifest(sqlite_engine, manifest, load_scorer, read)
    assert counts(sqlite_engine, manifest.run)["queued"] == 1
