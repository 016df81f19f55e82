"""The parts of the score on residuals whose answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from models.parts import _quietest, _worst_window
from models.scorer import Scorer


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.float64)


def test_the_worst_window_is_the_matched_one() -> None:
    """4 neighbouring bins of 3 σ are 3·4/√4 = 6 σ together; alternating signs cancel."""
    residual = torch.zeros((2, 100), dtype=torch.float64)
    residual[0, 40:44] = 3
    residual[1, 40:44] = torch.tensor([3.0, -3, 3, -3])
    assert _worst_window(residual, ones(2, 100), (1, 100)).tolist() == pytest.approx([6, 3])


def test_the_worst_window_may_be_a_lack_of_light_and_skips_the_unmeasured() -> None:
    residual, weight = torch.zeros((1, 100), dtype=torch.float64), ones(1, 100)
    residual[0, 40:42], residual[0, 43:45] = -5, -5
    weight[0, 42] = 0
    assert _worst_window(residual, weight, (1, 100)).item() == pytest.approx(5 * 4 / math.sqrt(4), rel=0.15)


def test_an_image_window_is_of_one_band() -> None:
    residual = torch.zeros((1, 2, 20, 20), dtype=torch.float64)
    residual[0, 0, 5:8, 5:8], residual[0, 1, 5:8, 5:8] = 2, -2
    assert _worst_window(residual.flatten(1), ones(1, 800), (2, 20, 20)).item() == pytest.approx(2 * 9 / 3)


def test_a_perfect_or_empty_object_has_a_finite_worst_window() -> None:
    nothing = torch.zeros((2, 100), dtype=torch.float64)
    weight = ones(2, 100)
    weight[1] = 0
    assert _worst_window(nothing, weight, (1, 100)).log().isfinite().all()


@pytest.mark.parametrize("shape", [(1, 400), (2, 24, 24)])
def test_quiet_data_scatter_less(shape: tuple[int, ...]) -> None:
    """White noise has a mean square difference of 1; a smoothed patch, less; noise that is too strong, no less."""
    g = torch.Generator().manual_seed(0)
    residual = torch.randn((3, *shape), generator=g, dtype=torch.float64)
    residual[1, 0, ..., :100] *= 0.1
    residual[2] *= 5
    quiet = _quietest(residual.flatten(1), ones(3, math.prod(shape)), shape)
    assert quiet[1] < 0.05 < 0.3 < quiet[0] <= 1
    assert quiet[2] == 1


def test_quiet_needs_half_a_window() -> None:
    """Zeros where nothing was measured are not quiet data."""
    residual, weight = torch.zeros((1, 400), dtype=torch.float64), ones(1, 400)
    weight[0, ::3] = 0  # leaves a third of the neighbouring pairs
    assert _quietest(residual, weight, (1, 400)).item() == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 1, 1), (1, 5, 5), (1, 8, 8)])
def test_tiny_grids_have_parts_too(shape: tuple[int, ...]) -> None:
    residual = torch.full((2, math.prod(shape)), 4.0, dtype=torch.float64)
    assert (_worst_window(residual, ones(2, math.prod(shape)), shape) >= 4).all()
    assert (_quietest(residual, ones(2, math.prod(shape)), shape) <= 1).all()


def planted(kind: str, draw: Any) -> tuple[Any, dict[str, int]]:
    """60 normal objects, then for some parts one that it must rank above nearly all of them."""
    batch = draw(kind, 66, 77)
    sigma = 1 / np.sqrt(np.where(batch.ivar > 0, batch.ivar, np.inf))
    noise = np.random.default_rng(1).normal(size=batch.flux.shape) * sigma
    batch.flux[60] += 3 * noise[60]  # too much noise
    window = np.zeros(batch.flux.shape[1:])
    window[(..., slice(10, 18))] = 1
    batch.flux[61] += 6 * sigma[61] * (window if kind == "spectrum" else window * np.swapaxes(window, 1, 2))
    batch.ivar[62, ..., 2:] = 0  # hardly measured
    batch.flux[63] -= 0.9 * noise[63]
    names = {"misfit": 60, "surprise": 60, "window": 61, "domain": 62}
    if kind == "cutout":
        batch.flux[64, 0, 6:] = batch.flux[64, 0, 6:].mean()  # a lost half of an image
        names["quiet"] = 64
    return batch, names


@pytest.mark.parametrize("name", ["spectrum", "networks-spectrum", "cutout", "networks-cutout"])
def test_each_part_finds_what_it_is_for(name: str, scorers: dict[str, Scorer], draw: Any) -> None:
    scorer = scorers[name]
    batch, expected = planted(scorer.kind, draw)
    parts = scorer.score(batch).parts
    for part, row in expected.items():
        assert (parts[part][row] > parts[part][:60]).mean() >= 0.95, part
