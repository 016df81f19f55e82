"""The long forms, run by `make soak`: thousands of files, many deaths, servers that restart. Figures are printed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.catalog.schema import observations, runs, scores
from service.submission import start_run
from tests.workers.conftest import MODELS
from tests.workers.readers.conftest import spectrum_hdus, to_bytes
from tests.workers.readers.test_bad_files import CASES
from workers.delivery import ENDED_THE_WORKER

from .conftest import Night, Program, children

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

LONG_S = 1200


def say(text: str) -> None:
    print(f"\n    {text}", flush=True)


def test_twenty_kills_in_five_thousand_files(night: Night, until: Any) -> None:
    night.fill(5000)
    run = night.start()
    began, kills, rng = time.monotonic(), 0, random.Random(20)
    workers = [night.program.start_stub(STUB_PAUSE_S="0.01") for _ in range(3)]
    night.program.settings["PECULIAR_DATA_ROOTS"] = str(night.folder)
    night.program.start("beat")  # queues again what a kill between two Redis commands may lose
    while kills < 20 and not night.ended(run):
        time.sleep(rng.uniform(0.2, 3))
        victim = rng.randrange(len(workers))
        if rng.random() < 0.5:  # the whole worker, its parent included
            os.killpg(workers[victim].pid, signal.SIGKILL)
            workers[victim].wait()
            workers[victim] = night.program.start_stub(STUB_PAUSE_S="0.01")
        else:
            for pid in children(workers[victim]):
                os.kill(pid, signal.SIGKILL)
        kills += 1
    until(lambda: night.ended(run), LONG_S, f"the end of the run {night.counts(run)}")
    assert night.check() == {}
    result, attempts = night.counts(run), night.attempts(run)
    assert (result["found"], result["scored"]) == (5000, 5000)
    with night.engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(scores)).scalar_one() == 5000
    say(
        f"{kills} kills: {result['scored']} of {result['found']} scored, {result['failed']} failed, "
        f"{time.monotonic() - began:.0f} s, most attempts {max(attempts.values())}, "
        f"tried again {sum(n > 1 for n in attempts.values())}"
    )
    assert kills == 20


def test_three_poisonous_files_in_two_thousand(night: Night, until: Any) -> None:
    night.fill(2000)
    for i in (7, 1003, 1999):
        (night.folder / f"spec-{i:05}.fits").write_text("kill")
    run = night.start()
    began = time.monotonic()
    for _ in range(2):
        night.program.start_stub()
    until(lambda: night.ended(run), LONG_S, "the end of the run")
    assert list(night.check().values()) == [ENDED_THE_WORKER] * 3
    say(f"3 poisonous of 2000: {night.counts(run)['scored']} scored in {time.monotonic() - began:.0f} s")


def test_redis_restarts_empty(
    program: Callable[..., Program], postgres_url: str, tmp_path: Path, until: Any
) -> None:
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    if server is None:
        pytest.skip("no redis-server on the PATH to restart")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def start() -> subprocess.Popen[bytes]:
        options = f"--bind 127.0.0.1 --port {port} --appendonly no --dir {tmp_path} --save".split()
        process = subprocess.Popen([server, *options, ""], stdout=subprocess.DEVNULL)
        until(lambda: subprocess.run(["redis-cli", "-p", str(port), "ping"], capture_output=True).stdout)
        return process

    redis_server = start()
    try:
        url = f"redis://127.0.0.1:{port}/0"
        one = program(database_url=postgres_url, broker_url=url, batch_size="64")
        night = Night(one, postgres_url, url)
        night.fill(2000)
        run = night.start()
        for _ in range(2):
            night.program.start_stub(STUB_PAUSE_S="0.01")
        until(lambda: night.counts(run)["scored"] > 300, what="some scores")
        redis_server.kill()
        redis_server.wait()
        time.sleep(3)
        redis_server = start()
        until(lambda: night.redis.ping(), what="Redis")
        left = night.counts(run)["queued"]
        night.program.json("nightly", night.folder, "--night", "2026-03-01")
        until(lambda: night.start() == run and night.ended(run), LONG_S, "the end of the run")
        assert night.check() == {}
        say(f"Redis restarted empty with {left} of 2000 queued: {night.counts(run)['scored']} scored")
        night.engine.dispose()
    finally:
        redis_server.kill()
        redis_server.wait()


def test_postgres_restarts(night: Night, until: Any) -> None:
    night.fill(2000)
    run = night.start()
    for _ in range(2):
        night.program.start_stub(STUB_PAUSE_S="0.01")
    for n in (300, 900):
        until(lambda n=n: night.counts(run)["scored"] > n, what="some scores")
        with night.engine.connect() as connection:
            folder = Path(connection.exec_driver_sql("SHOW data_directory").scalar_one())
        pid = int((folder / "postmaster.pid").read_text().split()[0])
        command = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
        owner = Path(f"/proc/{pid}").stat()
        os.kill(pid, signal.SIGQUIT)  # as in a crash: no connection is closed in order
        until(lambda pid=pid: not Path(f"/proc/{pid}/exe").exists(), what="the end of PostgreSQL")
        time.sleep(3)
        who: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
        with (night.program.folder / "postgres-log").open("a") as log:
            subprocess.Popen(command, cwd="/", stdout=log, stderr=log, start_new_session=True, **who)
        until(lambda: answers(night.engine), what="PostgreSQL")
    until(lambda: night.ended(run), LONG_S, "the end of the run")
    assert night.check() == {}
    assert "Traceback" not in night.program.logs()
    attempts = night.attempts(run).values()
    say(f"PostgreSQL restarted twice: {night.counts(run)['scored']} of 2000, most attempts {max(attempts)}")


def answers(engine: sa.Engine) -> bool:
    try:
        with engine.connect() as connection:
            return bool(connection.exec_driver_sql("SELECT 1").scalar_one())
    except sa.exc.OperationalError:
        return False


def test_two_schedulers_and_two_operators(night: Night, until: Any) -> None:
    night.fill(1000)
    soon = datetime.now(UTC) + timedelta(seconds=75)
    settings = {"PECULIAR_NIGHTLY_AT": f"{soon:%H:%M}", "PECULIAR_DATA_ROOTS": str(night.folder)}
    night.program.settings |= settings
    for _ in range(2):
        night.program.start_stub()
        night.program.start("beat")
    until(lambda: datetime.now(UTC) >= soon.replace(second=0), what="the minute")
    operators = [night.program.start("nightly") for _ in range(2)]
    for process in operators:
        assert process.wait(timeout=300) == 0, night.program.logs()
    until(lambda: night.program.logs().count("night 20") >= 2, what="what both schedulers started")
    with night.engine.connect() as connection:
        (run,) = connection.execute(sa.select(runs)).all()
    until(lambda: night.ended(run.id), LONG_S, "the end of the run")
    assert night.check() == {}
    result = night.counts(run.id)
    say(f"2 schedulers, 2 operators: 1 run, {result['scored']} of {result['found']} scored")


def test_malformed_files_among_good_ones(night: Night, until: Any) -> None:
    expected = {}
    for i, (name, (make, reason, _)) in enumerate(CASES.items()):
        path = night.folder / f"bad-{i:03}-{name.replace('/', ' ')}.fits"
        path.write_bytes(make())
        expected[str(path)] = reason
    for i in range(100):
        header = {"PLATEID": 266, "MJD": 51602, "FIBERID": i, "PLUG_RA": 10.0, "PLUG_DEC": 1.0}
        (night.folder / f"good-{i:03}.fits").write_bytes(to_bytes(spectrum_hdus(header=header)))
    run = night.start()
    worker = night.program.start_stub(STUB_READS="real")
    until(lambda: night.ended(run), LONG_S, "the end of the run")
    assert night.check() == expected
    assert night.counts(run)["scored"] == 100
    assert "Traceback" not in night.program.logs()
    peak = max(memory(pid, "VmHWM") for pid in (worker.pid, *children(worker)))
    assert peak < 2 << 30
    say(f"{len(expected)} kinds of malformed files, 100 good: all accounted for, peak {peak >> 20} MiB")


def memory(pid: int, what: str) -> int:
    """Bytes that a process holds (VmRSS) or has held (VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) << 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no small disk may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_full(
    program: Callable[..., Program], small_disk: Path, redis_url: str, until: Any
) -> None:
    url = f"sqlite:///{small_disk}/catalog.db"
    night = Night(program(database_url=url, broker_url=redis_url, batch_size="64"), url, redis_url)
    night.fill(1000)
    run = night.start()
    ballast = small_disk / "ballast"
    room = shutil.disk_usage(small_disk).free
    ballast.write_bytes(b"\0" * max(0, room - 200_000))
    night.program.start_stub()
    until(lambda: "free space on its disk" in night.program.logs(), what="a word about the disk")
    time.sleep(10)
    before = night.counts(run)
    ballast.unlink()
    until(lambda: night.ended(run), LONG_S, f"the end of the run\n{night.program.logs()[-3000:]}")
    assert night.check() == {}
    words = [line for line in night.program.logs().splitlines() if "catalog cannot be used" in line]
    say(
        f"full disk at {before['scored']} of 1000: then all; {len(words)} remarks, the first:\n    {words[0]}"
    )
    assert "Traceback" not in night.program.logs()
    night.engine.dispose()


def test_sigterm_twenty_times_under_load(night: Night, until: Any) -> None:
    night.fill(3000)
    run = night.start()
    slowest, stops = 0.0, 0
    while stops < 20 and not night.ended(run):
        worker = night.program.start_stub(STUB_PAUSE_S="0.02")
        until(lambda: night.redis.hlen("unacked") or night.ended(run), what="a batch in hand")
        time.sleep(random.Random(stops).uniform(0, 2))
        began = time.monotonic()
        os.kill(worker.pid, signal.SIGTERM)
        assert worker.wait(timeout=60) == 0
        slowest, stops = max(slowest, time.monotonic() - began), stops + 1
        assert night.redis.hlen("unacked") == 0
    night.program.start_stub()
    until(lambda: night.ended(run), LONG_S, "the end of the run")
    assert night.check() == {}
    say(f"{stops} stops, the slowest took {slowest:.1f} s; most attempts {max(night.attempts(run).values())}")
    assert slowest < 10


def test_forty_eight_runs_leave_nothing_behind(night: Night, until: Any) -> None:
    night.fill(200)
    worker = night.program.start_stub()
    paths = sorted(map(str, night.folder.iterdir()))
    figures = []
    for n in range(48):
        day = date(2026, 1, 1) + timedelta(days=n)
        run = start_run(night.settings, night.engine, night.app, paths, MODELS, day).run
        until(lambda run=run: night.ended(run), what="the end of the run")
        if n % 8 == 7:
            with night.engine.connect() as connection:
                query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                connections = connection.exec_driver_sql(query).scalar_one()
            used = sum(memory(pid, "VmRSS") for pid in (worker.pid, *children(worker)))
            figures.append((n + 1, used >> 20, connections, len(night.redis.client_list())))
    say("runs, MiB of the worker, connections to PostgreSQL and Redis: " + "; ".join(map(str, figures)))
    first, last = figures[0], figures[-1]
    assert last[1] - first[1] < 20
    assert last[2] <= first[2] and last[3] <= first[3] + 1
    with night.engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(observations)).scalar_one() == 200
