"""What one delivery of a message does, process deaths aside: those are in tests/system."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa

from service.catalog.attempts import take_up
from service.catalog.runs import add_inputs, counts, open_run, open_runs
from service.queue import Manifest
from workers import pipeline
from workers.delivery import ALONE, ENDED_THE_WORKER, WORKER_FAILED, ReturnedError, work_off
from workers.patience import AwayError, Stop, patiently, say

NIGHT = date(2026, 3, 1)
PATHS = [f"/spectrum/{i}" for i in range(8)]


@pytest.fixture
def manifest(sqlite_engine: sa.Engine, models: Any, read: Any, monkeypatch: Any) -> Manifest:
    monkeypatch.setattr(work_off, "__defaults__", (None, read))
    run = open_run(sqlite_engine, "a run", "sim", NIGHT, models)
    add_inputs(sqlite_engine, run, [(path, 1, 1) for path in PATHS])
    return Manifest(run=run, night=NIGHT, models=models, paths=PATHS)


def test_what_is_done_is_not_done_again(
    sqlite_engine: sa.Engine, manifest: Manifest, models: Any, load_scorer: Any
) -> None:
    half = manifest.model_copy(update={"paths": PATHS[:4]})
    work_off(sqlite_engine, half, "m", load_scorer, Stop())
    work_off(sqlite_engine, manifest, "other", load_scorer, Stop())
    work_off(sqlite_engine, manifest, "other", load_scorer, Stop())
    assert load_scorer(models["spectrum"]).batches == [4, 4]
    assert not open_runs(sqlite_engine)


def test_after_a_death_each_is_tried_alone(
    sqlite_engine: sa.Engine, manifest: Manifest, models: Any, load_scorer: Any
) -> None:
    take_up(sqlite_engine, manifest.run, PATHS, "m")
    work_off(sqlite_engine, manifest, "m", load_scorer, Stop())
    assert load_scorer(models["spectrum"]).batches == [1] * 8
    assert counts(sqlite_engine, manifest.run)["scored"] == 8


def test_the_one_in_hand_at_every_death_is_set_aside(
    sqlite_engine: sa.Engine, manifest: Manifest, load_scorer: Any
) -> None:
    guilty = manifest.model_copy(update={"paths": PATHS[:1]})

    def die(model: str) -> Any:
        raise SystemExit  # as near to a death as a test in one process comes

    for _ in range(1 + ALONE):
        with pytest.raises(SystemExit):
            work_off(sqlite_engine, guilty, "m", die, Stop())
    work_off(sqlite_engine, guilty, "m", die, Stop())
    assert counts(sqlite_engine, manifest.run)["reasons"] == {ENDED_THE_WORKER: 1}


def test_a_fault_of_the_program_ends_as_failures(
    sqlite_engine: sa.Engine, manifest: Manifest, load_scorer: Any, monkeypatch: Any
) -> None:
    honest = pipeline.score_manifest

    def faulty(engine: Any, manifest: Manifest, load: Any, read: Any) -> None:
        if PATHS[3] in manifest.paths:
            raise KeyError("a fault")
        honest(engine, manifest, load, read)

    monkeypatch.setattr(pipeline, "score_manifest", faulty)
    work_off(sqlite_engine, manifest, "m", load_scorer, Stop())
    result = counts(sqlite_engine, manifest.run)
    assert (result["scored"], result["reasons"]) == (7, {WORKER_FAILED: 1})


def test_asked_to_stop_it_returns_the_rest(
    sqlite_engine: sa.Engine, manifest: Manifest, load_scorer: Any
) -> None:
    stop = Stop()
    stop.requested = True
    with pytest.raises(ReturnedError):
        work_off(sqlite_engine, manifest, "m", load_scorer, stop)
    assert take_up(sqlite_engine, manifest.run, PATHS, "m") == dict.fromkeys(PATHS, 0)


def test_waiting_ends_when_asked_to_stop() -> None:
    stop = Stop()

    def away(n: int) -> None:
        stop.requested = True
        raise sa.exc.OperationalError("SELECT", {}, OSError("no connection\nLINE 1"))

    with pytest.raises(AwayError, match=r"^the catalog cannot be used: no connection: see that"):
        patiently(away, stop)


def test_the_advice_fits_the_complaint() -> None:
    full = sa.exc.OperationalError("INSERT", {}, OSError("database or disk is full"))
    assert say(full).startswith("the catalog cannot be used: database or disk is full: free space")
