"""From simulated survey files to a registered bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from models import training as linear_training
from models.bundle import load_bundle
from service.catalog.engine import open_catalog
from service.catalog.registry import list_models
from service.settings import Settings
from workers.evaluation import read_truth
from workers.simulate import simulate
from workers.training import cutout_batches, read_samples, train

N = 30


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Paths of N simulated files, by kind."""
    folder = tmp_path_factory.mktemp("simulated")
    return {
        kind: [row["path"] for row in read_truth(simulate(kind, N, folder / kind, seed=3))]
        for kind in ("spectrum", "cutout")
    }


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few epochs on one thread: nothing here is about how good the fit is."""
    monkeypatch.setattr(linear_training, "LINEAR_EPOCHS", 1)
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", ["spectrum", "cutout"])
def test_files_become_a_registered_bundle(kind: str, files: Any, settings: Settings) -> None:
    steps: list[tuple[str, int, int]] = []
    trained = train(settings, kind, files[kind], "sim", report=lambda *step: steps.append(step))
    (row,) = list_models(open_catalog(settings.database_url))
    assert (row["id"], row["name"], row["kind"]) == (trained.bundle.id, "sim", kind)
    assert load_bundle(Path(row["path"])).id == row["id"]
    assert Path(row["path"]).parent == settings.model_dir
    assert row["smallest_p"] == trained.bundle.spec["held_out"]["smallest_p"]
    assert json.dumps(row["domain"], allow_nan=False) and json.dumps(row["held_out"], allow_nan=False)
    assert (trained.n_inputs, sum(trained.left_out.values())) == (N, 0)
    assert steps[0][0] == "reading" and ("reading", N, N) in steps
    name, done, total = steps[-1]
    assert name == "fitting the linear model" and done == total
    assert [p.name for p in settings.model_dir.iterdir()] == [Path(row["path"]).name]  # no checkpoint is left


def test_what_cannot_be_used_is_left_out_and_counted(files: Any, settings: Settings, tmp_path: Path) -> None:
    bad = tmp_path / "bad.fits"
    bad.write_bytes(b"not a FITS file")
    paths = [*files["spectrum"], str(bad), *files["cutout"][:2]]
    trained = train(settings, "spectrum", paths, "sim")
    assert trained.left_out["a cutout, not a spectrum"] == 2
    assert sum(trained.left_out.values()) == 3
    spec = trained.bundle.spec["training"]
    assert spec["n_train"] + spec["n_calibration"] == N


@pytest.mark.parametrize("kind", ["spectrum", "cutout"])
def test_too_few_usable_files_are_explained(kind: str, files: Any, settings: Settings) -> None:
    other = {"spectrum": "cutout", "cutout": "spectrum"}[kind]
    for paths, reason in (
        (files[kind][:5], "at least 20 objects, got 5"),
        ([], "at least 20 objects, got 0"),
        (files[other][:3], f"got 0 .3 files given, left out: 3 × a {other}, not a {kind}"),
    ):
        with pytest.raises(ValueError, match=reason):
            train(settings, kind, paths, "sim")
    assert list_models(open_catalog(settings.database_url)) == []


def test_copies_of_one_file_are_refused(files: Any, settings: Settings, tmp_path: Path) -> None:
    paths = [shutil.copy(files["spectrum"][0], tmp_path / f"{i}.fits") for i in range(25)]
    with pytest.raises(ValueError, match="all the same"):
        train(settings, "spectrum", [str(p) for p in paths], "sim")


class Interrupted(Exception):
    """What the test's report raises."""


def test_an_interrupted_training_goes_on(files: Any, settings: Settings) -> None:
    def interrupt(stage: str, done: int, _total: int) -> None:
        if stage.startswith("fitting") and done == 20:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(settings, "cutout", files["cutout"], "sim", report=interrupt)
    steps: list[tuple[str, int, int]] = []
    train(settings, "cutout", files["cutout"], "sim", report=lambda *step: steps.append(step))
    assert next(done for stage, done, _ in steps if stage.startswith("fitting")) == 20


def test_other_files_or_options_start_afresh(files: Any, settings: Settings) -> None:
    def interrupt(stage: str, done: int, _total: int) -> None:
        if stage.startswith("fitting") and done == 20:
            raise Interrupted

    for paths, seed in ((files["cutout"][1:], 0), (files["cutout"], 1)):
        with pytest.raises(Interrupted):
            train(settings, "cutout", files["cutout"], "sim", report=interrupt)
        steps: list[tuple[str, int, int]] = []
        train(settings, "cutout", paths, "sim", seed=seed, report=lambda *step, to=steps: to.append(step))
        assert next(done for stage, done, _ in steps if stage.startswith("fitting")) == 1


def test_training_again_makes_another_version(files: Any, settings: Settings) -> None:
    one = train(settings, "cutout", files["cutout"], "sim")
    two = train(settings, "cutout", files["cutout"], "sim", seed=1)
    assert one.bundle.id != two.bundle.id
    assert {m["id"] for m in list_models(open_catalog(settings.database_url))} == {
        one.bundle.id,
        two.bundle.id,
    }


def test_cutouts_are_batched_by_shape_in_their_order(files: Any) -> None:
    samples, _ = read_samples("cutout", files["cutout"][:6])
    for sample in samples[2:4]:
        sample.flux, sample.ivar = sample.flux[:, :50], sample.ivar[:, :50]
    batches = list(cutout_batches(samples))
    assert [b.flux.shape[2] for b in batches] == [64, 50, 64] and [len(b) for b in batches] == [2, 2, 2]
    assert list(cutout_batches([])) == []


def test_cutouts_with_other_bands_are_left_out(files: Any, settings: Settings, monkeypatch: Any) -> None:
    from workers import training

    def fewer_bands(paths: list[str], readers: int, honest: Any = training.read_inputs) -> Any:
        for path, sample in zip(paths, honest(paths), strict=True):
            if path in files["cutout"][:4]:
                sample.flux, sample.ivar, sample.bands = sample.flux[:1], sample.ivar[:1], sample.bands[:1]
            yield sample

    monkeypatch.setattr(training, "read_inputs", fewer_bands)
    trained = train(settings, "cutout", files["cutout"], "sim")
    assert trained.left_out == {"another number of bands than the commonest, 3": 4}
    assert trained.bundle.spec["preprocessing"]["bands"] == ["g", "r", "i"]
