"""Which files of past nights are scored again or trained on, and where a backfill waits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import sqlalchemy as sa

from service.catalog.engine import writing
from service.catalog.nights import paths_since, recent_paths
from service.catalog.runs import open_run
from service.catalog.schema import drift
from service.catalog.writer import write_batch
from service.queue import make_app, submit_paths, waiting_messages
from service.settings import Settings

NIGHTS = ("2026-03-01", "2026-03-02", "2026-03-04")


def fill(engine: sa.Engine, models: dict[str, str], make_row: Callable[..., Any]) -> list[int]:
    """Three nights of two spectra, and a cutout; the runs' ids."""
    ids = []
    for k, night in enumerate(NIGHTS):
        ids.append(open_run(engine, night, "sdss", night, models))
        rows = [make_row(2 * k + i, night=night, path=f"/{night}/{i}") for i in range(2)]
        write_batch(engine, ids[-1], rows, [])
    cutout = make_row(9, kind="cutout", model=models["cutout"], night=NIGHTS[2], path="/cutout")
    write_batch(engine, ids[-1], [cutout], [])
    return ids


def test_files_since_a_night(engine: sa.Engine, models: dict[str, str], make_row: Any) -> None:
    fill(engine, models, make_row)
    since = paths_since(engine, "spectrum", date(2026, 3, 2))
    assert since == ["/2026-03-02/0", "/2026-03-02/1", "/2026-03-04/0", "/2026-03-04/1"]
    assert paths_since(engine, "cutout", date(2026, 3, 2)) == ["/cutout"]
    assert paths_since(engine, "spectrum", date(2026, 3, 5)) == []


def test_files_of_recent_nights(engine: sa.Engine, models: dict[str, str], make_row: Any) -> None:
    ids = fill(engine, models, make_row)
    assert recent_paths(engine, "spectrum", 2) == paths_since(engine, "spectrum", date(2026, 3, 2))
    write_batch(engine, ids[0], [make_row(0, path="/copy", night=NIGHTS[0])], [])
    assert "/copy" not in recent_paths(engine, "spectrum", 3)
    with writing(engine) as connection:
        flag = {"run_id": ids[1], "model_id": models["spectrum"], "figures": {}, "problem": "inverted"}
        connection.execute(sa.insert(drift).values(flag))
    assert recent_paths(engine, "spectrum", 2) == ["/2026-03-04/0", "/2026-03-04/1"]


def test_a_night_goes_before_a_backfill_that_waits(redis_url: str) -> None:
    app = make_app(Settings(_env_file=None, broker_url=redis_url))
    night, models = date(2026, 3, 1), {"spectrum": "sdss@0"}
    submit_paths(app, 1, night, models, ["/a", "/b", "/c"], 1, backfill=True)
    submit_paths(app, 2, night, models, ["/d", "/e"], 1)
    assert waiting_messages(app) == 5
    runs: list[int] = []

    def take(body: Any, message: Any) -> None:
        runs.append(body[1]["manifest"]["run"])
        message.ack()

    with (
        app.connection_for_read() as connection,
        connection.channel() as channel,
        app.amqp.TaskConsumer(channel, callbacks=[take], accept=["json"]) as consumer,
    ):
        consumer.qos(prefetch_count=1)
        while len(runs) < 5:
            connection.drain_events(timeout=20)
    assert runs == [2, 2, 1, 1, 1]
