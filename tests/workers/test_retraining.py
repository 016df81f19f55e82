"""A model of the last nights replaces the one in force where it is no worse, and only there."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch

from models import training as linear_training
from models.batch import SpectrumBatch
from service.catalog.engine import CatalogError, open_catalog
from service.catalog.labels import Label, record_labels
from service.catalog.registry import models_in_force
from service.catalog.runs import open_run
from service.catalog.schema import models, objects
from service.queue import Manifest
from service.settings import Settings
from workers.pipeline import score_manifest
from workers.readers.sample import Spectrum
from workers.retraining import compare, divide, retrain
from workers.simulate import simulate
from workers.tasks import load_bundle
from workers.training import LABELLED, train

N = 100


@dataclass
class Judged:
    """A scorer with the figures that a test wants."""

    chi2: np.ndarray
    p_value: np.ndarray
    id: str = "x@1"
    kind: str = "spectrum"
    calibration: Any = field(default_factory=lambda: SimpleNamespace(smallest_p=1 / 501))

    def score(self, batch: SpectrumBatch) -> Any:
        if not len(self.chi2):
            raise ValueError("not for this model")
        return SimpleNamespace(chi2=self.chi2[: len(batch)], p_value=self.p_value[: len(batch)])


def spectra(n: int) -> list[Any]:
    flux = np.ones(5, np.float32)
    return [Spectrum(f"/{i}", "sim", f"{i}", f"{i}", flux, flux, redshift=0.1) for i in range(n)]


@pytest.mark.parametrize(
    ("worsen", "ranks", "no_worse"),
    [(0.0, 1.0, True), (-0.2, 1.0, True), (0.3, 1.0, False), (0.0, 3.0, False)],
    ids=["as good", "better", "χ² further from 1", "p-values too small"],
)
def test_no_worse_is_judged_on_the_same_objects(worsen: float, ranks: float, no_worse: bool) -> None:
    n, random = 200, np.random.default_rng(0)
    chi2 = np.exp(random.normal(0.25, 0.1, n))
    p_value = np.linspace(1 / n, 1, n)
    verdict = compare(
        Judged(chi2 * np.exp(worsen), p_value**ranks),  # type: ignore[arg-type]
        Judged(chi2, p_value),  # type: ignore[arg-type]
        spectra(n),
    )
    assert (verdict.n, verdict.no_worse) == (n, no_worse), verdict


def test_chance_does_not_decide() -> None:
    n, random = 200, np.random.default_rng(1)
    p_value = np.linspace(1 / n, 1, n)
    passed = 0
    for _ in range(50):
        chi2, other = np.exp(random.normal(0, 0.2, (2, n)))
        passed += compare(Judged(chi2, p_value), Judged(other, p_value), spectra(n)).no_worse  # type: ignore[arg-type]
    assert 30 <= passed <= 50  # one standard error lets five in six of equal models pass


def test_a_model_that_takes_none_of_the_files_cannot_judge() -> None:
    ones = np.ones(30)
    with pytest.raises(ValueError, match="takes none of the held-out files"):
        compare(Judged(ones, ones), Judged(np.empty(0), np.empty(0)), spectra(30))  # type: ignore[arg-type]


def test_held_out_files_are_not_trained_on() -> None:
    paths = [f"/{i}" for i in range(1000)]
    held_out, rest = divide(paths, 300, 0)
    assert (len(held_out), len(rest)) == (100, 300) and not set(held_out) & set(rest)
    assert divide(paths, 300, 0) == (held_out, rest) != divide(paths, 300, 1)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch: nothing here is about how good the fit is."""
    monkeypatch.setattr(linear_training, "LINEAR_EPOCHS", 1)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("night")
    with simulate("spectrum", N, folder, seed=5, anomaly_rate=0).open() as file:
        return [str(Path(folder) / row["path"]) for row in csv.DictReader(file)]


def test_retraining_on_what_the_catalog_knows(night: list[str], settings: Settings) -> None:
    with pytest.raises(CatalogError):
        retrain(settings, "spectrum", 30, 1000)
    first = train(settings, "spectrum", night[:40], "sim", epochs=0).bundle.id
    engine = open_catalog(settings.database_url)
    with pytest.raises(CatalogError, match="hold 0 usable files"):
        retrain(settings, "spectrum", 30, 1000)
    score(engine, settings, night, first)
    labelled = sa.select(objects.c.object_id).limit(3)
    with engine.connect() as connection:
        record_labels(engine, [Label(i, "artefact", "ann") for i in connection.scalars(labelled)])
    steps: list[str] = []
    done = retrain(settings, "spectrum", 30, 1000, epochs=0, report=lambda s, *_: steps.append(s), by="cron")
    assert done.verdict is not None and 15 <= done.verdict.n <= 20
    new = done.trained.bundle.id
    assert new != first and done.in_force == (new if done.verdict.no_worse else first)
    assert models_in_force(engine) == {"spectrum": done.in_force}
    assert done.trained.n_inputs == N - 20 and 0 < done.trained.left_out[LABELLED] <= 3


def test_labelled_objects_are_left_out_of_training(night: list[str], settings: Settings) -> None:
    first = train(settings, "spectrum", night[:40], "sim", epochs=0)
    engine = open_catalog(settings.database_url)
    score(engine, settings, night[:5], first.bundle.id)
    with engine.connect() as connection:
        ids = list(connection.scalars(sa.select(objects.c.object_id).order_by(objects.c.id)))
    said = zip(ids, ("lens", "artefact", "ordinary", "not-lens", "interesting"), strict=True)
    record_labels(engine, [Label(object_id, label, "ann") for object_id, label in said])
    record_labels(engine, [Label(ids[0], "ordinary", "ann")])  # she has changed her mind
    again = train(settings, "spectrum", night[:40], "sim", epochs=0)
    assert again.left_out == {LABELLED: 2}
    training = again.bundle.spec["training"]
    assert training["n_train"] + training["n_calibration"] == 38
    with engine.connect() as connection:
        learnt = connection.execute(sa.select(models.c.reference)).scalars().first()
    assert learnt["rejected"] == 0 and len(learnt["edges"][0]) == 9


def score(engine: sa.Engine, settings: Settings, paths: list[str], model: str) -> None:
    run = open_run(engine, f"{len(paths)}", "all", "2026-03-01", {"spectrum": model})
    manifest = Manifest(run=run, night=date(2026, 3, 1), models={"spectrum": model}, paths=paths)
    score_manifest(engine, manifest, lambda name: load_bundle(settings, name))
