"""The program as its users start it: processes of their own, with settings from the environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
# -P keeps the working directory off the import path, as the installed command does.
COMMAND = [
    sys.executable,
    "-P",
    "-c",
    "import sys; sys.argv[0] = 'peculiar'; from service.cli import main; main()",
]


class Program:
    """`peculiar` in a folder, with settings."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.settings = {f"PECULIAR_{name.upper()}": value for name, value in settings.items()}
        self.processes: list[subprocess.Popen[str]] = []

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        own = {"PYTHONPATH": path, "PECULIAR_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
        return {**os.environ, **own, **self.settings}

    def run(
        self, *arguments: object, code: int = 0, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; its exit code has to be ``code``, and it must not show a traceback."""
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *arguments: object) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a command that goes on; it is killed when the test ends. It leads a process group."""
        log = (self.folder / f"log-{len(self.processes)}").open("w")
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("log-*")))


@pytest.fixture(scope="session")
def kill() -> Callable[[subprocess.Popen[str]], None]:
    """kill -9 for a process and its children."""

    def kill(process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    return kill


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    """Waits until a condition gives something true; that something."""

    def until(condition: Callable[[], Any], seconds: float = 120, what: str = "what was waited for") -> Any:
        end = time.monotonic() + seconds
        while not (result := condition()):
            if time.monotonic() > end:
                pytest.fail(f"{what} did not come")
            time.sleep(0.1)
        return result

    return until


@pytest.fixture(scope="session")
def make_program() -> type[Program]:
    return Program


@pytest.fixture
def program(tmp_path: Path, kill: Any) -> Iterator[Callable[..., Program]]:
    """Makes Programs, and kills what they left running."""
    made: list[Program] = []

    def make(folder: Path = tmp_path, **settings: str) -> Program:
        made.append(Program(folder, **settings))
        return made[-1]

    yield make
    for one in made:
        for process in one.processes:
            kill(process)
