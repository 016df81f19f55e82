"""memory:// is a real worker in a thread: messages through a queue, retries, a clean stop."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa

from service.catalog import writer
from service.catalog.runs import add_inputs, counts, open_run
from service.queue import SCORE_TASK, Manifest, live_workers, make_app, submit
from service.settings import Settings
from service.submission import start_run
from workers import embedded, tasks
from workers.embedded import WorkerFailed, embedded_worker

NIGHT = date(2026, 3, 1)


@pytest.fixture
def app(settings: Settings, monkeypatch: pytest.MonkeyPatch, read: Any) -> Any:
    monkeypatch.setattr(tasks, "read_inputs", lambda paths, readers: read(paths))
    return make_app(settings)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail("what was waited for did not come")
        time.sleep(0.02)


def test_a_run_goes_through_the_queue(
    app: Any, settings: Settings, sqlite_engine: sa.Engine, models: Any, load_scorer: Any
) -> None:
    paths = [f"/spectrum/{i}" for i in range(600)] + ["/bad"]
    with embedded_worker(app, settings, load_scorer) as worker:
        submission = start_run(settings, sqlite_engine, app, paths, models, NIGHT)
        until(lambda: not counts(sqlite_engine, submission.run)["queued"])
        worker.check()
        assert live_workers(app)
    result = counts(sqlite_engine, submission.run)
    assert (result["scored"], result["failed"]) == (600, 1)
    assert len(load_scorer(models["spectrum"]).batches) == 3  # 601 paths in messages of 256


def test_the_worker_runs_in_a_thread_that_ends(app: Any, settings: Settings, load_scorer: Any) -> None:
    with embedded_worker(app, settings, load_scorer) as worker:
        assert worker.thread in threading.enumerate()
    assert not worker.thread.is_alive()


def test_two_applications_do_not_share_a_queue(settings: Settings) -> None:
    assert make_app(settings).conf.task_default_queue != make_app(settings).conf.task_default_queue


def test_a_catalog_that_comes_back_loses_nothing(
    app: Any, settings: Settings, sqlite_engine: Any, models: Any, load_scorer: Any, monkeypatch: Any
) -> None:
    honest, calls = writer.write_batch, []

    def gone_at_first(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            raise sa.exc.OperationalError("INSERT", {}, OSError("no connection"))
        honest(*arguments)

    monkeypatch.setattr(writer, "write_batch", gone_at_first)
    with embedded_worker(app, settings, load_scorer) as worker:
        submission = start_run(settings, sqlite_engine, app, ["/spectrum/1", "/bad"], models, NIGHT)
        until(lambda: not counts(sqlite_engine, submission.run)["queued"])
        worker.check()
    assert len(calls) == 2
    assert counts(sqlite_engine, submission.run)["scored"] == 1


def test_a_catalog_that_stays_away_is_said(
    app: Any, settings: Settings, sqlite_engine: Any, models: Any, load_scorer: Any, monkeypatch: Any
) -> None:
    def gone(*_: Any) -> None:
        raise sa.exc.OperationalError("INSERT", {}, OSError("the disk is full"))

    monkeypatch.setattr(writer, "write_batch", gone)
    monkeypatch.setattr(embedded, "WAITS", 0)
    with embedded_worker(app, settings, load_scorer) as worker:
        start_run(settings, sqlite_engine, app, ["/spectrum/1"], models, NIGHT)
        until(lambda: bool(worker.errors))
        with pytest.raises(WorkerFailed, match="the disk is full"):
            worker.check()


def test_a_message_of_a_run_that_is_not_there_is_said(
    app: Any, settings: Settings, sqlite_engine: Any, models: Any, load_scorer: Any
) -> None:
    with embedded_worker(app, settings, load_scorer) as worker:
        submit(app, Manifest(run=99, night=NIGHT, models=models, paths=["/spectrum/1"]))
        until(lambda: bool(worker.errors))
        with pytest.raises(WorkerFailed, match="no run 99"):
            worker.check()


def test_a_malformed_message_is_refused(
    app: Any, settings: Settings, sqlite_engine: Any, load_scorer: Any
) -> None:
    with embedded_worker(app, settings, load_scorer) as worker:
        app.send_task(SCORE_TASK, kwargs={"manifest": {"run": 1, "paths": []}})
        until(lambda: bool(worker.errors))
    assert "paths" in str(worker.errors[0])


def test_the_message_is_the_documented_one(
    app: Any, settings: Settings, sqlite_engine: Any, models: Any, load_scorer: Any
) -> None:
    """What a program in another language would publish, byte for byte."""
    run = open_run(sqlite_engine, "by hand", "sim", NIGHT, models)
    add_inputs(sqlite_engine, run, [("/spectrum/1", None, None)])
    manifest = {"run": run, "night": "2026-03-01", "models": models, "paths": ["/spectrum/1"]}
    with embedded_worker(app, settings, load_scorer) as worker, app.connection_for_write() as connection:
        connection.Producer().publish(
            json.dumps([[], {"manifest": manifest}, {}]),
            headers={"lang": "py", "task": "peculiar.score", "id": str(uuid.uuid4())},
            content_type="application/json",
            content_encoding="utf-8",
            routing_key=app.conf.task_default_queue,
        )
        until(lambda: not counts(sqlite_engine, run)["queued"])
        worker.check()
    assert counts(sqlite_engine, run)["scored"] == 1
