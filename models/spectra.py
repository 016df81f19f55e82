"""Spectra onto the model's grid: rest frame by whole pixels, ivar-weighted bins, unit amplitude.

A spectrum at redshift z is moved by round(10⁴ log10(1 + z)) pixels of the 10⁻⁴-dex grid, so nothing is resampled
and pixels stay independent. Its amplitude is the ivar-weighted fit of the training set's mean spectrum, which does
not depend on which part of that spectrum the redshift lets us see (a median flux would).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.batch import SpectrumBatch
from models.prepared import LARGEST, Prepared

GRID_STEP = 1e-4
"""log10(λ/Å) per pixel of the survey's grid."""
BIN = 4
"""Pixels per bin: 276 km/s, narrow enough that a galaxy's emission line still fills one."""
MIN_COVERAGE = 0.02
"""A bin belongs to the model when at least this share of the training set (and at least 3 spectra) measured it."""
FAINTEST = 3.0
"""Amplitude over its error below which a spectrum is not brought to unit amplitude."""
FIRST_NOISE_PIXEL = 34000
"""log10 λ = 3.4, 2512 Å: where the table of noise scales by observed wavelength begins."""
NOISE_BIN = 16
N_NOISE = 8000 // NOISE_BIN
"""Noise scales reach to log10 λ = 4.2, 15,849 Å."""


@dataclass(slots=True)
class SpectrumPreprocessing:
    """The spectral grid and normalisation of one trained model; ``fit`` makes it, JSON keeps it."""

    first_bin: int
    """Rest-frame pixel index of the first bin, divided by BIN."""
    mean: np.ndarray
    """(n_values,) mean rest-frame spectrum of the training set, mean 1."""
    amplitude_floor: float
    """1st percentile of the training set's amplitudes over their errors: fainter spectra are outside the domain, and
    are not blown up to unit amplitude."""
    coverage_floor: float
    """1st percentile of the training set's share of measured bins."""

    kind = "spectrum"

    @property
    def n_values(self) -> int:
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.n_values)

    @property
    def n_noise(self) -> int:
        return N_NOISE

    @property
    def wavelength(self) -> np.ndarray:
        """(n_values,) rest-frame vacuum wavelength of the bins' centres, Å."""
        return 10 ** (GRID_STEP * (BIN * (self.first_bin + np.arange(self.n_values)) + (BIN - 1) / 2))

    @classmethod
    def fit(cls, batch: SpectrumBatch) -> SpectrumPreprocessing:
        """Choose the grid and the mean spectrum from a training set.

        Raises ValueError when no part of the spectrum is shared by at least three objects.
        """
        shift = _shift(batch.redshift)
        start = batch.first - shift
        bins = (start[:, None] + np.arange(batch.flux.shape[1])) // BIN
        low = int(bins.min())
        seen = np.zeros((len(batch), int(bins.max()) - low + 1), bool)
        row, column = np.nonzero(batch.ivar > 0)
        seen[row, bins[row, column] - low] = True
        used = np.flatnonzero(seen.sum(0) >= max(3, MIN_COVERAGE * len(batch)))
        if len(used) == 0:
            raise ValueError(
                "the training spectra share no wavelengths: at least 3 of them must overlap in the rest frame"
            )
        first_bin, n_values = low + int(used[0]), int(used[-1] - used[0] + 1)
        flux, ivar = _binned(batch, start, first_bin, n_values)
        if not flux.any():
            raise ValueError("the training spectra are zero everywhere: leave out empty fibres")
        mean, signal = _mean_spectrum(flux, ivar)
        return cls(
            first_bin=first_bin,
            mean=mean,
            amplitude_floor=float(np.quantile(signal, 0.01)),
            # a floor of 0 could not be fallen below, and spectra without any measurement may be 1 % of a training set
            coverage_floor=float(np.quantile((ivar > 0).mean(1), 0.01)) or 1e-3,
        )

    def __call__(self, batch: SpectrumBatch) -> Prepared:
        """Normalise n spectra; needs nothing but the batch, so any batch size gives the same rows."""
        shift = _shift(batch.redshift)
        flux, ivar = _binned(batch, batch.first - shift, self.first_bin, self.n_values)
        amplitude, signal = _amplitude(flux, ivar, self.mean)
        # dividing by less than the training set's faintest amplitude, or 3 σ, would turn noise into features
        floor = max(self.amplitude_floor, FAINTEST)
        error = amplitude / np.where(signal == 0, 1, signal)
        amplitude = np.where(signal < floor, np.abs(error) * floor, amplitude)
        amplitude = np.where((ivar > 0).any(1), amplitude, 1.0)[:, None]
        pixel = BIN * (self.first_bin + np.arange(self.n_values)) + shift[:, None]
        noise_index = np.clip((pixel - FIRST_NOISE_PIXEL) // NOISE_BIN, 0, N_NOISE - 1)
        snr = _median_snr(batch)
        coverage = (ivar > 0).mean(1)
        redshift = np.where(np.isfinite(batch.redshift), batch.redshift, 0.0)
        return Prepared(
            x=torch.from_numpy(np.clip(flux / amplitude, -LARGEST, LARGEST)),
            ivar=torch.from_numpy(ivar * amplitude**2),
            noise_index=torch.from_numpy(noise_index.astype(np.int64)),
            snr=snr,
            covariates=np.stack(
                [np.log(np.clip(signal, 1, None)), np.log1p(np.clip(redshift, -0.01, None))], 1
            ),
            outside=np.maximum(
                np.maximum(self.coverage_floor - coverage, 0) / self.coverage_floor,
                np.maximum(self.amplitude_floor - signal, 0) / max(abs(self.amplitude_floor), 1.0),
            ),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "frame": "rest",
            "grid_step": GRID_STEP,
            "bin": BIN,
            "first_bin": self.first_bin,
            "normalisation": "ivar-weighted amplitude of the mean spectrum",
            "mean": self.mean.tolist(),
            "amplitude_floor": self.amplitude_floor,
            "coverage_floor": self.coverage_floor,
        }

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> SpectrumPreprocessing:
        return cls(d["first_bin"], np.asarray(d["mean"]), d["amplitude_floor"], d["coverage_floor"])


def _shift(redshift: np.ndarray) -> np.ndarray:
    """Whole grid pixels from the observed to the rest frame; 0 where there is no redshift."""
    z = np.where(np.isfinite(redshift), redshift, 0.0)
    return np.round(np.log10(1 + np.clip(z, -0.01, 20)) / GRID_STEP).astype(np.int64)


def _binned(
    batch: SpectrumBatch, start: np.ndarray, first_bin: int, n_values: int
) -> tuple[np.ndarray, np.ndarray]:
    """ivar-weighted mean flux and summed ivar per bin, both (n, n_values) float64."""
    n, n_pixels = batch.flux.shape
    column = (start[:, None] + np.arange(n_pixels)) // BIN - first_bin
    inside = (column >= 0) & (column < n_values) & (batch.ivar > 0)
    flat = (np.arange(n)[:, None] * n_values + column)[inside]
    weight = batch.ivar[inside].astype(np.float64)
    # bincount of nothing at all counts in integers
    ivar = np.bincount(flat, weight, n * n_values).reshape(n, n_values).astype(np.float64)
    total = (
        np.bincount(flat, weight * batch.flux[inside], n * n_values).reshape(n, n_values).astype(np.float64)
    )
    return np.divide(total, ivar, out=np.zeros_like(total), where=ivar > 0), ivar


def _amplitude(flux: np.ndarray, ivar: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude a minimising Σ ivar (flux − a·mean)², and a over its error; both (n,), zeros without data."""
    weight = (ivar * mean**2).sum(1)
    safe = np.where(weight > 0, weight, 1.0)
    amplitude = (ivar * flux * mean).sum(1) / safe
    # an exactly zero amplitude still needs its error, so it is nudged by a negligible part of that error
    amplitude = np.where(amplitude == 0, 1e-9 / np.sqrt(safe), amplitude)
    return amplitude, amplitude * np.sqrt(safe)


def _mean_spectrum(flux: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean spectrum at unit amplitude by alternating fits, and every spectrum's amplitude over its error."""
    mean = np.ones(flux.shape[1])
    signal = np.ones(len(flux))
    for _ in range(5):
        amplitude, signal = _amplitude(flux, ivar, mean)
        error = np.abs(amplitude / signal)
        scale = np.maximum(amplitude, FAINTEST * error)[:, None]
        # 0.1: objects differ by about 30 % from the mean, so no single bright spectrum decides it
        weight = np.where(ivar > 0, 1 / (1 / np.maximum(ivar * scale**2, 1e-12) + 0.1), 0)
        total = weight.sum(0)
        mean = (weight * flux / scale).sum(0) / np.where(total > 0, total, 1)
        mean = np.where(total > 0, np.maximum(mean, 0.02 * np.median(mean[total > 0])), 0.0)
        mean = np.where(total > 0, mean, np.mean(mean[total > 0]))
        mean /= mean.mean()
    return mean, signal


def _median_snr(batch: SpectrumBatch) -> np.ndarray:
    """Median flux·√ivar over the measured pixels, (n,); 0 without any."""
    # in double precision, as flux and ivar of odd units may overflow together
    ratio = np.where(batch.ivar > 0, batch.flux * np.sqrt(batch.ivar, dtype=np.float64), np.nan)
    good = (batch.ivar > 0).any(1)
    ratio[~good] = 0.0
    return np.nanmedian(ratio, axis=1)
