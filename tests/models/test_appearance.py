"""What an image looks like: the same from every side, independent of what is unmeasured, strange when it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models.appearance import FLOOR, Appearance, _detail, _doubling, _halved, _halving, describe
from models.cutouts import CutoutPreprocessing
from models.prepared import LARGEST

SIDE = 32
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prepared(cutouts: Any, bands: Any) -> Any:
    """(n, seed, junk=0) → image and what is measured of it, of normal cutouts with ``junk`` where nothing is."""
    preprocessing = CutoutPreprocessing.fit([cutouts(50, 1, SIDE)], bands)

    def make(n: int, seed: int, junk: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        batch = cutouts(n, seed, SIDE)
        batch.flux[batch.ivar == 0] = junk
        data = preprocessing(batch)
        return data.image, data.seen

    return make


@pytest.fixture(scope="module")
def appearance(prepared: Any) -> Appearance:
    return Appearance.fit(*prepared(200, 1))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_turning_or_mirroring_an_image_changes_nothing(prepared: Any) -> None:
    image, seen = prepared(10, 2)
    expected = describe(image, seen)
    changed = [tuple(v.rot90(k, (2, 3)) for v in (image, seen)) for k in (1, 2, 3)]
    for values in (*changed, (image.flip(3), seen.flip(3))):
        torch.testing.assert_close(describe(*values), expected, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_unmeasured_pixels_do_not_matter(appearance: Appearance, prepared: Any) -> None:
    image, seen = prepared(10, 2)
    assert (seen == 0).any()
    assert torch.equal(appearance.strangeness(*prepared(10, 2, 1e30)), appearance.strangeness(image, seen))


def test_an_object_does_not_depend_on_those_beside_it(appearance: Appearance, prepared: Any) -> None:
    """Some have holes and some have none, which go different ways."""
    image, seen = prepared(10, 2)
    seen[::2] = 1
    whole = appearance.strangeness(image, seen)
    alone = torch.cat([appearance.strangeness(image[[i]], seen[[i]]) for i in range(10)])
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [2, 3, 5, 24, 32])
def test_the_pyramid_adds_up_to_the_image(side: int) -> None:
    """Image = detail + up-sampled coarser image, at every level down to a single pixel."""
    image = noise(2, 3, side, side)
    details, sides, coarser = [], [], image
    while coarser.shape[-1] > 1:
        sides.append(coarser.shape[-1])
        smaller = _halved(coarser)
        assert smaller.shape[-1] == -(-sides[-1] // 2)
        details.append(_detail(coarser, smaller))
        coarser = smaller
    for detail, size in zip(details[::-1], sides[::-1], strict=True):
        up = _doubling(size, CPU)
        coarser = detail + up.T @ coarser @ up
    torch.testing.assert_close(coarser, image)


@pytest.mark.parametrize("side", [3, 16, 25])
def test_a_smooth_image_has_no_detail(side: int) -> None:
    """A level stays, and so does a slope away from the edge, which repeats."""
    down, up = _halving(side, CPU), _doubling(side, CPU)
    torch.testing.assert_close(torch.ones(side) @ down @ up, torch.ones(side))
    slope = torch.arange(float(side))
    torch.testing.assert_close((slope @ down @ up)[4:-4], slope[4:-4])
    level = describe(torch.full((1, 1, side, side), 7.0), torch.ones(1, 1, side, side))
    power = level[0, 8:]  # after the rings' means
    torch.testing.assert_close(power[power.isfinite()].exp(), torch.full_like(power[power.isfinite()], FLOOR))


def test_strange_images_are_strange(appearance: Appearance, prepared: Any) -> None:
    """An arc to one side, a companion of another colour, a lost half, and noise that is too smooth."""
    image, seen = prepared(104, 3)
    y, column = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    arc = (np.abs(np.hypot(y, column) - 10) < 1) & (column > 5)
    image[100, :, torch.from_numpy(arc)] += 2
    image[101, 1, 3:6, 3:6] += 3
    image[102, :, SIDE // 2 :] = 0
    image[103] = torch.nn.functional.avg_pool2d(image[103], 5, 1, 2)
    strangeness = appearance.strangeness(image, seen)
    assert (strangeness[100:] > strangeness[:100].quantile(0.97)).all()


def test_odd_images_have_a_finite_strangeness(appearance: Appearance, prepared: Any) -> None:
    image, seen = prepared(4, 4)
    one = torch.zeros_like(seen)
    one[..., SIDE // 2, SIDE // 2] = 1
    for values, measured in (
        (0 * image, 0 * seen),
        (0 * image, seen),
        ((LARGEST + 0 * image) * seen, seen),
        (image * one, one * seen),
    ):
        assert appearance.strangeness(values, measured).isfinite().all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 3), (3, 8, 8)])
def test_tiny_images_are_described(shape: tuple[int, ...]) -> None:
    image = noise(30, *shape)
    appearance = Appearance.fit(image, torch.ones_like(image))
    assert appearance.strangeness(image, torch.ones_like(image)).isfinite().all()


def test_arrays_keep_it(appearance: Appearance, prepared: Any) -> None:
    back = Appearance.from_arrays({k: torch.from_numpy(v) for k, v in appearance.arrays().items()})
    assert torch.equal(back.strangeness(*prepared(10, 5)), appearance.strangeness(*prepared(10, 5)))
