"""The Virtual Observatory's own tools against `peculiar serve`: STILTS, which validates, and PyVO."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from os import environ
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.catalog.engine import open_catalog
from service.catalog.registry import register_model
from service.catalog.rows import ModelRow, ScoredRow
from service.catalog.runs import finish_if_complete, open_run
from service.catalog.writer import write_batch
from tests.system.test_serve import ask, free_port

MODEL = "sdss@0123456789ab"
N = 60


@pytest.fixture(scope="module")
def address(
    tmp_path_factory: pytest.TempPathFactory, make_program: Any, kill: Any, until: Callable[..., Any]
) -> Iterator[str]:
    """The URL of a service with some spectra."""
    folder = tmp_path_factory.mktemp("vo")
    engine = open_catalog(f"sqlite:///{folder}/peculiar.db", create=True)
    register_model(engine, ModelRow(MODEL, "sdss", "spectrum", "/models/sdss", 800, 0.005, [0.5, 0.3, 0.2]))
    run = open_run(engine, "night", "sdss", "2026-03-01", {"spectrum": MODEL})
    write_batch(engine, run, [spectrum(i) for i in range(N)], [])
    finish_if_complete(engine, run)
    engine.dispose()
    program = make_program(folder, rate_limit="1000000")
    port = free_port()
    process = program.start("serve", "--port", port)
    until(lambda: process.poll() is not None or ask(port, "/health") == 200, what="the API")
    yield f"http://127.0.0.1:{port}/vo"
    kill(process)
    assert "Traceback" not in program.logs(), program.logs()


def spectrum(i: int) -> ScoredRow:
    return ScoredRow(
        kind="spectrum", survey="sdss", object_id=f"0266-51602-{i:04d}", path=f"/data/{i}.fits", sha256=f"{i:064x}",
        ra=(350 + i / 3) % 360, dec=i / 10, night="2026-03-01", redshift=0.1, spectral_class="GALAXY", zwarning=0,
        reader_flags=set(), model=MODEL, elbo=-1.0, log_px=-1.0, log_density=-1.0, chi2=1.0, score=float(i),
        p_value=1 / (i + 1), cluster=i % 3, cluster_probability=0.9, snr=10.0, flags=set(), parts={"misfit": 1.0},
        latent=np.zeros(2, np.float32), latent_var=np.ones(2, np.float32), responsibilities=np.ones(3, np.float32) / 3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stilts() -> Callable[..., str]:
    """Runs a task of STILTS; what it wrote."""
    command = shutil.which("stilts")
    if command is None:
        message = "stilts is not installed; `make test` installs it"
        if environ.get("PECULIAR_TEST_SERVICES") == "required":
            pytest.fail(message)
        pytest.skip(message)

    def run(*arguments: object) -> str:
        done = subprocess.run(
            [command, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_taplint_finds_nothing(address: str, stilts: Callable[..., str]) -> None:
    said = stilts("taplint", f"tapurl={address}/tap", "report=EWF")
    assert "Totals: Errors: 0; Warnings: 0;" in said, said
    # What it could not test: uploads, which there are none of, and a data model of observations yet to be made.
    failures = [line.split()[0] for line in said.splitlines() if line.startswith("F-")]
    assert failures == ["F-LOC-NOTP-1", "F-UPL-NOUP-1"], said


def test_stilts_cone_and_votlint(address: str, stilts: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "cone.vot"
    stilts(
        "cone",
        f"serviceurl={address}/cone",
        "lon=0",
        "lat=3",
        "radius=1.5",
        "verb=3",
        f"out={out}",
        "ofmt=votable",
    )
    assert "rows: " in stilts("tpipe", f"in={out}", "omode=count")
    import urllib.request

    query = "SELECT%20TOP%2010%20*%20FROM%20peculiar.scores"
    for path in (
        "/cone?RA=0&DEC=3&SR=2",
        "/cone?RA=0&DEC=3&SR=2&MAXREC=0",
        f"/tap/sync?LANG=ADQL&QUERY={query}",
    ):
        with urllib.request.urlopen(f"{address}{path}", timeout=60) as response:
            out.write_bytes(response.read())
        assert stilts("votlint", "ucd=true", "unit=true", out) == ""


def test_pyvo(address: str) -> None:
    import pyvo

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        near = pyvo.conesearch(f"{address}/cone", pos=(0.0, 3.0), radius=1.0)
        assert sorted(near["object_id"]) == [f"0266-51602-{i:04d}" for i in range(28, 33)]
        service = pyvo.dal.TAPService(f"{address}/tap")
        assert service.available and service.maxrec == 20_000 and service.hardlimit == 200_000
        assert {"peculiar.scores", "peculiar.labels", "TAP_SCHEMA.columns"} <= set(service.tables.keys())
        assert service.tables["peculiar.scores"].columns[0].ucd and len(service.examples) == 6
        found = service.search("SELECT TOP 3 object_id, score FROM peculiar.scores ORDER BY score DESC")
        assert list(found["score"]) == [59.0, 58.0, 57.0]
        assert len(service.search("SELECT * FROM peculiar.scores", maxrec=7)) == 7
        with pytest.raises(pyvo.DALQueryError, match="no column nosuch"):
            service.search("SELECT nosuch FROM peculiar.scores")
        later = service.run_async("SELECT COUNT(*) AS n FROM peculiar.scores")
        assert later["n"][0] == N
        job = service.submit_job("SELECT score FROM peculiar.scores WHERE score < 2")
        job.execution_duration = 100
        job.run().wait(phases=["COMPLETED", "ERROR"], timeout=60)
        assert job.phase == "COMPLETED" and len(job.fetch_result()) == 2
        job.delete()
        failed = service.submit_job("SELECT pg_sleep(100) FROM peculiar.scores")
        failed.run().wait(phases=["COMPLETED", "ERROR"], timeout=60)
        with pytest.raises(pyvo.DALQueryError, match="no function"):
            failed.raise_if_error()
