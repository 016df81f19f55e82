"""Training a bundle: how objects are split, what is refused and in which words, what survives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import training
from models.batch import CutoutBatch, SpectrumBatch
from models.bundle import Bundle
from models.fit import SMALLEST, fingerprint, fit_cutouts, fit_spectra, split
from models.scorer import Scorer


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few epochs: nothing here is about how good the fit is."""
    monkeypatch.setattr(training, "LINEAR_EPOCHS", 1)


def train(batch: SpectrumBatch | CutoutBatch, **options: Any) -> Bundle:
    options = {"fingerprint": "f", **options}
    if isinstance(batch, SpectrumBatch):
        return fit_spectra(batch, "test", **options)
    return fit_cutouts([batch], ("g", "i"), "test", **options)


def scorer(bundle: Bundle, tmp_path: Path) -> Scorer:
    return Scorer.from_bundle(bundle.save(tmp_path), "cpu")


@pytest.mark.parametrize("n", [20, 60, 499, 500, 5000])
def test_a_split_is_random_and_complete(n: int) -> None:
    part = split(n, seed=3)
    together = np.concatenate([part.train, part.calibration])
    if n >= 500:  # a held-out set of its own
        together = np.concatenate([together, part.held_out])
    else:
        np.testing.assert_array_equal(part.held_out, part.calibration)
    np.testing.assert_array_equal(np.sort(together), np.arange(n))
    assert len(part.calibration) >= max(6, 0.19 * n)
    # an ordered split would ruin the p-values of a set sorted by anything
    assert abs(part.calibration.mean() - (n - 1) / 2) < 4 * n / np.sqrt(12 * len(part.calibration))
    np.testing.assert_array_equal(split(n, seed=3).calibration, part.calibration)
    assert not np.array_equal(split(n, seed=4).calibration, part.calibration)


@pytest.mark.parametrize("kind", ["spectrum", "cutout"])
@pytest.mark.parametrize("n", [0, 1, SMALLEST - 1])
def test_too_few_objects_are_told_how_many_it_takes(kind: str, n: int, draw: Any) -> None:
    with pytest.raises(ValueError, match=f"at least {SMALLEST} objects, got {n}"):
        train(draw(kind, n, 1))


@pytest.mark.parametrize("kind", ["spectrum", "cutout"])
def test_the_smallest_set_makes_a_bundle(kind: str, draw: Any, tmp_path: Path) -> None:
    bundle = train(draw(kind, SMALLEST, 1))
    assert not bundle.spec["network"]["has_networks"]
    scores = scorer(bundle, tmp_path).score(draw(kind, 10, 2))
    assert np.isfinite(scores.score).all() and (scores.p_value >= 1 / 7).all()


def equal(batch: Any) -> Any:
    batch.flux[:], batch.ivar[:] = batch.flux[0], batch.ivar[0]
    if batch.kind == "spectrum":
        batch.redshift[:] = 0.01
    return batch


def with_flux(value: float) -> Callable[[Any], Any]:
    def change(batch: Any) -> Any:
        batch.flux[:] = value
        return batch

    return change


def unmeasured(batch: Any) -> Any:
    batch.ivar[:] = 0
    return batch


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("spectrum", equal, "all the same"),
        ("cutout", equal, "all the same"),
        ("spectrum", with_flux(0.0), "zero everywhere"),
        ("cutout", with_flux(0.0), "all the same"),
        ("spectrum", unmeasured, "share no wavelengths"),
        ("cutout", unmeasured, "no training cutout has a measured pixel"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_sets_that_no_density_can_be_fitted_to_are_refused(
    kind: str, change: Any, message: str, draw: Any
) -> None:
    with pytest.raises(ValueError, match=message):
        train(change(draw(kind, 40, 1)))


def some_unmeasured(batch: Any) -> None:
    batch.ivar[::4] = 0


def hot(batch: Any) -> None:
    batch.flux[3, ..., 7] = -1e30
    batch.ivar[3, ..., 7] = batch.ivar.max()


def tiny_units(batch: Any) -> None:
    batch.flux *= 1e-17
    batch.ivar *= 1e34


def far_apart(batch: Any) -> None:
    if batch.kind == "spectrum":
        batch.redshift[::2] = np.linspace(0, 6, len(batch.redshift[::2]))


def negative(batch: Any) -> None:
    batch.flux *= -1


@pytest.mark.parametrize("kind", ["spectrum", "cutout"])
@pytest.mark.parametrize("change", [some_unmeasured, hot, tiny_units, far_apart, negative])
def test_odd_sets_still_make_a_sound_bundle(kind: str, change: Any, draw: Any, tmp_path: Path) -> None:
    batch = draw(kind, 50, 1)
    change(batch)
    bundle = train(batch)
    assert [name for name, array in bundle.arrays.items() if not np.isfinite(array).all()] == []
    scores = scorer(bundle, tmp_path).score(draw(kind, 10, 2))
    assert np.isfinite(scores.score).all()


def test_a_filled_image_with_a_hot_pixel_can_be_learned(tmp_path: Path) -> None:
    """The linear stretch has no arcsinh to tame it."""
    flux = np.random.default_rng(0).uniform(0, 1, (40, 2, 24, 24)).astype(np.float32)
    flux[3, 0, 5, 5] = 1e30
    bundle = train(CutoutBatch(flux, np.full_like(flux, 1e4)))
    assert bundle.spec["preprocessing"]["stretch"] == "linear"
    assert all(np.isfinite(array).all() for array in bundle.arrays.values())


@pytest.mark.parametrize("side", [1, 2, 5, 12])
def test_small_cutouts_can_be_learned(side: int, cutouts: Any, tmp_path: Path) -> None:
    scores = scorer(train(cutouts(40, 1, side)), tmp_path).score(cutouts(5, 2, side))
    assert np.isfinite(scores.score).all()


def test_small_cutouts_may_have_a_network(cutouts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "MIN_FOR_NETWORK", 10)
    assert "held_out_network_elbo" in train(cutouts(40, 1, 10), epochs=2).spec["held_out"]


def test_cutouts_of_several_sizes_are_one_set(cutouts: Any, bands: Any, tmp_path: Path) -> None:
    sizes = [cutouts(20, 1, 20), cutouts(5, 2, 15), cutouts(15, 3, 24)]
    bundle = fit_cutouts(sizes, bands, "test", fingerprint="f")
    assert bundle.spec["training"]["n_train"] + bundle.spec["training"]["n_calibration"] == 40
    assert bundle.spec["preprocessing"]["size"] in (20, 24)
    assert np.isfinite(scorer(bundle, tmp_path).score(cutouts(3, 4, 33)).score).all()


@pytest.mark.parametrize("kind", ["spectrum", "cutout"])
def test_a_seed_decides_everything(kind: str, draw: Any) -> None:
    a, b, other = (train(draw(kind, 40, 1), seed=seed) for seed in (0, 0, 1))
    for name, array in a.arrays.items():
        np.testing.assert_array_equal(array, b.arrays[name], err_msg=name)
    assert not np.array_equal(a.arrays["vae.mean"], other.arrays["vae.mean"])


class Interrupted(Exception):
    """What the test's progress raises."""


def test_an_interrupted_training_gives_the_same_bundle(spectra: Any, tmp_path: Path) -> None:
    checkpoint = tmp_path / ".test.checkpoint"
    stages: list[tuple[str, int]] = []

    def interrupt(stage: str, done: int, *_: Any) -> None:
        if done == 20:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(spectra(40, 1), checkpoint=checkpoint, progress=interrupt)
    assert checkpoint.exists()
    resumed = train(
        spectra(40, 1), checkpoint=checkpoint, progress=lambda s, done, *_: stages.append((s, done))
    )
    assert stages[0] == ("linear", 20)
    assert list(tmp_path.iterdir()) == []  # nothing is left to resume
    for name, array in train(spectra(40, 1)).arrays.items():
        np.testing.assert_array_equal(resumed.arrays[name], array, err_msg=name)


def test_the_network_goes_on_after_an_interruption_too(
    spectra: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "MIN_FOR_NETWORK", 10)
    checkpoint = tmp_path / ".test.checkpoint"
    stages: list[tuple[str, int]] = []

    def interrupt(stage: str, done: int, *_: Any) -> None:
        if (stage, done) == ("network", 2):
            raise Interrupted

    with pytest.raises(Interrupted):
        train(spectra(40, 1), epochs=3, checkpoint=checkpoint, progress=interrupt)
    train(
        spectra(40, 1), epochs=3, checkpoint=checkpoint, progress=lambda s, done, *_: stages.append((s, done))
    )
    assert stages == [("network", 2), ("network", 3)]


def test_the_bundle_says_how_it_was_made(bundles: dict[str, Bundle]) -> None:
    spec = bundles["spectrum"].spec
    assert spec["training"] == {
        "fingerprint": "1", "seed": 0, "epochs": 1, "n_train": 504, "n_held_out": 72, "n_calibration": 144,
    }  # fmt: skip
    assert spec["held_out"]["smallest_p"] == 1 / 145
    assert "held_out_network_elbo" in spec["held_out"]  # a network was tried, whatever came of it
    assert "held_out_network_elbo" not in bundles["small"].spec["held_out"]
    assert spec["versions"]["torch"] == torch.__version__


def test_held_out_chi2_is_about_one_at_any_brightness(bundles: dict[str, Bundle]) -> None:
    for name in ("spectrum", "cutout"):
        assert bundles[name].spec["held_out"]["chi2_by_snr_third"] == pytest.approx([1, 1, 1], abs=0.35)


def test_a_fingerprint_does_not_depend_on_order() -> None:
    assert fingerprint(["a", "b"]) == fingerprint(["b", "a"]) != fingerprint(["a", "c"])
