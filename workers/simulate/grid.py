"""The wavelength grids of the simulator, and the few operations that every simulated spectrum is made of.

Everything lies on the survey's common grid loglam = 1e-4 · i (log10 of the vacuum wavelength in Å), so a
redshift is a shift along an array and a velocity is a number of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

STEP = 1e-4
KMS_PER_PIXEL = 299792.458 * STEP * math.log(10)

FIRST, N_PIXELS = 35780, 3900
"""Grid index of the first pixel and number of pixels of the observed frame, 3784–9287 Å."""
WAVE: Array = 10 ** (STEP * np.arange(FIRST, FIRST + N_PIXELS))
"""Observed vacuum wavelength, shape (N_PIXELS,), Å."""

REST_FIRST, N_REST = 33400, 6500
REST_WAVE: Array = 10 ** (STEP * np.arange(REST_FIRST, REST_FIRST + N_REST))
"""Rest wavelength of the stellar templates, shape (N_REST,), 2188–9772 Å."""

R_BAND = slice(1700, 2610)
"""Observed pixels of the r band, 5598–6902 Å; sources are made with a mean of 1 there."""

# Effective wavelengths (Å) and edges of ugriz as far as the spectrograph sees them.
BANDS = {"u": (3790, 4000), "g": (4000, 5400), "r": (5600, 6900), "i": (6900, 8200), "z": (8200, 9200)}


def unit(flux: Array) -> Array:
    """``flux`` (N_PIXELS,) scaled to a mean of 1 in the r band."""
    return flux / max(float(flux[R_BAND].mean()), 1e-9)


def seen_at(rest: Array, redshift: float) -> Array:
    """Rest-frame templates (…, N_REST) as they appear on the observed grid (…, N_PIXELS).

    Linear interpolation between neighbouring pixels; pixels beyond the templates repeat their last value.
    """
    start = FIRST - math.log10(1 + redshift) / STEP - REST_FIRST
    whole = math.floor(start)
    part = start - whole
    index = np.clip(np.arange(whole, whole + N_PIXELS + 1), 0, N_REST - 1)
    shifted = rest[..., index]
    return (1 - part) * shifted[..., :-1] + part * shifted[..., 1:]


def smooth(flux: Array, sigma: float) -> Array:
    """``flux`` (n,) convolved with a Gaussian of ``sigma`` pixels; the edges are repeated."""
    if sigma < 0.2:
        return flux
    reach = max(1, math.ceil(3.5 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.concatenate([np.full(reach, flux[0]), flux, np.full(reach, flux[-1])])
    return np.convolve(padded, kernel / kernel.sum(), "valid")


def add_lines(flux: Array, wavelengths: Sequence[float], areas: Sequence[float], sigma_kms: float) -> None:
    """Add Gaussian lines to ``flux`` (N_PIXELS,) in place.

    ``wavelengths`` are observed, in Å; ``areas`` are in units of flux × Å, negative for absorption;
    ``sigma_kms`` is the dispersion in km/s, instrument included. Lines outside the grid are left out.
    """
    sigma = sigma_kms / KMS_PER_PIXEL
    reach = math.ceil(5 * sigma)
    for wavelength, area in zip(wavelengths, areas, strict=True):
        centre = math.log10(wavelength) / STEP - FIRST
        low, high = max(0, int(centre) - reach), min(N_PIXELS, int(centre) + reach + 1)
        if low >= high:
            continue
        profile = np.exp(-0.5 * ((np.arange(low, high) - centre) / sigma) ** 2)
        width = sigma * math.sqrt(2 * math.pi) * wavelength * STEP * math.log(10)
        flux[low:high] += area / width * profile


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """One number between ``low`` and ``high``, uniform in its logarithm."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))
