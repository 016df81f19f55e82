"""Cutouts on the model's grid: crop, pad, bin, stretch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from models.batch import CutoutBatch
from models.cutouts import CutoutPreprocessing, _filled
from models.prepared import LARGEST, Prepared


def grid(
    size: int, factor: int = 1, stretch: str = "linear", n_bands: int = 1, coarse: int = 1
) -> CutoutPreprocessing:
    return CutoutPreprocessing(tuple("gri"[:n_bands]), size, factor, coarse, stretch, 1.0, 0.5)


def ramp(height: int, width: int) -> CutoutBatch:
    """Every pixel's flux tells where it was: 100·row + column."""
    flux = (100.0 * np.arange(height)[:, None] + np.arange(width)).astype(np.float32)[None, None]
    return CutoutBatch(flux, np.ones_like(flux))


def images(preprocessing: CutoutPreprocessing, batch: CutoutBatch) -> tuple[np.ndarray, np.ndarray]:
    data = preprocessing(batch)
    shape = (len(batch), *preprocessing.shape)
    return data.x.numpy().reshape(shape), data.ivar.numpy().reshape(shape)


def test_a_large_cutout_is_cropped_about_its_centre() -> None:
    x, ivar = images(grid(3), ramp(7, 5))
    np.testing.assert_array_equal(x[0, 0], [[201, 202, 203], [301, 302, 303], [401, 402, 403]])
    assert (ivar == 1).all()


def test_a_small_cutout_is_padded_with_unmeasured_pixels() -> None:
    x, ivar = images(grid(5), ramp(3, 3))
    np.testing.assert_array_equal(x[0, 0, 1:4, 1:4], ramp(3, 3).flux[0, 0])
    np.testing.assert_array_equal(ivar[0, 0], np.pad(np.ones((3, 3)), 1))
    assert x.sum() == ramp(3, 3).flux.sum()


def test_bins_hold_the_weighted_mean_and_the_summed_weight() -> None:
    flux = np.array([[1, 2, 5, 5], [3, 4, 5, 5], [0, 0, 7, 9], [0, 0, 1, 1]], np.float32)[None, None]
    ivar = np.array([[1, 1, 2, 2], [1, 0, 2, 2], [0, 0, 1, 3], [0, 0, 0, 0]], np.float32)[None, None]
    x, binned = images(grid(2, factor=2), CutoutBatch(flux, ivar))
    np.testing.assert_allclose(x[0, 0], [[2, 5], [0, 8.5]])
    np.testing.assert_allclose(binned[0, 0], [[3, 8], [0, 4]])


def test_binning_keeps_the_signal_to_noise(cutouts: Any) -> None:
    """Of a flat source: the binned χ² about zero is the original Σ flux² ivar."""
    flux, ivar = np.full((1, 1, 8, 8), 2.0, np.float32), np.full((1, 1, 8, 8), 3.0, np.float32)
    x, binned = images(grid(4, factor=2), CutoutBatch(flux, ivar))
    assert (x**2 * binned).sum() == pytest.approx(64 * 4 * 3)


def test_odd_sizes_are_cropped_to_whole_bins_first() -> None:
    x, ivar = images(grid(3, factor=2), ramp(7, 7))
    assert x[0, 0, 1, 1] == pytest.approx(np.mean([202, 203, 302, 303]))
    assert (ivar == 4).all()
    x, ivar = images(grid(3, factor=4), ramp(3, 3))  # smaller than one bin: nothing is measured
    assert not ivar.any() and not x.any()


@pytest.mark.parametrize(
    ("side", "size", "factor", "coarse"),
    [(24, 24, 1, 1), (33, 32, 1, 2), (64, 64, 1, 2), (65, 32, 2, 1), (101, 50, 2, 2), (200, 50, 4, 2)],
)
def test_images_have_at_most_64_pixels_and_the_density_model_32(
    side: int, size: int, factor: int, coarse: int
) -> None:
    batch = CutoutBatch(np.ones((3, 1, side, side), np.float32), np.ones((3, 1, side, side), np.float32))
    fitted = CutoutPreprocessing.fit([batch], ("r",))
    assert (fitted.size, fitted.factor, fitted.coarse) == (size, factor, coarse)
    assert fitted.image_shape == (1, size, size) and fitted.shape == (1, size // coarse, size // coarse)
    data = fitted(batch)
    assert data.image is not None and data.seen is not None
    assert data.image.shape == data.seen.shape == (3, *fitted.image_shape)
    assert data.x.shape == data.ivar.shape == (3, fitted.n_values)


@pytest.mark.parametrize("stretch", ["linear", "asinh"])
def test_the_coarse_grid_keeps_chi2(stretch: str, cutouts: Any) -> None:
    """χ² of any reconstruction that is flat within coarse pixels, but for a constant: the scatter within them."""
    batch = cutouts(4, 3, 64)
    (x, ivar), (coarse_x, coarse_ivar) = (
        images(grid(64, stretch=stretch, n_bands=2, coarse=coarse), batch) for coarse in (1, 2)
    )
    assert coarse_x.shape == (4, 2, 32, 32)
    rng = np.random.default_rng(0)
    fine_chi2, coarse_chi2 = [], []
    for _ in range(3):
        model = rng.normal(size=coarse_x.shape)
        fine = model.repeat(2, axis=2).repeat(2, axis=3)
        fine_chi2.append((ivar.astype(float) * (x - fine) ** 2).sum((1, 2, 3)))
        coarse_chi2.append((coarse_ivar.astype(float) * (coarse_x - model) ** 2).sum((1, 2, 3)))
    np.testing.assert_allclose(np.diff(fine_chi2, axis=0), np.diff(coarse_chi2, axis=0), rtol=1e-3)
    np.testing.assert_allclose(ivar.sum((1, 2, 3)), coarse_ivar.sum((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("coarse", [1, 2])
def test_what_is_unmeasured_is_filled_in_the_image_and_zero_in_the_density_model(
    coarse: int, cutouts: Any
) -> None:
    batch = cutouts(3, 3, 64)
    batch.flux[batch.ivar == 0] = 1e30
    data = grid(64, stretch="asinh", n_bands=2, coarse=coarse)(batch)
    assert data.image is not None and data.seen is not None
    np.testing.assert_array_equal(data.seen, batch.ivar > 0)
    measured = torch.where(data.seen > 0, data.image, torch.nan)
    assert (data.image != 0).all()
    assert data.image.amax() <= np.nanmax(measured) and data.image.amin() >= np.nanmin(measured)
    assert (data.x[data.ivar == 0] == 0).all() and (data.x[data.ivar > 0] != 0).all()


@pytest.mark.parametrize("side", [1, 2, 3, 8, 24, 32])
def test_holes_are_filled_from_their_neighbourhood(side: int) -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn((3, 2, side, side), generator=generator)
    seen = (torch.rand((3, 2, side, side), generator=generator) > 0.4).float()
    seen[2] = 0
    filled = _filled(image * seen, seen)
    assert torch.equal(filled[seen > 0], image[seen > 0])  # what was measured stays
    low, high = (image * seen).amin((2, 3)), (image * seen).amax((2, 3))
    assert (filled.amin((2, 3)) >= low - 1e-6).all() and (filled.amax((2, 3)) <= high + 1e-6).all()
    assert not filled[2].any()  # and nothing measured is nothing at all
    level = _filled(5 * seen, seen)
    torch.testing.assert_close(level[:2], torch.full_like(level[:2], 5) * seen[:2].amax((2, 3), keepdim=True))


def test_a_hole_takes_the_mean_of_the_smallest_square_that_was_measured() -> None:
    """Of two levels: one pixel of a square of four is missing, and a square of 4 × 4 but for one corner."""
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    seen = torch.ones_like(image)
    seen[0, 0, 1, 1] = 0
    seen[0, 0, 4:, 4:] = 0
    seen[0, 0, 7, 7] = 1
    filled = _filled(image * seen, seen)[0, 0]
    assert float(filled[1, 1]) == pytest.approx((0 + 1 + 8) / 3)
    assert float(filled[6, 7]) == 63  # of its own square
    assert float(filled[4, 4]) == 63  # of the square of squares


@pytest.mark.parametrize("unit", [2e-19, 1e-10, 1e10, 1e15])
@pytest.mark.parametrize("coarse", [1, 2])
def test_flux_may_have_any_unit(unit: float, coarse: int, cutouts: Any) -> None:
    """The stretch is in units of the cutout's own noise; ivar is from 10⁻³⁰ to 10³⁸ here."""
    batch, preprocessing = cutouts(4, 3), grid(24, stretch="asinh", n_bands=2, coarse=coarse)
    batch.ivar = batch.ivar.clip(max=1.0)
    other = CutoutBatch(
        (batch.flux * unit).astype(np.float32), (batch.ivar.astype(float) * unit**-2.0).astype(np.float32)
    )
    assert 1e-31 < other.ivar.max() < 3e38
    a, b = preprocessing(batch), preprocessing(other)
    np.testing.assert_allclose(a.x, b.x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(a.ivar, b.ivar, rtol=1e-4)
    np.testing.assert_allclose(a.snr, b.snr, rtol=1e-4)
    assert b.covariates.isfinite().all()


def test_rows_and_join_are_inverse(cutouts: Any) -> None:
    data = grid(24, n_bands=2, coarse=2)(cutouts(7, 3))
    back = Prepared.join([data.rows(slice(0, 3)), data.rows(np.array([3])), data.rows(np.arange(4, 7))])
    assert len(back) == 7 and len(back.noise_index) == 1
    for name in ("x", "ivar", "noise_index", "snr", "covariates", "outside", "image", "seen"):
        assert torch.equal(getattr(back, name), getattr(data, name)), name
    assert torch.equal(data.rows(np.array([5, 2])).x, data.x[[5, 2]])


def test_the_typical_size_of_a_mixed_set_wins(cutouts: Any, bands: Any) -> None:
    fitted = CutoutPreprocessing.fit([cutouts(3, 1, 16), cutouts(10, 1, 20), cutouts(3, 1, 40)], bands)
    assert fitted.size == 20


def test_asinh_is_linear_in_the_sky_and_logarithmic_in_the_core() -> None:
    sigma = 0.5
    flux = np.array([[0.001, 1e6], [-1.0, 3.0]], np.float32)[None, None]
    batch = CutoutBatch(flux, np.full_like(flux, sigma**-2))
    x, ivar = images(grid(2, stretch="asinh"), batch)
    np.testing.assert_allclose(x, np.arcsinh(flux / (3 * sigma)), rtol=1e-6)
    # the delta method: Var f(flux) = f′(flux)² Var flux
    faint = flux[0, 0, 1].astype(float)
    slope = (np.arcsinh((faint + 1e-4) / 1.5) - np.arcsinh((faint - 1e-4) / 1.5)) / 2e-4
    np.testing.assert_allclose(1 / ivar[0, 0, 1], (slope * sigma) ** 2, rtol=1e-6)


def test_the_stretch_follows_the_images(cutouts: Any, bands: Any) -> None:
    assert CutoutPreprocessing.fit([cutouts(30, 1)], bands).stretch == "asinh"
    rng = np.random.default_rng(0)
    filled = rng.uniform(50, 100, (30, 1, 12, 12)).astype(np.float32)
    fitted = CutoutPreprocessing.fit([CutoutBatch(filled, np.ones_like(filled))], ("r",))
    assert fitted.stretch == "linear" and fitted.scale == pytest.approx(100, abs=1)


def test_unmeasured_pixels_are_zero_whatever_they_held(cutouts: Any, bands: Any) -> None:
    batch = cutouts(5, 2)
    fitted = CutoutPreprocessing.fit([cutouts(30, 1)], bands)
    before = images(fitted, batch)
    batch.flux[batch.ivar == 0] = 1e30
    after = images(fitted, batch)
    assert (after[0][after[1] == 0] == 0).all()
    assert np.array_equal(before[0], after[0]) and np.array_equal(before[1], after[1])


def test_an_empty_band_borrows_the_noise_of_the_others(cutouts: Any, bands: Any) -> None:
    batch = cutouts(3, 2)
    batch.ivar[:, 1] = 0
    data = CutoutPreprocessing.fit([cutouts(30, 1)], bands)(batch)
    assert data.covariates.isfinite().all() and (data.outside > 0).all()


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 24])
def test_central_signal_to_noise(side: int) -> None:
    """Of a constant image: n pixels of S/N 2 each give 2 √n."""
    shape = (1, 1, side, side)
    data = grid(side)(CutoutBatch(np.full(shape, 2.0, np.float32), np.ones(shape, np.float32)))
    assert data.snr[0] == pytest.approx(2 * min(side, 5))


def test_a_hot_pixel_is_clipped_at_a_finite_value() -> None:
    batch = ramp(4, 4)
    batch.flux[0, 0, 0, 0] = -3e38
    x, ivar = images(grid(4), batch)
    assert x.min() == -LARGEST and np.isfinite(ivar).all()


def test_another_number_of_bands_is_refused(cutouts: Any, bands: Any) -> None:
    with pytest.raises(ValueError, match=r"trained on 3 bands \(g, r, i\), this cutout has 2"):
        grid(24, n_bands=3)(cutouts(2, 1))
    with pytest.raises(ValueError, match=r"must have 2 bands, got \[2, 3\]"):
        three = CutoutBatch(np.ones((2, 3, 8, 8), np.float32), np.ones((2, 3, 8, 8), np.float32))
        CutoutPreprocessing.fit([cutouts(2, 1), three], bands)


def test_json_keeps_everything(cutouts: Any, bands: Any) -> None:
    fitted = CutoutPreprocessing.fit([cutouts(30, 1)], bands)
    assert CutoutPreprocessing.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted


def test_a_turned_cutout_is_the_cutout_of_the_turned_image(cutouts: Any, bands: Any) -> None:
    """Whatever turn is drawn, values and weights move together, and every band alike."""
    batch = cutouts(3, 5)
    preprocessing = CutoutPreprocessing.fit([batch], bands)
    data = preprocessing(batch)
    random = np.random.default_rng(0)
    found = set()
    for _ in range(64):
        turned = preprocessing.turned(data, random)
        for k in range(8):
            flux, ivar = (
                np.rot90(a[..., ::-1] if k > 3 else a, k, (2, 3)).copy() for a in (batch.flux, batch.ivar)
            )
            same = preprocessing(CutoutBatch(flux, ivar))
            if torch.allclose(same.x, turned.x, atol=1e-4) and torch.allclose(
                same.ivar, turned.ivar, rtol=1e-3
            ):
                found.add(k)
                break
        else:
            pytest.fail("no turn or mirroring of the image gives these values")
    assert found == set(range(8))
