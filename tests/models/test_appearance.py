"""What an image looks like: the same from every side, independent of what is unmeasured, strange when it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models.appearance import Appearance, describe
from models.cutouts import CutoutPreprocessing

SHAPE = (2, 24, 24)


@pytest.fixture(scope="module")
def prepared(cutouts: Any, bands: Any) -> Any:
    """(n, seed) → values and inverse variances of normal cutouts."""
    preprocessing = CutoutPreprocessing.fit([cutouts(50, 1)], bands)

    def make(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        data = preprocessing(cutouts(n, seed))
        return data.x, data.ivar

    return make


@pytest.fixture(scope="module")
def appearance(prepared: Any) -> Appearance:
    return Appearance.fit(*prepared(200, 1), SHAPE)


def turned(values: torch.Tensor, quarters: int) -> torch.Tensor:
    return values.reshape(-1, *SHAPE).rot90(quarters, (2, 3)).flatten(1)


def test_turning_or_mirroring_an_image_changes_nothing(prepared: Any) -> None:
    x, ivar = prepared(10, 2)
    expected = describe(x, ivar, SHAPE)
    mirrored = [v.reshape(-1, *SHAPE).flip(3).flatten(1) for v in (x, ivar)]
    for values in (*((turned(x, k), turned(ivar, k)) for k in (1, 2, 3)), tuple(mirrored)):
        torch.testing.assert_close(describe(*values, SHAPE), expected, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_unmeasured_pixels_do_not_matter(appearance: Appearance, prepared: Any) -> None:
    x, ivar = prepared(10, 2)
    assert (ivar == 0).any()
    before = appearance.strangeness(x, ivar)
    x = torch.where(ivar > 0, x, 1e30)
    assert torch.equal(appearance.strangeness(x, ivar), before)


def test_strange_images_are_strange(appearance: Appearance, prepared: Any) -> None:
    """An arc to one side, a companion of another colour, a lost half, and noise that is too smooth."""
    x, ivar = prepared(104, 3)
    image = x.reshape(-1, *SHAPE)
    y, column = np.mgrid[:24, :24] - 11.5
    arc = (np.abs(np.hypot(y, column) - 8) < 1) & (column > 4)
    image[100, :, torch.from_numpy(arc)] += 2
    image[101, 1, 3:6, 3:6] += 3
    image[102, :, 12:] = 0
    image[103] = torch.nn.functional.avg_pool2d(image[103], 5, 1, 2)
    strangeness = appearance.strangeness(x, ivar)
    assert (strangeness[100:] > strangeness[:100].quantile(0.97)).all()


def test_odd_images_have_a_finite_strangeness(appearance: Appearance, prepared: Any) -> None:
    x, ivar = prepared(4, 4)
    for values, weight in (
        (x, 0 * ivar),
        (0 * x, ivar),
        (1e3 + 0 * x, ivar),
        (x, ivar * (torch.arange(1152) == 600)),
    ):
        assert appearance.strangeness(values, weight).isfinite().all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 3), (3, 8, 8)])
def test_tiny_images_are_described(shape: tuple[int, ...]) -> None:
    n_values = int(np.prod(shape))
    x = torch.randn((30, n_values), generator=torch.Generator().manual_seed(0))
    appearance = Appearance.fit(x, torch.ones_like(x), shape)
    assert appearance.strangeness(x, torch.ones_like(x)).isfinite().all()


def test_arrays_keep_it(appearance: Appearance, prepared: Any) -> None:
    back = Appearance.from_arrays({k: torch.from_numpy(v) for k, v in appearance.arrays().items()}, SHAPE)
    x, ivar = prepared(10, 5)
    torch.testing.assert_close(
        back.strangeness(x, ivar), appearance.strangeness(x, ivar), rtol=1e-4, atol=1e-4
    )
