"""What dies and whenever: each file of a night ends as one score or one failure, with real servers and kills."""

from __future__ import annotations

import base64
import json
import os
import resource
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.catalog.runs import add_inputs, counts, finish_if_complete, open_run
from service.catalog.schema import observations, runs
from service.queue import waiting_messages
from service.submission import OUTSIDE, resume
from workers.delivery import ALONE, ENDED_THE_WORKER

from .conftest import Night, Program, children

EXIT_S = 10


def test_a_file_that_kills_its_process_is_set_aside_alone(night: Night, until: Any) -> None:
    night.fill(130, guilty="kill", refused="bad")
    run = night.start()
    night.program.start_stub()
    until(lambda: night.ended(run), what=f"the end of the run\n{night.program.logs()[-3000:]}")
    reasons = {Path(path).name: reason for path, reason in night.check().items()}
    assert reasons["spec-00065-guilty.fits"] == ENDED_THE_WORKER
    assert len(reasons) == 2
    attempts = night.attempts(run)
    assert attempts.pop("spec-00065-guilty.fits") == ALONE + 2  # one in company, and the verdict
    assert max(attempts.values()) <= 2


def test_a_file_that_hangs_is_given_up_at_the_deadline(night: Night, until: Any) -> None:
    night.fill(40, stuck="hang")
    night.program.settings["PECULIAR_BATCH_DEADLINE_S"] = "2"
    run = night.start()
    night.program.start_stub()
    until(lambda: night.ended(run), what="the end of the run")
    assert list(night.check().values()) == [ENDED_THE_WORKER]


def test_innocent_files_survive_kills(night: Night, until: Any) -> None:
    night.fill(400)
    run = night.start()
    worker = night.program.start_stub(STUB_PAUSE_S="0.005")
    for n in range(1, 7):
        until(lambda n=n: night.counts(run)["scored"] >= 40 * n and children(worker), what="some more")
        for pid in children(worker):
            os.kill(pid, signal.SIGKILL)
    until(lambda: night.ended(run), what="the end of the run")
    assert night.check() == {}


def test_what_redis_forgets_is_queued_again(night: Night, until: Any) -> None:
    night.fill(300)
    run = night.start()
    worker = night.program.start_stub(STUB_PAUSE_S="0.005")
    until(lambda: night.counts(run)["scored"], what="the first score")
    os.killpg(worker.pid, signal.SIGSTOP)
    night.redis.flushdb()
    os.killpg(worker.pid, signal.SIGCONT)
    assert night.counts(run)["queued"]
    # Nothing is queued again as long as a worker has something in hand.
    until(lambda: night.start() == run and night.ended(run), what="the end of the run")
    assert night.check() == {}
    assert night.counts(run)["found"] == 300


def test_a_catalog_that_is_away_is_waited_for(night: Night, until: Any) -> None:
    night.fill(300)
    run = night.start()
    night.program.start_stub(STUB_PAUSE_S="0.005")
    until(lambda: night.counts(run)["scored"], what="the first score")
    with shut(night.settings.database_url):
        until(lambda: "trying again in" in night.program.logs(), what="a word about the catalog")
        time.sleep(1)
    until(lambda: night.ended(run), what="the end of the run")
    assert night.check() == {}
    assert set(night.attempts(run).values()) == {1}, "nobody died"
    assert "Traceback" not in night.program.logs()


def shut(url: str, sentence: str = "ALLOW_CONNECTIONS {}", on: str = "false", off: str = "true") -> Any:
    """Context manager: a database that lets nobody in."""
    from contextlib import contextmanager

    @contextmanager
    def closed() -> Iterator[None]:
        address = sa.make_url(url)
        admin = sa.create_engine(address.set(database="postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            change = f'ALTER DATABASE "{address.database}" {sentence}'
            others = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
            for value in (on, off):
                connection.exec_driver_sql(change.format(value))
                connection.execute(others, {"name": address.database})
                if value == on:
                    yield
        admin.dispose()

    return closed()


def test_a_catalog_that_may_only_be_read_is_waited_for(night: Night, until: Any) -> None:
    night.fill(100)
    run = night.start()
    with shut(night.settings.database_url, "SET default_transaction_read_only = {}", "on", "off"):
        night.program.start_stub()
        until(lambda: "read-only transaction: let it be written" in night.program.logs(), what="the reason")
    until(lambda: night.ended(run), what="the end of the run")
    assert night.check() == {}


def test_a_full_disk_is_waited_for(
    program: Callable[..., Program], tmp_path: Path, redis_url: str, until: Any
) -> None:
    url = f"sqlite:///{tmp_path}/catalog.db"
    night = Night(program(database_url=url, broker_url=redis_url, batch_size="64"), url, redis_url)
    night.fill(300)
    run = night.start()
    # No file of the worker may grow beyond this: what the kernel says to a write is what a full disk says.
    size = (tmp_path / "catalog.db").stat().st_size
    worker = night.program.start_stub(STUB_PAUSE_S="0.002")
    limit(worker, size + 40_000)
    until(lambda: "free space on its disk" in night.program.logs(), what="a word about the disk")
    assert night.counts(run)["queued"]
    limit(worker, resource.RLIM_INFINITY)
    until(lambda: night.ended(run), what=f"the end of the run\n{night.program.logs()[-2000:]}")
    assert night.check() == {}
    assert "Traceback" not in night.program.logs()


def limit(worker: subprocess.Popen[str], size: int) -> None:
    for pid in (worker.pid, *children(worker)):
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.mark.parametrize("word", ["1", "hang"])
def test_sigterm_under_load_returns_the_batch(night: Night, until: Any, word: str) -> None:
    night.fill(200, last=word)
    run = night.start()
    worker = night.program.start_stub(STUB_PAUSE_S="0.01")
    until(lambda: night.counts(run)["scored"] >= 64, what="some scores")
    began = time.monotonic()
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(timeout=60) == 0, night.program.logs()
    assert time.monotonic() - began < EXIT_S
    assert night.redis.hlen("unacked") == 0
    assert waiting_messages(night.app) >= 1
    for path in night.folder.glob("*-last.fits"):
        path.write_text("1")
    night.program.start_stub()
    until(lambda: night.ended(run), what="the end of the run")
    assert night.check() == {}


def test_two_operators_at_once_make_one_run(night: Night, until: Any) -> None:
    night.fill(200)
    night.program.start_stub()
    for _ in range(2):
        night.program.start("nightly", night.folder, "--night", "2026-03-01")
    for process in night.program.processes[1:]:
        assert process.wait(timeout=100) == 0, night.program.logs()
    with night.engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(runs)).scalar_one() == 1
    assert night.check() == {}


def test_runs_that_lost_everything_but_the_ledger_are_resumed(night: Night, until: Any) -> None:
    night.fill(70)
    run = open_run(night.engine, "score/by a process that died", "all", "2026-03-01", {})
    add_inputs(night.engine, run, [(str(path), None, None) for path in night.folder.iterdir()])
    assert len(resume(night.settings, night.engine, night.app)[run]) == 70
    assert resume(night.settings, night.engine, night.app) == {}, "a message carries them now"
    night.program.start_stub()
    until(lambda: night.ended(run), what="the end of the run")
    assert len(night.check()) == 70  # the run has no model


def test_another_program_needs_nothing_but_the_broker(night: Night, until: Any, tmp_path: Path) -> None:
    """What the queue module's description says, byte by byte."""
    night.fill(70)
    secret = tmp_path / "secret.fits"
    secret.write_text("1")
    night.program.settings["PECULIAR_DATA_ROOTS"] = str(night.folder)
    paths = [*map(str, sorted(night.folder.iterdir())), str(secret), f"{night.folder}/../secret.fits"]
    body = json.dumps([[], {"paths": paths, "night": "2026-03-02", "model": None}, {}])
    message = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": "peculiar.submit", "id": str(uuid.uuid4())},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
            "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": "peculiar"},
        },
    }
    for _ in range(2):  # twice changes nothing
        night.redis.lpush("peculiar", json.dumps(message))
        message["properties"]["delivery_tag"] = str(uuid.uuid4())  # type: ignore[index]  # JSON
    night.program.start_stub()
    until(lambda: night.redis.llen("peculiar") + night.redis.hlen("unacked") == 0, what="an empty queue")
    with night.engine.connect() as connection:
        (run,) = connection.execute(sa.select(runs)).all()
    result = counts(night.engine, run.id)
    assert (run.night, result["found"], result["scored"]) == ("2026-03-02", 72, 70)
    assert result["reasons"] == {OUTSIDE: 2}
    assert finish_if_complete(night.engine, run.id)


def test_watching_takes_what_is_whole_once(night: Night, until: Any) -> None:
    night.program.start_stub()
    night.fill(5)
    growing, changing = night.folder / "growing.fits", night.folder / "spec-00003.fits"
    growing.write_text("1")

    def watch() -> subprocess.Popen[str]:
        return night.program.start("watch", night.folder, "--every", 0.2, "--settle", 1.5)

    def current() -> set[str]:
        wanted = sa.select(observations.c.path).where(observations.c.superseded.is_(False))
        with night.engine.connect() as connection:
            return {Path(path).name for path in connection.scalars(wanted)}

    def grow_until(condition: Callable[[], bool]) -> bool:
        growing.write_text(growing.read_text() + "1" if len(growing.read_text()) < 2 else "1")
        return condition()

    watching = watch()
    until(lambda: grow_until(lambda: len(current()) == 5), what="the whole files")
    assert "growing.fits" not in current()
    until(lambda: "growing.fits" in current(), what="the file that stopped growing")

    (night.folder / "late").mkdir()
    (night.folder / "late" / "late.fits.part").write_text("7")
    (night.folder / "late" / "late.fits.part").rename(night.folder / "late" / "late.fits")
    changing.write_text("88")
    until(lambda: "late.fits" in current(), what="the late file")

    def versions() -> int:
        with night.engine.connect() as connection:
            mine = observations.c.path == str(changing)
            return len(connection.execute(sa.select(observations).where(mine)).all())

    until(lambda: versions() == 2, what="the changed file as a new observation")
    os.kill(watching.pid, signal.SIGTERM)
    assert watching.wait(timeout=20) == 0, night.program.logs()

    again = watch()
    (night.folder / "after.fits").write_text("9")
    until(lambda: "after.fits" in current(), what="the file that came after the restart")
    assert again.poll() is None
    until(lambda: not night.redis.hlen("unacked"), what="an idle worker")
    assert night.check() == {}
    tonight = datetime.now(UTC).date()
    with night.engine.connect() as connection:
        nights = connection.scalars(sa.select(runs.c.night)).all()
        written = connection.execute(sa.select(sa.func.count()).select_from(observations)).scalar_one()
    assert len(nights) <= 2 and nights[-1] == str(tonight)
    assert written == 9  # eight files, one of them twice


def test_runs_are_listed_and_each_file_explained(night: Night, until: Any) -> None:
    night.fill(3, refused="bad")
    run = night.start()
    night.program.start_stub()
    until(lambda: night.ended(run), what="the end of the run")
    (listed,) = night.program.json("runs")
    assert (listed["id"], listed["found"], listed["scored"], listed["failed"]) == (run, 4, 3, 1)
    for which in (run, "2026-03-01"):
        (shown,) = night.program.json("runs", "show", which)
        assert [file["status"] for file in shown["files"]] == ["failed", "scored", "scored", "scored"]
        assert shown["files"][0]["reason"].startswith("not a FITS file")
    text = night.program.run("runs", "show", run, "--limit", 1).stdout
    assert "not a FITS file" in text and "… and 3 more" in text
    assert "no run of the night" in night.program.run("runs", "show", "1999-01-01", code=1).stderr
    assert "neither" in night.program.run("runs", "show", "yesterday", code=2).stderr
