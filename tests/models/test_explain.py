"""Explanations point at what was planted."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch

from models import training
from models.batch import CutoutBatch, SpectrumBatch
from models.cutouts import CutoutPreprocessing
from models.explain import explain, likelihood_regret
from models.fit import fit_cutouts
from models.parts import _worst_window
from models.scorer import Scorer
from models.windows import ImageWindow, windows_of, worst_windows


def test_a_planted_line_is_named(scorers: dict[str, Scorer], spectra: Any) -> None:
    """Excess light at the bin of Hδ, moved to a redshift of 0.05."""
    batch = spectra(1, 5)
    batch.redshift[:] = 0.05
    pixel = round(1e4 * np.log10(4102.9 * 1.05)) - 36000
    batch.ivar[0, pixel - 4 : pixel + 8] = batch.ivar.max()
    batch.flux[0, pixel - 2 : pixel + 3] += 100 / np.sqrt(batch.ivar.max())
    explanation = explain(scorers["small"], batch)
    worst = explanation.windows[0]
    assert worst.significance > 10 and worst.line == "Hδ"
    assert worst.low - 2 < 4102.9 < worst.high + 2
    shape = scorers["small"].preprocessing.shape
    assert explanation.expected.shape == explanation.residual.shape == explanation.flux.shape == shape
    assert np.isnan(explanation.flux[explanation.residual == 0]).any()
    assert sum(explanation.shares.values()) == pytest.approx(1)


def test_a_planted_blob_is_located(scorers: dict[str, Scorer], cutouts: Any, bands: Any) -> None:
    """Up and to the right of the centre: with north up and east left, north-west."""
    batch = cutouts(1, 5)
    batch.flux[0, 1, 18:21, 18:21] += 60
    worst = explain(scorers["cutout"], batch).windows[0]
    assert worst.band == bands[1] and worst.significance > 5
    assert (worst.row, worst.column) == pytest.approx((19, 19), abs=2)
    assert worst.position_angle == pytest.approx(315, abs=15)
    assert worst.radius == pytest.approx(7.5 * np.sqrt(2), abs=2)


def test_windows_do_not_overlap_and_the_worst_is_the_parts() -> None:
    residual = 5 * np.random.default_rng(0).normal(size=300)
    seen = np.random.default_rng(1).random(300) > 0.1
    residual[~seen] = 0
    (windows,) = worst_windows(residual[None], seen[None], (1, 300))
    spans = sorted((start, start + length) for _, _, (start,), length in windows)
    assert len(windows) == 5
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    part = _worst_window(*(torch.from_numpy(a.astype(np.float32))[None] for a in (residual, seen)), (1, 300))
    assert abs(windows[0][0]) == pytest.approx(float(part))


@pytest.mark.parametrize("shape", [(1, 40), (2, 7, 9), (1, 12, 12)])
def test_the_worst_windows_are_those_of_brute_force(shape: tuple[int, ...]) -> None:
    """Every window of every length, the worst first, each that overlaps none before it in its channel."""
    rng = np.random.default_rng(2)
    residual, seen = 4 * rng.normal(size=shape), rng.random(shape) > 0.2
    residual[~seen] = 0
    every = []
    length = 1
    while length <= min(*shape[1:], 64 if len(shape) == 2 else 8):
        places = product(range(shape[0]), *(range(side - length + 1) for side in shape[1:]))
        for channel, *start in places:
            window = (channel, *(slice(k, k + length) for k in start))
            value = residual[window].sum() / np.sqrt(max(1, seen[window].sum()))
            every.append((value, channel, tuple(start), length))
        length *= 2
    expected: list[Any] = []
    for new in sorted(every, key=lambda w: -abs(w[0])):
        free = all(
            new[1] != old[1]
            or any(a + new[3] <= b or b + old[3] <= a for a, b in zip(new[2], old[2], strict=True))
            for old in expected
        )
        if free and abs(new[0]) >= 4 and len(expected) < 5:
            expected.append(new)
    (found,) = worst_windows(residual.reshape(1, -1), seen.reshape(1, -1), shape)
    assert [w[1:] for w in found] == [w[1:] for w in expected]
    assert [w[0] for w in found] == pytest.approx([w[0] for w in expected], rel=1e-5)


@pytest.mark.parametrize("coarse", [1, 2])
def test_windows_are_located_in_pixels_of_the_image(coarse: int) -> None:
    """A 4 × 4 block of the image of 16 × 16, in the upper left quarter, seen by a density model of 16 or 8."""
    preprocessing = CutoutPreprocessing(("g", "r"), 16, 1, coarse, "asinh", 1.0, 1.0)
    block = np.zeros((2, 16, 16))
    block[1, 10:14, 2:6] = 3 * coarse  # Σ / √n keeps its significance when pixels are summed
    residual = block[:, ::coarse, ::coarse].ravel()
    ((window,),) = windows_of(
        residual.reshape(1, -1), np.ones((1, residual.size), bool), preprocessing, np.zeros(1)
    )
    assert isinstance(window, ImageWindow)
    assert window.band == "r" and window.size == 4 and window.significance == pytest.approx(12)
    assert (window.row, window.column) == pytest.approx((11.5, 3.5), abs=0.5)
    up, left = 11.5 - 7.5, 7.5 - 3.5
    assert window.radius == pytest.approx(np.hypot(up, left))
    assert window.position_angle == pytest.approx(45)


def test_an_explanation_of_a_large_image_has_two_grids(cutouts: Any, bands: Any, monkeypatch: Any) -> None:
    """The image at its own resolution, reconstruction and residual at that of the density model."""
    monkeypatch.setattr(training, "LINEAR_EPOCHS", 1)
    bundle = fit_cutouts([cutouts(30, 1, 40)], bands, "large", fingerprint="f")
    scorer = Scorer.from_parts(bundle, torch.device("cpu"))
    batch = cutouts(1, 2, 40)
    batch.flux[0, 0, 30:34, 10:14] += 100
    batch.ivar[0, 1, 5, 5] = 0
    explanation = explain(scorer, batch)
    assert explanation.flux.shape == (2, 40, 40)
    assert explanation.expected.shape == explanation.residual.shape == (2, 20, 20)
    assert np.isnan(explanation.flux[1, 5, 5])
    worst = explanation.windows[0]
    assert isinstance(worst, ImageWindow) and worst.band == bands[0]
    assert (worst.row, worst.column) == pytest.approx((31.5, 11.5), abs=2)


def test_one_object_at_a_time(scorers: dict[str, Scorer], spectra: Any) -> None:
    with pytest.raises(ValueError, match="one object, this batch has 2"):
        explain(scorers["small"], spectra(2, 1))
    with pytest.raises(ValueError, match="one object, this batch has 2"):
        likelihood_regret(scorers["small"], spectra(2, 1))


@pytest.mark.parametrize("seed", range(3))
def test_an_exact_posterior_has_nothing_to_regret(scorers: dict[str, Scorer], draw: Any, seed: int) -> None:
    linear = [scorer for scorer in scorers.values() if scorer.fitted.model.encoder is None]
    assert linear
    for scorer in linear:
        batch = draw(scorer.kind, 1, seed)
        assert 0 <= likelihood_regret(scorer, batch) < 0.1
        batch.flux[..., ::7] *= 5
        assert 0 <= likelihood_regret(scorer, batch) < 0.1


@pytest.mark.parametrize("kind", ["spectrum", "cutout"])
def test_an_encoder_that_errs_is_regretted(kind: str, bundles: Any, with_networks: Any, draw: Any) -> None:
    """The regret is what the encoder's error costs: with untrained networks the more, the larger their weights."""
    found = []
    for scale in (0.0, 0.05, 0.5):
        bundle = with_networks(bundles[kind], scale)
        found.append(likelihood_regret(Scorer.from_parts(bundle, torch.device("cpu")), draw(kind, 1, 3)))
    assert 0 <= found[0] < 0.1 < found[1] < found[2]


def test_nothing_measured_explains_nothing(scorers: dict[str, Scorer], spectra: Any, cutouts: Any) -> None:
    a, b = spectra(1, 1), cutouts(1, 1)
    empty = (SpectrumBatch(a.flux, 0 * a.ivar, a.first, a.redshift), CutoutBatch(b.flux, 0 * b.ivar))
    for name, batch in zip(("small", "cutout"), empty, strict=True):
        explanation = explain(scorers[name], batch)
        assert np.isnan(explanation.flux).all() and not explanation.residual.any()
        assert all(np.isfinite(share) for share in explanation.shares.values())
