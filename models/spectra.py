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
from torch import Tensor

from models.batch import SpectrumBatch
from models.prepared import LARGEST, Prepared, on_device

GRID_STEP = 1e-4
"""log10(λ/Å) per pixel of the survey's grid."""
BIN = 4
"""Pixels per bin: 276 km/s, narrow enough that a galaxy's emission line still fills one."""
MIN_COVERAGE = 0.02
"""A bin belongs to the model when at least this share of the training set (and at least 3 spectra) measured it."""
FAINTEST = 3.0
"""Amplitude over its error below which a spectrum is not brought to unit amplitude."""
BRIGHTEST = 1e15
"""Flux over the smallest σ of a spectrum at which it is clipped, so that its square stays finite."""
FIRST_NOISE_PIXEL = 34000
"""log10 λ = 3.4, 2512 Å: where the table of noise scales by observed wavelength begins."""
NOISE_BITS = 4
"""A noise scale goes with 2⁴ pixels: a shift is several times as fast as a division."""
N_NOISE = 8000 >> NOISE_BITS
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
    def loglam(self) -> tuple[float, float]:
        """log10 of the rest-frame vacuum wavelength in Å of the first bin's centre, and the step from bin to bin."""
        return GRID_STEP * (BIN * self.first_bin + (BIN - 1) / 2), GRID_STEP * BIN

    @property
    def wavelength(self) -> np.ndarray:
        """(n_values,) rest-frame vacuum wavelength of the bins' centres, Å."""
        first, step = self.loglam
        return 10 ** (first + step * np.arange(self.n_values))

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
        flux, ivar, _ = _binned(batch, start, first_bin, n_values)
        if not flux.any():
            raise ValueError("the training spectra are zero everywhere: leave out empty fibres")
        mean, signal = _mean_spectrum(flux, ivar)
        return cls(
            first_bin=first_bin,
            mean=mean.double().numpy(),
            amplitude_floor=float(np.quantile(signal.numpy(), 0.01)),
            # a floor of 0 could not be fallen below, and spectra without any measurement may be 1 % of a training set
            coverage_floor=float(np.quantile((ivar > 0).double().mean(1).numpy(), 0.01)) or 1e-3,
        )

    def __call__(self, batch: SpectrumBatch, device: torch.device | str = "cpu") -> Prepared:
        """Normalise n spectra; needs nothing but the batch, so any batch size gives the same rows."""
        shift = _shift(batch.redshift)
        flux, ivar, snr = _binned(batch, batch.first - shift, self.first_bin, self.n_values, device)
        amplitude, signal = _amplitude(flux, ivar, on_device(self.mean.astype(np.float32), device))
        # dividing by less than the training set's faintest amplitude, or 3 σ, would turn noise into features
        floor = max(self.amplitude_floor, FAINTEST)
        error = amplitude / torch.where(signal == 0, 1.0, signal)
        amplitude = torch.where(signal < floor, error.abs() * floor, amplitude)
        coverage = ivar.sign().sum(1).double() / self.n_values
        amplitude = torch.where(coverage > 0, amplitude, 1.0).float()[:, None]
        first = on_device(BIN * self.first_bin + shift - FIRST_NOISE_PIXEL, device)
        pixel = first[:, None] + BIN * torch.arange(self.n_values, device=device)
        redshift = np.where(np.isfinite(batch.redshift), batch.redshift, 0.0)
        distance = on_device(np.log1p(np.clip(redshift, -0.01, None)), device)
        faint = (self.amplitude_floor - signal).clamp(min=0) / max(abs(self.amplitude_floor), 1.0)
        return Prepared(
            x=(flux / amplitude).clamp_(-LARGEST, LARGEST),
            ivar=ivar * amplitude**2,
            noise_index=(pixel >> NOISE_BITS).clamp_(0, N_NOISE - 1),
            snr=snr,
            covariates=torch.stack([signal.clamp(min=1).log(), distance], 1),
            outside=torch.maximum((self.coverage_floor - coverage).clamp(min=0) / self.coverage_floor, faint),
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
    batch: SpectrumBatch, start: np.ndarray, first_bin: int, n_values: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """ivar-weighted mean flux and summed ivar per bin, both (n, n_values) float32, and the median S/N, (n,) float64.

    Flux comes in units of the best measured pixel's σ, rounded to a power of two: whatever units a survey writes, the
    squares stay finite. Each spectrum is moved by up to three pixels to where its bins begin, binned on its own
    pixels, and then taken to the grid.
    """
    n, n_pixels = batch.flux.shape
    n_own = -(-(n_pixels + BIN - 1) // BIN) + 2  # the first and the last one are reached by no pixel
    ivar = on_device(batch.ivar, device)
    unit = torch.exp2(ivar.amax(1, keepdim=True).clamp(min=1e-37).log2().div(2).round())
    ivar = ivar / unit / unit
    flux = torch.where(ivar > 0, on_device(batch.flux, device), 0.0)
    weight = torch.zeros((n, n_own * BIN), device=device)
    product = torch.zeros_like(weight)
    ivar_flux = (flux * unit).clamp_(-BRIGHTEST, BRIGHTEST) * ivar
    for lead in range(BIN):
        rows = on_device(np.flatnonzero(start % BIN == lead), device)
        pixels = slice(BIN + lead, BIN + lead + n_pixels)
        weight[rows, pixels], product[rows, pixels] = ivar[rows], ivar_flux[rows]
    weight, product = (a[:, 0::BIN] + a[:, 1::BIN] + a[:, 2::BIN] + a[:, 3::BIN] for a in (weight, product))
    mean = product / torch.where(weight > 0, weight, 1.0)
    # of a pixel, so over √BIN; bins have done what the median of single pixels would leave of the noise
    ratio = torch.where(weight > 0, mean * (weight / BIN).sqrt(), torch.nan)
    snr = torch.nan_to_num(ratio.nanmedian(1).values).double()
    first = on_device(first_bin - start // BIN + 1, device)
    # the grid's bins before and after a spectrum read an empty one
    own = (first[:, None] + torch.arange(n_values, device=device)).clamp_(0, n_own - 1)
    return mean.gather(1, own), weight.gather(1, own), snr


def _amplitude(flux: Tensor, ivar: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitude a minimising Σ ivar (flux − a·mean)², and a over its error; both (n,) float64, zeros without data."""
    weighted = ivar * mean
    weight = (weighted * mean).sum(1, dtype=torch.float64)
    safe = torch.where(weight > 0, weight, 1.0)
    amplitude = (weighted * flux).sum(1, dtype=torch.float64) / safe
    # an exactly zero amplitude still needs its error, so it is nudged by a negligible part of that error
    amplitude = torch.where(amplitude == 0, 1e-9 / safe.sqrt(), amplitude)
    return amplitude, amplitude * safe.sqrt()


def _mean_spectrum(flux: Tensor, ivar: Tensor) -> tuple[Tensor, Tensor]:
    """Mean spectrum at unit amplitude by alternating fits, and every spectrum's amplitude over its error."""
    mean = torch.ones(flux.shape[1])
    signal = torch.ones(len(flux))
    for _ in range(5):
        amplitude, signal = _amplitude(flux, ivar, mean)
        error = (amplitude / signal).abs()
        scale = torch.maximum(amplitude, FAINTEST * error)[:, None].float()
        # 0.1: objects differ by about 30 % from the mean, so no single bright spectrum decides it
        weight = torch.where(ivar > 0, 1 / (1 / (ivar * scale**2).clamp(min=1e-12) + 0.1), 0.0)
        total = weight.sum(0)
        mean = (weight * flux / scale).sum(0) / torch.where(total > 0, total, 1.0)
        used = total > 0
        mean = torch.where(used, mean.clamp(min=0.02 * float(mean[used].median())), 0.0)
        mean = torch.where(used, mean, mean[used].mean())
        mean /= mean.mean()
    return mean, signal
