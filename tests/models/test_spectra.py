"""Spectra on the model's grid: whole-pixel shifts, ivar-weighted bins, amplitudes that keep their sign."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models.batch import SpectrumBatch
from models.prepared import LARGEST, Prepared
from models.spectra import BIN, FAINTEST, SpectrumPreprocessing

TRAINED_ON = 100


@pytest.fixture(scope="module")
def preprocessing(spectra: Any) -> SpectrumPreprocessing:
    return SpectrumPreprocessing.fit(spectra(TRAINED_ON, 1))


def flat(n_values: int = 40, flux: float = 1.0) -> SpectrumPreprocessing:
    """A grid whose mean spectrum is flat, from log10 λ = 3.6."""
    return SpectrumPreprocessing(36000 // BIN, np.ones(n_values), 5.0, 0.5)


def test_a_bin_is_the_weighted_mean_and_the_summed_weight() -> None:
    flux = np.array([[1, 2, 3, 4, 50, 50, 50, 50]], np.float32)
    ivar = np.array([[1, 2, 0, 1, 4, 4, 4, 4]], np.float32)
    grid = SpectrumPreprocessing(9000, np.array([1.0, 1.0]), -100.0, 0.1)
    data = grid(SpectrumBatch(flux, ivar, np.array([36000]), np.array([np.nan])))
    amplitude = (9 + 16 * 50) / (4 + 16)
    np.testing.assert_allclose(data.x[0], np.array([9 / 4, 50]) / amplitude, rtol=1e-6)
    np.testing.assert_allclose(data.ivar[0], np.array([4, 16]) * amplitude**2, rtol=1e-6)


def test_a_galaxy_moved_by_whole_bins_is_prepared_the_same(spectra: Any, preprocessing: Any) -> None:
    """The same rest-frame pixels, observed elsewhere, give the same numbers to the last bit."""
    batch = spectra(20, 2)
    batch.redshift[:] = 0
    for bins in (1, 7, 500):
        z = 10 ** (1e-4 * BIN * bins) - 1
        moved = SpectrumBatch(batch.flux, batch.ivar, batch.first + BIN * bins, np.full(20, z))
        a, b = preprocessing(batch), preprocessing(moved)
        assert np.array_equal(a.x, b.x) and np.array_equal(a.ivar, b.ivar)
        # the instrument's noise stays where it was, in the observed frame
        assert int((b.noise_index - a.noise_index).min()) >= bins * BIN // 16


def test_no_redshift_is_the_observed_frame(spectra: Any, preprocessing: Any) -> None:
    batch = spectra(5, 2)
    at_rest = SpectrumBatch(batch.flux, batch.ivar, batch.first, np.zeros(5))
    unknown = SpectrumBatch(batch.flux, batch.ivar, batch.first, np.full(5, np.nan))
    assert np.array_equal(preprocessing(at_rest).x, preprocessing(unknown).x)
    assert preprocessing(unknown).covariates.isfinite().all()


def test_padding_is_nothing(spectra: Any, preprocessing: Any) -> None:
    batch = spectra(5, 2)
    wider = [np.pad(a, ((0, 0), (0, 77))) for a in (batch.flux, batch.ivar)]
    padded = preprocessing(SpectrumBatch(wider[0], wider[1], batch.first, batch.redshift))
    assert np.array_equal(padded.x, preprocessing(batch).x) and np.array_equal(
        padded.snr, preprocessing(batch).snr
    )


def test_brightness_does_not_matter(spectra: Any, preprocessing: Any) -> None:
    batch = spectra(20, 2)
    brighter = SpectrumBatch(4 * batch.flux, batch.ivar / 16, batch.first, batch.redshift)
    a, b = preprocessing(batch), preprocessing(brighter)
    assert torch.equal(a.x, b.x) and torch.equal(a.ivar, b.ivar) and torch.equal(a.snr, b.snr)


@pytest.mark.parametrize("unit", [1e-18, 1e-10, 1e10, 3e15])
def test_flux_may_have_any_unit(unit: float, spectra: Any, preprocessing: Any) -> None:
    """ivar of order 10⁻³⁰ to 10³⁷: in single precision neither flux² nor flux·ivar would be finite everywhere."""
    batch = spectra(20, 2)
    batch.ivar = batch.ivar.clip(max=30)
    flux, ivar = batch.flux.astype(float) * unit, batch.ivar.astype(float) * unit**-2.0
    assert 1e-31 < ivar.max() < 3e38
    other = SpectrumBatch(flux.astype(np.float32), ivar.astype(np.float32), batch.first, batch.redshift)
    a, b = preprocessing(batch), preprocessing(other)
    np.testing.assert_allclose(a.x, b.x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(a.ivar, b.ivar, rtol=1e-4)
    np.testing.assert_allclose(a.snr, b.snr, rtol=1e-5)
    np.testing.assert_allclose(a.covariates, b.covariates, rtol=1e-5)


def test_rows_and_join_are_inverse(spectra: Any, preprocessing: Any) -> None:
    data = preprocessing(spectra(7, 2))
    back = Prepared.join([data.rows(slice(0, 3)), data.rows(np.array([3])), data.rows(np.arange(4, 7))])
    assert len(back) == 7 and back.image is None
    for name in ("x", "ivar", "noise_index", "snr", "covariates", "outside"):
        assert torch.equal(getattr(back, name), getattr(data, name)), name


def test_the_mean_spectrum_is_found_at_unit_amplitude() -> None:
    """Scaled copies of one spectrum, each seen over its own third, with noise."""
    rng = np.random.default_rng(3)
    truth = np.repeat(1 + 0.5 * np.sin(np.arange(90) / 9), BIN)
    amplitude = rng.lognormal(0, 1, (60, 1))
    ivar = np.full((60, 360), 400.0) / amplitude**2
    for row in range(60):
        start = rng.integers(0, 240)
        ivar[row, :start], ivar[row, start + 120 :] = 0, 0
    flux = amplitude * (truth + 0.05 * rng.normal(size=(60, 360)))
    grid = SpectrumPreprocessing.fit(
        SpectrumBatch(flux.astype(np.float32), ivar.astype(np.float32), np.full(60, 36000), np.zeros(60))
    )
    inside = (BIN * (np.arange(grid.n_values) + grid.first_bin) - 36000).astype(int)
    expected = truth[inside] / truth[inside].mean()
    np.testing.assert_allclose(grid.mean, expected, atol=0.05)


def test_only_shared_wavelengths_are_modelled() -> None:
    """Two spectra at a redshift of their own do not widen the grid; three do."""
    ones = np.ones((30, 40), np.float32)
    first = np.full(30, 36000)
    first[:2] = 37000
    assert SpectrumPreprocessing.fit(SpectrumBatch(ones, ones, first, np.zeros(30))).n_values == 10
    first[2] = 37000
    assert SpectrumPreprocessing.fit(SpectrumBatch(ones, ones, first, np.zeros(30))).n_values == 260
    with pytest.raises(ValueError, match="at least 3 of them must overlap"):
        SpectrumPreprocessing.fit(SpectrumBatch(ones, ones, np.arange(30) * 100, np.zeros(30)))


@pytest.mark.parametrize("level", [-20.0, -2.0, 0.0, 0.5, 4.0])
def test_faint_spectra_are_not_blown_up_nor_turned_over(level: float) -> None:
    """Noise of σ = 1 in 10 bins of 4 pixels about ``level`` σ of the amplitude: it must keep its size and sign."""
    grid = flat(10)
    noise = np.random.default_rng(4).normal(size=(1, 40))
    flux = noise - noise.mean() + level / np.sqrt(40)
    data = grid(
        SpectrumBatch(flux.astype(np.float32), np.ones((1, 40), np.float32), np.array([36000]), np.zeros(1))
    )
    unit = grid.amplitude_floor / np.sqrt(40)  # the amplitude at the floor
    np.testing.assert_allclose(data.x[0], flux.reshape(10, 4).mean(1) / unit, rtol=1e-4, atol=1e-5)
    assert data.outside[0] == pytest.approx((5 - level) / 5, rel=1e-4)


def test_a_training_set_of_noise_has_a_floor_too() -> None:
    """Its 1st percentile is negative: amplitudes about zero must not be divided by."""
    rng = np.random.default_rng(5)
    n = 200
    flux, ivar = rng.normal(size=(n, 80)).astype(np.float32), np.ones((n, 80), np.float32)
    batch = SpectrumBatch(flux, ivar, np.full(n, 36000), np.zeros(n))
    grid = SpectrumPreprocessing.fit(batch)
    assert grid.amplitude_floor < FAINTEST
    error = 1 / np.sqrt(4 * (grid.mean**2).sum())
    binned = flux.reshape(n, -1, BIN).mean(2)
    x = grid(batch).x.numpy()
    assert (np.sign(x) == np.sign(binned)).all()
    assert (np.abs(x) <= np.abs(binned) / (FAINTEST * error) * (1 + 1e-5)).all()


def test_snr_is_the_median_over_measured_bins_per_pixel() -> None:
    """Of a constant spectrum it is flux·√ivar of a pixel, whatever is masked beside it."""
    flux, ivar = np.zeros((2, 16), np.float32), np.zeros((2, 16), np.float32)
    flux[0] = np.repeat([1, 2, -3, 7], BIN)
    ivar[0, :12] = 4
    flux[0, 12:] = 1e30
    data = flat()(SpectrumBatch(flux, ivar, np.array([36000] * 2), np.zeros(2)))
    np.testing.assert_allclose(data.snr, [2, 0], rtol=1e-6)
    flux[0, :12], ivar[0, 2:8] = [1, -2, 3, 4, 0, 0, 0, 0, 2, 2, 2, 2], 0
    data = flat()(SpectrumBatch(flux, ivar, np.array([36000] * 2), np.zeros(2)))
    # two bins are measured, one by half: means −½ and 2, and of those the lower
    np.testing.assert_allclose(data.snr, [-0.5 * np.sqrt(2 * 4 / BIN), 0], rtol=1e-6)


def test_a_hot_pixel_is_clipped_at_a_finite_value() -> None:
    flux, ivar = np.ones((1, 160), np.float32), np.ones((1, 160), np.float32)
    flux[0, 80] = -3e38
    data = flat()(SpectrumBatch(flux, ivar, np.array([36000]), np.zeros(1)))
    assert float(data.x.min()) == -LARGEST
    assert data.ivar.isfinite().all()


def test_coverage_decides_what_is_outside(spectra: Any, preprocessing: SpectrumPreprocessing) -> None:
    batch = spectra(5, 2)
    inside = preprocessing(batch).outside
    batch.ivar[:, 60:] = 0
    outside = preprocessing(batch).outside
    assert (inside == 0).all() and (outside > 0).all()


def test_json_keeps_everything(spectra: Any, preprocessing: SpectrumPreprocessing) -> None:
    import json

    back = SpectrumPreprocessing.from_json(json.loads(json.dumps(preprocessing.to_json())))
    a, b = preprocessing(spectra(5, 2)), back(spectra(5, 2))
    assert (
        np.array_equal(a.x, b.x) and np.array_equal(a.ivar, b.ivar) and np.array_equal(a.outside, b.outside)
    )


def test_wavelengths_are_the_bins_centres() -> None:
    pixel = np.log10(flat().wavelength) / 1e-4
    np.testing.assert_allclose(pixel, 36001.5 + 4 * np.arange(40), atol=1e-6)


@pytest.mark.parametrize("n_pixels", [40, 41, 42, 43])
@pytest.mark.parametrize("lead", [0, 1, 2, 3])
def test_nothing_is_measured_beyond_the_ends_of_a_spectrum(n_pixels: int, lead: int) -> None:
    """Whatever its length, and wherever in a bin it begins."""
    grid, first = flat(40), 36040 + lead
    flux = np.arange(1, n_pixels + 1, dtype=np.float32)[None]
    data = grid(SpectrumBatch(flux, np.ones_like(flux), np.array([first]), np.zeros(1)))
    low, high = lead // BIN + 10, (lead + n_pixels - 1) // BIN + 10
    counts = np.bincount((np.arange(n_pixels) + lead) // BIN + 10, minlength=40)
    np.testing.assert_array_equal(data.ivar[0] > 0, counts > 0)
    assert not data.x[0, :low].any() and not data.x[0, high + 1 :].any()
    np.testing.assert_allclose(data.ivar[0] / data.ivar[0].max(), counts / BIN, rtol=1e-6)
