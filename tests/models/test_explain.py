"""Explanations point at what was planted."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from models.batch import CutoutBatch, SpectrumBatch
from models.explain import explain
from models.parts import _worst_window
from models.scorer import Scorer
from models.windows import worst_windows


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
    assert explanation.expected.shape == explanation.residual.shape == explanation.flux.shape
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
    windows = worst_windows(residual, seen, (1, 300))
    spans = sorted((start, start + length) for _, _, (start,), length in windows)
    assert len(windows) == 5
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    part = _worst_window(torch.from_numpy(residual)[None], torch.from_numpy(seen * 1.0)[None], (1, 300))
    assert abs(windows[0][0]) == pytest.approx(float(part))


def test_one_object_at_a_time(scorers: dict[str, Scorer], spectra: Any) -> None:
    with pytest.raises(ValueError, match="one object, this batch has 2"):
        explain(scorers["small"], spectra(2, 1))


def test_nothing_measured_explains_nothing(scorers: dict[str, Scorer], spectra: Any, cutouts: Any) -> None:
    a, b = spectra(1, 1), cutouts(1, 1)
    empty = (SpectrumBatch(a.flux, 0 * a.ivar, a.first, a.redshift), CutoutBatch(b.flux, 0 * b.ivar))
    for name, batch in zip(("small", "cutout"), empty, strict=True):
        explanation = explain(scorers[name], batch)
        assert np.isnan(explanation.flux).all() and not explanation.residual.any()
        assert all(np.isfinite(share) for share in explanation.shares.values())
