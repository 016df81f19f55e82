"""Simulated files, scored through a real worker, and measured against their truth."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from models import metrics, training
from models.metrics import RANKING
from service.catalog.engine import CatalogError, open_catalog
from service.catalog.runs import counts
from service.queue import make_app
from service.settings import Settings
from service.submission import start_run
from workers.embedded import embedded_worker
from workers.evaluation import evaluate, read_truth
from workers.simulate import simulate
from workers.training import train

BASELINES = {"pca-error", "pca-mixture", "isolation-forest", "neighbours"}
NIGHT = date(2026, 3, 1)


@dataclass
class Scored:
    """A catalog in which a simulated night has been scored."""

    settings: Settings
    truth: Path
    training: list[str]
    model: str


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The arrays here are small: threads that wait for each other on busy cores would take far longer than one."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


@pytest.fixture(autouse=True)
def few_resamplings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about how exact an interval is."""
    monkeypatch.setattr(metrics, "N_BOOTSTRAP", 10)


@pytest.fixture(scope="module", params=["spectrum", "cutout"])
def scored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """60 training files; a night of 50 with 10 anomalies, one file of which is broken before it is scored."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = Settings(
        _env_file=None, database_url=f"sqlite:///{folder}/catalog.db", broker_url="memory://",
        model_dir=folder / "models", device="cpu",
    )  # fmt: skip
    paths = [row["path"] for row in read_truth(simulate(request.param, 60, folder / "training", seed=1))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "LINEAR_EPOCHS", 2)  # enough to tell the planted anomalies
        model = train(settings, request.param, paths, "sim").bundle.id
    truth = simulate(request.param, 50, folder / "night", seed=2, anomaly_rate=0.2)
    night = read_truth(truth)
    Path(next(row["path"] for row in night if row["is_anomaly"] == "1")).write_bytes(b"broken")
    engine, app = open_catalog(settings.database_url), make_app(settings)
    with embedded_worker(app, settings) as worker:
        run = start_run(
            settings, engine, app, [row["path"] for row in night], {request.param: model}, NIGHT
        ).run
        end = time.monotonic() + 120
        while counts(engine, run)["queued"] and time.monotonic() < end:
            worker.check()
            time.sleep(0.05)
    assert (counts(engine, run)["scored"], counts(engine, run)["failed"]) == (49, 1)
    engine.dispose()
    return Scored(settings, truth, paths, model)


def test_every_method_is_measured_on_the_same_files(scored: Scored) -> None:
    result = evaluate(scored.settings, scored.truth)
    assert (result.model, result.n_normal, result.n_anomalous, result.n_unscored) == (scored.model, 40, 10, 1)
    assert next(iter(result.methods)) == "peculiar"
    assert set(result.methods) > BASELINES
    assert {"· misfit", "· rarity", "· domain"} < set(result.methods)
    for figures in result.methods.values():
        assert figures.keys() == RANKING.keys()
        assert all(0 <= f.low <= f.high <= 1 and 0 <= f.value <= 1 for f in figures.values())
    assert result.methods["peculiar"]["auroc"].value > 0.6
    assert result.baselines_fitted_on == "the evaluated files"


def test_anomalies_are_broken_down_by_class(scored: Scored) -> None:
    result = evaluate(scored.settings, scored.truth)
    with scored.truth.open(newline="") as file:
        classes = {row["class"] for row in csv.DictReader(file) if row["is_anomaly"] == "1"}
    assert set(result.classes) == classes
    assert all(figures.keys() == result.methods.keys() for figures in result.classes.values())


def test_false_positives_are_of_scored_normal_objects_by_third(scored: Scored) -> None:
    result = evaluate(scored.settings, scored.truth)
    expected = {"S/N", "redshift"} if result.kind == "spectrum" else {"S/N"}
    assert set(result.false_positives) == expected
    for rows in result.false_positives.values():
        assert {row.third for row in rows} == {"low", "middle", "high"}
        assert sum(row.n for row in rows if row.alpha == 0.05) == 40
    assert 0 <= result.n_discoveries <= 49 and 0 <= result.false_discovery.value <= 1


def test_a_file_without_a_score_is_never_found(scored: Scored, tmp_path: Path) -> None:
    """With the broken file as the only anomaly, nothing finds it."""
    rows = read_truth(scored.truth)
    broken = next(row for row in rows if row["is_anomaly"] == "1")
    truth = write_truth(tmp_path, [broken, *(row for row in rows if row["is_anomaly"] == "0")])
    result = evaluate(scored.settings, truth)
    assert result.n_unscored == 1
    assert [figures["auroc"].value for figures in result.methods.values()] == [0] * len(result.methods)


def test_baselines_may_learn_from_other_files(scored: Scored) -> None:
    result = evaluate(scored.settings, scored.truth, train_paths=scored.training)
    assert result.baselines_fitted_on == "60 training files"
    own = evaluate(scored.settings, scored.truth)
    assert result.methods["peculiar"] == own.methods["peculiar"]
    assert any(result.methods[name] != own.methods[name] for name in BASELINES)


def test_a_model_is_chosen_by_name_or_id(scored: Scored) -> None:
    assert evaluate(scored.settings, scored.truth, "sim").model == scored.model
    assert evaluate(scored.settings, scored.truth, scored.model).model == scored.model
    with pytest.raises(CatalogError, match="no model is called 'other'"):
        evaluate(scored.settings, scored.truth, "other")


def test_nothing_scored_says_what_to_do(scored: Scored, tmp_path: Path) -> None:
    truth = write_truth(tmp_path, [{"path": "elsewhere.fits", "is_anomaly": "1"}])
    with pytest.raises(ValueError, match="run `peculiar score` on them first"):
        evaluate(scored.settings, truth)


@pytest.mark.parametrize("value", ["0", "1"])
@pytest.mark.filterwarnings("error::sklearn.exceptions.UndefinedMetricWarning")
def test_one_class_cannot_be_measured(value: str, scored: Scored, tmp_path: Path) -> None:
    rows = [row for row in read_truth(scored.truth) if row["is_anomaly"] == value]
    with pytest.raises(ValueError, match="normal and anomalous"):
        evaluate(scored.settings, write_truth(tmp_path, rows))


def test_baselines_without_files_are_refused_in_words(scored: Scored) -> None:
    with pytest.raises(
        ValueError, match=r"none of the files for the baselines holds a \w+ that the model takes"
    ):
        evaluate(scored.settings, scored.truth, train_paths=["/nowhere.fits"])


def write_truth(folder: Path, rows: list[dict[str, str]]) -> Path:
    path = folder / "truth.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "is_anomaly", "class"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs the columns path, is_anomaly"),
        ("path,is_anomaly\n", "needs the columns path, is_anomaly"),
        ("file,is_anomaly\na,1\n", "needs the columns path, is_anomaly"),
        ("path,is_anomaly\na,1\nb,yes\n", "line 3: is_anomaly must be 0 or 1, it is 'yes'"),
        ("path,is_anomaly\na\n", "line 2: is_anomaly must be 0 or 1"),
        ("is_anomaly,path\n1\n", "line 2: there is no path"),
    ],
)
def test_a_malformed_truth_table_is_explained(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_truth(tmp_path / "truth.csv")


def test_paths_of_a_truth_table_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("path,is_anomaly\na.fits,1\n/data/b.fits,0\n")
    rows: list[Any] = read_truth(tmp_path / "truth.csv")
    assert [row["path"] for row in rows] == [str(tmp_path / "a.fits"), "/data/b.fits"]
    assert np.array_equal([row["is_anomaly"] for row in rows], ["1", "0"])
