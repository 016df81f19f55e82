"""Real PostgreSQL, Redis and worker processes: nothing lost, nothing twice, the same scores as alone."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from service.catalog.engine import open_catalog
from service.catalog.schema import (
    clusters,
    failures,
    models,
    observations,
    promotions,
    run_inputs,
    runs,
    scores,
)

N_SPECTRA, N_CUTOUTS = 400, 60
BAD = {"empty.fits": b"", "text.fits": b"this is no FITS file", "cut.fits": b"SIMPLE  =                    T"}
FIGURES = ("elbo", "log_px", "log_density", "chi2", "score", "p_value", "q_value", "snr")


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory, make_program: Callable[..., Any]) -> Any:
    """A folder ``night`` of spectra, cutouts and bad files, scored with SQLite and memory://."""
    folder = tmp_path_factory.mktemp("survey")
    alone = make_program(folder, batch_size="64")
    for kind, n in (("spectrum", N_SPECTRA), ("cutout", N_CUTOUTS)):
        alone.run("simulate", kind, "--n", n, "--out", f"night/{kind}", "--seed", 1)
        alone.run("train", kind, f"night/{kind}", "--name", f"tiny-{kind}", "--epochs", 0)
    for name, content in BAD.items():
        (folder / "night" / name).write_bytes(content)
    return alone


@pytest.fixture
def together(
    survey: Any, program: Callable[..., Any], postgres_url: str, redis_url: str, tmp_path: Path
) -> Any:
    """The same program with PostgreSQL and Redis, which knows the same models."""
    one = program(
        tmp_path,
        database_url=postgres_url,
        broker_url=redis_url,
        model_dir=str(survey.folder / "peculiar-models"),
        batch_size="64",
    )
    catalog = open_catalog(postgres_url, create=True)
    with connected(f"sqlite:///{survey.folder}/peculiar.db") as reading, catalog.begin() as writing:
        for table in (models, clusters, promotions):
            rows = [dict(row) for row in reading.execute(sa.select(table)).mappings()]
            writing.execute(sa.insert(table), rows)
    catalog.dispose()
    return one


def connected(database_url: str) -> sa.Connection:
    return sa.create_engine(database_url, poolclass=sa.NullPool).connect()


def rows(database_url: str, folder: Path) -> dict[str, tuple[Any, ...]]:
    """Cluster, flags and FIGURES by path below ``folder`` and model."""
    columns = [scores.c[name] for name in ("model_id", "cluster", "flags", *FIGURES)]
    wanted = sa.select(observations.c.path, *columns).join_from(scores, observations)
    with connected(database_url) as connection:
        found = connection.execute(wanted).all()
    result = {f"{Path(row.path).relative_to(folder)} {row.model_id}": tuple(row)[2:] for row in found}
    assert len(result) == len(found)
    return result


def one(database_url: str, statement: Any) -> Any:
    with connected(database_url) as connection:
        return connection.execute(statement).scalar_one()


def check_complete(database_url: str, folder: Path) -> None:
    """Every file of the survey is one score or one failure, and the run has ended."""
    files = {str(path) for path in (folder / "night").rglob("*.fits*")}
    with connected(database_url) as connection:
        scored = (
            connection.execute(sa.select(observations.c.path).join_from(scores, observations)).scalars().all()
        )
        failed = connection.execute(sa.select(failures.c.path)).scalars().all()
        left = connection.execute(sa.select(run_inputs.c.path).where(run_inputs.c.status == "queued")).all()
        open_runs = connection.execute(sa.select(runs.c.id).where(runs.c.ended_at.is_(None))).all()
    assert sorted([*scored, *failed]) == sorted(files)
    assert {Path(path).name for path in failed} == set(BAD)
    assert not left
    assert not open_runs


@pytest.fixture(scope="module")
def scored_alone(survey: Any) -> dict[str, tuple[Any, ...]]:
    result = survey.json("score", "night")
    assert (result["scored"], result["rejected"]) == (N_SPECTRA + N_CUTOUTS, len(BAD))
    url = f"sqlite:///{survey.folder}/peculiar.db"
    check_complete(url, survey.folder)
    return rows(url, survey.folder)


def test_two_workers_give_what_one_process_gives(
    survey: Any, together: Any, scored_alone: Any, postgres_url: str, until: Any
) -> None:
    for _ in range(2):
        together.start("worker")
    result = together.json("score", survey.folder / "night")
    assert (result["read"], result["rejected"]) == (N_SPECTRA + N_CUTOUTS + len(BAD), len(BAD))
    check_complete(postgres_url, survey.folder)
    found = rows(postgres_url, survey.folder)
    assert found.keys() == scored_alone.keys()
    for key, values in found.items():
        assert values[:2] == scored_alone[key][:2], key
        assert values[2:] == pytest.approx(scored_alone[key][2:], rel=1e-5, abs=1e-9), key

    # The same files again change nothing but the run that last wrote them.
    again = together.json("score", survey.folder / "night")
    assert again["run"] != result["run"]
    assert {name: again[name] for name in ("read", "scored", "rejected", "reasons")} == {
        name: result[name] for name in ("read", "scored", "rejected", "reasons")
    }
    check_complete(postgres_url, survey.folder)
    assert rows(postgres_url, survey.folder).keys() == found.keys()

    status = together.json("status")
    assert status["queue"] == 0
    assert len(status["workers"]) == 2
    assert status["scores"] == N_SPECTRA + N_CUTOUTS


def test_a_worker_that_is_killed_loses_nothing(
    survey: Any, together: Any, postgres_url: str, redis_url: str, until: Any, kill: Any
) -> None:
    run = together.json("score", survey.folder / "night", "--no-wait")["run"]
    victim = together.start("worker")
    scored = sa.select(sa.func.count()).select_from(scores)
    until(lambda: one(postgres_url, scored) > 0, what="the first score")
    stop_with_a_message_in_hand(victim, redis_url)
    kill(victim)
    ended = sa.select(runs.c.ended_at).where(runs.c.id == run)
    assert one(postgres_url, ended) is None
    together.start("worker")
    # What the dead worker held comes back when its lease has run out.
    until(lambda: one(postgres_url, ended), what=f"the end of the run\n{together.logs()}")
    check_complete(postgres_url, survey.folder)


def stop_with_a_message_in_hand(process: subprocess.Popen[str], redis_url: str) -> None:
    """SIGSTOP a worker at a moment when it holds a message that it has not acknowledged."""
    client = redis.Redis.from_url(redis_url)
    while True:
        os.killpg(process.pid, signal.SIGSTOP)
        if client.hlen("unacked"):
            return
        assert client.llen("peculiar"), "the worker was done before it could be killed"
        os.killpg(process.pid, signal.SIGCONT)


def test_sigterm_ends_a_worker_between_two_batches(
    survey: Any, together: Any, postgres_url: str, redis_url: str, until: Any
) -> None:
    together.run("score", survey.folder / "night", "--no-wait")
    worker = together.start("worker")
    scored = sa.select(sa.func.count()).select_from(scores)
    until(lambda: one(postgres_url, scored) > 0, what="the first score")
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(timeout=60) == 0, together.logs()
    assert redis.Redis.from_url(redis_url).hlen("unacked") == 0
    together.start("worker")
    going_on = sa.select(sa.func.count()).where(runs.c.ended_at.is_(None))
    until(lambda: one(postgres_url, going_on) == 0, what="the end of the run")
    check_complete(postgres_url, survey.folder)


def test_a_night_started_twice_is_one_run(survey: Any, together: Any, postgres_url: str) -> None:
    together.start("worker")
    first = together.json("nightly", survey.folder / "night", "--night", "2026-03-01")
    again = together.json("nightly", survey.folder / "night", "--night", "2026-03-01")
    assert (first["new"], again["new"]) == (N_SPECTRA + N_CUTOUTS + len(BAD), 0)
    assert first["run"] == again["run"]
    check_complete(postgres_url, survey.folder)


def test_waiting_without_a_worker_says_so(survey: Any, together: Any, until: Any) -> None:
    waiting = together.start("score", survey.folder / "night" / "spectrum")
    until(lambda: "no worker answers" in together.logs(), what="the remark that no worker answers")
    assert waiting.poll() is None
    together.start("worker")
    assert waiting.wait(timeout=120) == 0, together.logs()


def test_the_scheduler_starts_and_stops(together: Any, survey: Any, until: Any) -> None:
    together.settings["PECULIAR_DATA_ROOTS"] = str(survey.folder / "night")
    beat = together.start("beat")
    until(lambda: "beat: Starting" in together.logs(), what="the scheduler")
    os.kill(beat.pid, signal.SIGTERM)
    assert beat.wait(timeout=30) == 0, together.logs()
    assert not [path for path in together.folder.iterdir() if path.name.startswith("celerybeat")]
