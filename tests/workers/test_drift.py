"""A broken night is told from an ordinary one, through files, model, catalog and lists."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from astropy.io import fits
from click.testing import CliRunner

from models import training as linear_training
from service.catalog import drift
from service.catalog.engine import open_catalog
from service.catalog.queries import one_run
from service.catalog.ranking import INSTRUMENT, Filters, outliers
from service.catalog.runs import add_inputs, finish_if_complete, open_run
from service.queue import Manifest
from service.settings import Settings
from service.submission import file_state
from workers.pipeline import score_manifest
from workers.simulate import simulate
from workers.tasks import load_bundle
from workers.training import train

N_TRAIN, N_NIGHT = 120, 40


def invert(table: Any) -> None:
    table["flux"] *= -1


def bad_sky(table: Any) -> None:
    table["flux"][::20] += 20 / np.sqrt(np.median(table["ivar"][table["ivar"] > 0]))


def wrong_response(table: Any) -> None:
    """The flux calibration of the blue arm is off by a factor of four."""
    table["flux"] *= np.linspace(0.25, 1, len(table["flux"]))


BROKEN = {"inverted": invert, "sky": bad_sky, "response": wrong_response}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Files to train on, and nights: two ordinary ones, and the first of them broken in several ways."""
    folder = tmp_path_factory.mktemp("nights")
    found = {}
    for name, n, seed in (("train", N_TRAIN, 1), ("ordinary", N_NIGHT, 2), ("another", N_NIGHT, 3)):
        with simulate("spectrum", n, folder / name, seed=seed, anomaly_rate=0.02).open() as file:
            found[name] = [str(folder / name / row["path"]) for row in csv.DictReader(file)]
    for name, change in BROKEN.items():
        found[name] = [broken(path, folder / name, change) for path in found["ordinary"]]
    return found


def broken(path: str, folder: Path, change: Callable[[Any], None]) -> str:
    folder.mkdir(exist_ok=True)
    with fits.open(path) as hdus:
        change(hdus[1].data)
        hdus.writeto(folder / Path(path).name)
    return str(folder / Path(path).name)


@pytest.fixture(scope="module")
def nights(
    tmp_path_factory: pytest.TempPathFactory, paths: dict[str, list[str]]
) -> tuple[sa.Engine, dict[str, int]]:
    """A catalog in which each night was scored, and the runs' ids."""
    folder = tmp_path_factory.mktemp("catalog")
    settings = Settings(
        _env_file=None, database_url=f"sqlite:///{folder}/c.db", model_dir=folder / "m", device="cpu"
    )
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_training, "LINEAR_EPOCHS", 1)
        model = train(settings, "spectrum", paths["train"], "sim", epochs=0).bundle.id
    engine, scorer = open_catalog(settings.database_url), load_bundle(settings, model)
    runs = {}
    for name in ("ordinary", "another", *BROKEN):
        runs[name] = open_run(engine, name, "all", "2026-03-01", {"spectrum": model})
        add_inputs(engine, runs[name], map(file_state, paths[name]))
        manifest = Manifest(
            run=runs[name], night=date(2026, 3, 1), models={"spectrum": model}, paths=paths[name]
        )
        score_manifest(engine, manifest, lambda _: scorer)
    return engine, runs


def test_broken_nights_are_flagged_and_ordinary_ones_are_not(nights: Any) -> None:
    engine, runs = nights
    flagged = drift.flagged(engine)
    assert set(flagged) == {runs[name] for name in BROKEN}, {
        name: dict(row) for name, row in figures(engine, runs).items()
    }
    assert "from uniform" in str(flagged[runs["inverted"]])
    assert one_run(engine, runs["inverted"])["problems"] == flagged[runs["inverted"]]
    assert one_run(engine, runs["ordinary"])["problems"] == {}


def figures(engine: sa.Engine, runs: dict[str, int]) -> dict[str, Any]:
    with engine.connect() as connection:
        wanted = {row.run_id: row.figures for row in connection.execute(sa.select(drift.drift))}
    return {name: wanted[run] for name, run in runs.items()}


def test_discoveries_of_flagged_runs_are_withheld(nights: Any) -> None:
    engine, runs = nights
    rows = outliers(engine, Filters(), 1000).rows
    assert len(rows) == N_NIGHT * (2 + len(BROKEN))
    marked = [row for row in rows if INSTRUMENT in row["flags"].split(",")]
    assert len(marked) == N_NIGHT * len(BROKEN)
    assert {Path(row["path"]).parent.name for row in marked} == set(BROKEN)
    assert len(outliers(engine, Filters(q=1.0), 1000).rows) == 2 * N_NIGHT
    assert len(outliers(engine, Filters(q=1.0, flagged=True), 1000).rows) == len(rows)
    from service.cli.outliers import command

    env = {"PECULIAR_DATABASE_URL": engine.url.render_as_string()}
    done = CliRunner().invoke(command, ["--fdr", "1", "--limit", "1000", "--json"], env=env)
    assert len(json.loads(done.stdout)) == 2 * N_NIGHT
    assert f"run {runs['sky']} looks like an instrument problem" in done.stderr
    assert "--flagged shows them" in done.stderr


def test_a_night_of_rejected_files_is_flagged(nights: Any, tmp_path: Path) -> None:
    engine, _ = nights
    with engine.connect() as connection:
        model = connection.execute(sa.text("SELECT id FROM models")).scalar_one()
    bad = [tmp_path / f"{i}.fits" for i in range(40)]
    for path in bad:
        path.write_text("no FITS file")
    for n, problem in ((drift.FEWEST - 1, ""), (40, "100% of the inputs were rejected")):
        run = open_run(engine, f"bad-{n}", "all", "2026-03-02", {"spectrum": model})
        manifest = Manifest(
            run=run, night=date(2026, 3, 2), models={"spectrum": model}, paths=[str(p) for p in bad[:n]]
        )
        score_manifest(engine, manifest, lambda _: None)  # type: ignore[arg-type,return-value]
        assert finish_if_complete(engine, run)
        assert drift.flagged(engine, [run]).get(run, {}).get(model, "").startswith(problem)
        assert bool(drift.flagged(engine, [run])) == bool(problem)


def test_the_distance_from_uniform() -> None:
    assert drift.largest_gap(np.arange(1, 101) / 100, 0.01) == pytest.approx(0)
    assert drift.largest_gap(np.full(50, 0.01), 0.01) == pytest.approx(0.99)
    assert drift.largest_gap(np.ones(50), 0.01) == pytest.approx(0.99)


def test_limits_keep_their_promise() -> None:
    """Nights like the calibration set: fewer than one in a thousand exceeds a limit, of any size."""
    random = np.random.default_rng(0)
    for n, m in ((30, 100), (200, 100), (1000, 1000)):
        alarms = 0
        for _ in range(300):
            calibration = random.normal(size=(m, 8))
            tonight = random.normal(size=(n, 8))
            ranks = (1 + (calibration[:, :1] >= tonight[None, :, 0]).sum(0)) / (m + 1)
            learnt = drift.reference(calibration, 0.0)
            alarms += drift.largest_gap(ranks, 1 / (m + 1)) > drift.widest_gap(n, m)
            index = drift.shifts(tonight, np.array(learnt["edges"]))
            alarms += index.max() > drift.widest_shift(n, m, 8)
        assert alarms <= 2, (n, m)
