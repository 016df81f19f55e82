"""Reading many inputs, in this process or in others, gives one result each, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from workers import reading
from workers.readers.sample import Rejection, Sample


def read_or_die(paths: list[str]) -> list[Sample | Rejection]:
    """Stands in for the readers, in reader processes too; what it finds in a path decides."""
    found: list[Sample | Rejection] = []
    for path in paths:
        if "deadly" in path:
            os.kill(os.getpid(), signal.SIGKILL)
        if "bug" in path:
            raise KeyError("a fault in the reader")
        found.append(Rejection(path, "a reason"))
    return found


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = []
    for n in range(70):
        paths.append(str(tmp_path / f"{n:02d}.fits"))
        fits.PrimaryHDU(np.random.default_rng(n).normal(size=(16, 16)).astype("f4")).writeto(paths[-1])
    return paths


def test_processes_read_the_same_in_the_same_order(files: list[str]) -> None:
    paths = [*files, "/gone.fits"]
    here, there = (list(reading.read_inputs(paths, readers)) for readers in (0, 2))
    assert [result.path for result in here] == [result.path for result in there] == paths
    for one, other in zip(here[:-1], there[:-1], strict=True):
        assert isinstance(one, Sample) and isinstance(other, Sample)
        np.testing.assert_array_equal(one.flux, other.flux)
    assert isinstance(there[-1], Rejection)


def test_a_bug_costs_one_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "read_all", read_or_die)
    found = list(reading.read_inputs(["/a", "/bug", "/b"]))
    assert [result.path for result in found] == ["/a", "/bug", "/b"]
    assert [result.reason for result in found if isinstance(result, Rejection)] == [
        "a reason", reading.READER_FAILED, "a reason",
    ]  # fmt: skip


def test_a_reader_that_dies_costs_one_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "read_guarded", read_or_die)
    monkeypatch.setattr(reading, "CHUNK", 2)
    paths = ["/a", "/b", "/c", "/deadly", "/d", "/e", "/f"]
    found: list[Any] = list(reading.read_inputs(paths, readers=2))
    assert [result.path for result in found] == paths
    assert {result.path: result.reason for result in found}["/deadly"] == reading.READER_DIED
    assert sum(result.reason == "a reason" for result in found) == 6
    assert [result.path for result in reading.read_inputs(["/g"], readers=2)] == ["/g"]


def test_readers_end_with_the_process_that_was_killed(files: list[str]) -> None:
    """Also one that multiprocessing takes for a daemon, as Celery's are."""
    program = (
        "import multiprocessing, os, signal, sys\n"
        "from workers import reading\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.current_process()._config['daemon'] = True\n"
        "    print(len(list(reading.read_inputs(sys.argv[1:], 1))), *reading._pool(1)._processes, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    script = Path(files[0]).parent / "program.py"
    script.write_text(program)
    ran = subprocess.run(
        [sys.executable, str(script), *files[:3]], capture_output=True, text=True, check=False
    )
    n, reader = map(int, ran.stdout.split())
    assert (n, ran.returncode) == (3, -signal.SIGKILL)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{reader}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{reader}").exists()


def count_readable(paths: list[str]) -> None:
    print(sum(isinstance(result, Sample) for result in reading.read_inputs(paths, readers=1)))


def test_a_process_of_multiprocessing_ends_though_it_has_readers(files: list[str]) -> None:
    """It waits for its children, which wait for work, unless these are told."""
    child = get_context("spawn").Process(target=count_readable, args=(files,))
    child.start()
    child.join(120)
    ended = child.exitcode
    child.kill()
    assert ended == 0
