"""Every new file is scored once: what a night takes and what it leaves."""

from __future__ import annotations

import os
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery.beat import Scheduler

from service.catalog.registry import register_model
from service.catalog.rows import ModelRow, RejectedRow
from service.catalog.runs import add_inputs, finish_if_complete, open_run
from service.catalog.schema import runs
from service.catalog.writer import write_batch
from service.queue import NIGHTLY_TASK, Manifest, make_app, waiting_messages
from service.settings import Settings
from service.submission import file_state, start_run
from workers.embedded import embedded_worker
from workers.nightly import new_files, start_night
from workers.pipeline import score_manifest

NIGHT = date(2026, 3, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    for i in range(4):
        (folder / f"spec-{i}.fits").write_bytes(b"x" * i)
    return folder


def score(engine: sa.Engine, models: dict[str, str], paths: list[str], load_scorer: Any, read: Any) -> None:
    """A run over real paths, read as if they were fake ones; those that end in 3.fits are bad."""

    def read_as_fake(paths: list[str]) -> Any:
        samples = read(["/bad" if path.endswith("3.fits") else "/spectrum/5" for path in paths])
        for sample, path in zip(samples, paths, strict=True):
            sample.path = path
            yield sample

    run = open_run(engine, f"run {paths}", "sim", NIGHT, models)
    add_inputs(engine, run, map(file_state, paths))
    score_manifest(
        engine, Manifest(run=run, night=NIGHT, models=models, paths=paths), load_scorer, read_as_fake
    )


def files(folder: Path) -> list[str]:
    return sorted(map(str, folder.glob("*.fits")))


def test_what_was_dealt_with_is_not_new(
    engine: sa.Engine, folder: Path, models: Any, load_scorer: Any, read: Any
) -> None:
    paths = files(folder)
    assert new_files(engine, paths, models) == paths
    score(engine, models, [paths[0], paths[3]], load_scorer, read)  # one scored, one failed
    assert new_files(engine, paths, models) == paths[1:3]


def test_a_changed_file_is_new(
    engine: sa.Engine, folder: Path, models: Any, load_scorer: Any, read: Any
) -> None:
    paths = files(folder)
    score(engine, models, paths, load_scorer, read)
    assert new_files(engine, paths, models) == []
    os.utime(paths[0], ns=(1, 1))
    Path(paths[3]).write_bytes(b"whole now")
    assert new_files(engine, paths, models) == [paths[0], paths[3]]


def test_a_new_model_makes_only_the_failures_new(
    engine: sa.Engine, folder: Path, models: Any, load_scorer: Any, read: Any
) -> None:
    paths = files(folder)
    score(engine, models, paths, load_scorer, read)
    newer = models | {"cutout": "lens@000000000000"}
    register_model(engine, ModelRow(newer["cutout"], "lens", "cutout", "/nowhere", 1, 0.1, [1.0]))
    assert new_files(engine, paths, newer) == [paths[3]]
    assert new_files(engine, paths, models | {"spectrum": "sdss@000000000000"}) == [paths[3]]


def test_a_night_started_twice_is_one_run_and_one_set_of_messages(
    settings: Settings, sqlite_engine: sa.Engine, folder: Path
) -> None:
    app = make_app(settings)
    first = start_night(settings, sqlite_engine, app, [folder], NIGHT)
    second = start_night(settings, sqlite_engine, app, [folder], NIGHT)
    assert first.run == second.run
    assert (len(first.queued), len(second.queued)) == (4, 0)
    assert waiting_messages(app) == 1
    with sqlite_engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(runs)).scalar_one() == 1


def test_messages_that_the_broker_lost_are_sent_again(
    settings: Settings, sqlite_engine: sa.Engine, folder: Path
) -> None:
    start_night(settings, sqlite_engine, make_app(settings), [folder], NIGHT)
    fresh = make_app(settings)  # a queue that holds nothing
    again = start_night(settings, sqlite_engine, fresh, [folder], NIGHT)
    assert again.queued == files(folder)
    assert waiting_messages(fresh) == 1


def test_late_files_reopen_the_night(
    settings: Settings, sqlite_engine: sa.Engine, folder: Path, models: Any
) -> None:
    app = make_app(settings)
    first = start_night(settings, sqlite_engine, app, [folder], NIGHT)
    write_batch(sqlite_engine, first.run, [], [RejectedRow(path, "bad") for path in first.queued])
    assert finish_if_complete(sqlite_engine, first.run)
    (folder / "spec-late.fits").write_bytes(b"late")
    second = start_night(settings, sqlite_engine, app, [folder], NIGHT)
    assert second.run == first.run
    assert second.queued == [str(folder / "spec-late.fits")]
    assert not finish_if_complete(sqlite_engine, first.run)


def test_a_run_of_its_own_takes_everything_again(
    settings: Settings, sqlite_engine: sa.Engine, folder: Path, models: Any
) -> None:
    app = make_app(settings)
    runs_started = [start_run(settings, sqlite_engine, app, files(folder), models) for _ in range(2)]
    assert runs_started[0].run != runs_started[1].run
    assert [len(run.queued) for run in runs_started] == [4, 4]


def test_no_folder_is_said(settings: Settings, sqlite_engine: sa.Engine) -> None:
    with pytest.raises(ValueError, match="PECULIAR_DATA_ROOTS"):
        start_night(settings, sqlite_engine, make_app(settings), [])


def test_the_schedule_follows_the_settings(settings: Settings) -> None:
    settings.nightly_at = "04:30"
    entry = make_app(settings).conf.beat_schedule["nightly"]
    assert entry["task"] == NIGHTLY_TASK
    assert (entry["schedule"].hour, entry["schedule"].minute) == ({4}, {30})


def test_the_scheduler_sends_what_a_worker_works_on(
    settings: Settings, sqlite_engine: sa.Engine, folder: Path
) -> None:
    settings.data_roots = [folder]
    app = make_app(settings)
    scheduler = Scheduler(app=app)
    with embedded_worker(app, settings) as worker:
        scheduler.apply_async(scheduler.schedule["nightly"], advance=False)
        end = time.monotonic() + 30
        while not ended_runs(sqlite_engine) and time.monotonic() < end:
            worker.check()
            time.sleep(0.05)
    assert ended_runs(sqlite_engine) == [4]


def ended_runs(engine: sa.Engine) -> list[int]:
    """How many inputs each run had that has ended."""
    wanted = sa.select(runs.c.summary).where(runs.c.ended_at.is_not(None))
    with engine.connect() as connection:
        return [summary["found"] for summary in connection.scalars(wanted)]
