"""The program as its users start it: processes of their own, with settings from the environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from service.catalog.runs import counts, list_inputs, open_runs
from service.catalog.schema import failures, observations, scores
from service.queue import make_app
from service.settings import Settings
from workers.nightly import start_night

REPOSITORY = Path(__file__).parents[2]
# -P keeps the working directory off the import path, as the installed command does.
COMMAND = [
    sys.executable,
    "-P",
    "-c",
    "import sys; sys.argv[0] = 'peculiar'; from service.cli import main; main()",
]
STUB_WORKER = [sys.executable, "-P", str(Path(__file__).with_name("stub_worker.py"))]


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

    def start(
        self, *arguments: object, command: Sequence[str] = COMMAND, **environment: str
    ) -> subprocess.Popen[str]:
        """Start a command that goes on; it is killed when the test ends. It leads a process group."""
        log = (self.folder / f"log-{len(self.processes)}").open("w")
        process = subprocess.Popen(
            [*command, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def start_stub(self, **environment: str) -> subprocess.Popen[str]:
        """Start a worker that needs no weights; stub_worker.py says what its files and variables do."""
        return self.start("worker", command=STUB_WORKER, **environment)

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


class Night:
    """A folder of small files, the catalog and the queue that they go through, and what became of them."""

    def __init__(self, program: Program, database_url: str, broker_url: str) -> None:
        from tests.workers.conftest import with_models

        self.program = program
        self.folder = program.folder / "landing"
        self.folder.mkdir()
        self.settings = Settings(
            _env_file=None, database_url=database_url, broker_url=broker_url, batch_size=64
        )
        self.engine = with_models(database_url)
        self.app = make_app(self.settings)
        self.redis = redis.Redis.from_url(broker_url)

    def fill(self, n: int, **words: str) -> None:
        """n good files, and one for each of ``words`` that holds it, between the others by name."""
        for i in range(n):
            (self.folder / f"spec-{i:05}.fits").write_text(str(i % 90))
        for name, word in words.items():
            (self.folder / f"spec-{n // 2:05}-{name}.fits").write_text(word)

    def start(self) -> int:
        """Queue what is new in the folder; the run's id."""
        return start_night(self.settings, self.engine, self.app, [self.folder], date(2026, 3, 1)).run

    def counts(self, run: int) -> dict[str, Any]:
        return counts(self.engine, run)

    def ended(self, run: int) -> bool:
        return run not in [row.id for row in open_runs(self.engine)]

    def check(self) -> dict[str, str]:
        """Every file is one score of the current bytes or one failure; the reason by path of the failures."""
        files = sorted(map(str, self.folder.rglob("*.fits")))
        wanted = sa.select(observations.c.path).join_from(scores, observations)
        with self.engine.connect() as connection:
            scored = connection.scalars(wanted.where(observations.c.superseded.is_(False))).all()
            failed = {row.path: row.reason for row in connection.execute(sa.select(failures))}
        assert sorted([*scored, *failed]) == files
        assert not open_runs(self.engine)
        return failed

    def attempts(self, run: int) -> dict[str, int]:
        """By name of the file."""
        return {Path(file["path"]).name: file["attempts"] for file in list_inputs(self.engine, run)}


@pytest.fixture
def night(program: Callable[..., Program], postgres_url: str, redis_url: str) -> Iterator[Night]:
    """A night with PostgreSQL and Redis."""
    made = Night(
        program(database_url=postgres_url, broker_url=redis_url, batch_size="64"), postgres_url, redis_url
    )
    yield made
    made.engine.dispose()
    made.redis.close()


def children(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a worker has started."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return list(map(int, found.read_text().split())) if found.exists() else []
