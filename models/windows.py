"""The windows of an object that depart most from its reconstruction, with names an astronomer knows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from models.cutouts import CutoutPreprocessing
from models.parts import WINDOWS
from models.spectra import SpectrumPreprocessing

LINES = {
    "Lyα": 1215.7, "N V": 1240.8, "Si IV": 1396.8, "C IV": 1549.5, "He II 1640": 1640.4, "Al III": 1857.4,
    "C III]": 1908.7, "Mg II": 2799.1, "[O II]": 3728.8, "[Ne III]": 3869.9, "Ca K": 3934.8, "Ca H": 3969.6,
    "Hδ": 4102.9, "G band": 4305.6, "Hγ": 4341.7, "[O III] 4363": 4364.4, "He II": 4687.0, "Hβ": 4862.7,
    "[O III] 4959": 4960.3, "[O III]": 5008.2, "Mg b": 5176.6, "He I": 5877.2, "Na D": 5894.6, "[O I]": 6302.0,
    "[N II] 6548": 6549.9, "Hα": 6564.6, "[N II]": 6585.3, "[S II] 6716": 6718.3, "[S II]": 6732.7,
    "[Ar III]": 7137.8, "Ca II 8498": 8500.4, "Ca II 8542": 8544.4, "Ca II 8662": 8664.5, "[S III]": 9071.1,
}  # fmt: skip
"""Rest-frame vacuum wavelengths in Å (NIST, rounded)."""
SKY_LINES = (5578.9, 5891.6, 5897.6, 6302.0, 6365.5)
"""Strong night-sky lines, observed frame, vacuum Å."""
MIN_SIGNIFICANCE = 4.0
"""σ below which a window is what noise does among thousands of windows."""
LINE_TOLERANCE = 600.0
"""km/s within which a window's centre is named after a line."""
C_KMS = 299792.458


@dataclass(frozen=True, slots=True)
class SpectralWindow:
    """A stretch of a spectrum that departs from its reconstruction."""

    significance: float
    """Σ residual / √n in σ: positive for excess light."""
    low: float
    """Rest-frame wavelength range, Å."""
    high: float
    line: str
    """The nearest known line within 600 km/s, ``night sky`` at a sky line, or empty."""


@dataclass(frozen=True, slots=True)
class ImageWindow:
    """A square of a cutout that departs from its reconstruction."""

    significance: float
    band: str
    row: int
    column: int
    """Of the window's central pixel on the model's grid, from 0."""
    size: int
    radius: float
    """Distance from the cutout's centre, pixels of the model's grid."""
    position_angle: float
    """Degrees from up (+row) through left (−column): north through east on an image with north up, east left."""


def windows_of(
    residual: np.ndarray,
    seen: np.ndarray,
    preprocessing: SpectrumPreprocessing | CutoutPreprocessing,
    redshift: float,
) -> list[SpectralWindow] | list[ImageWindow]:
    """The worst windows of one object, named; ``residual`` in σ and ``seen`` are (n_values,)."""
    worst = worst_windows(residual, seen, preprocessing.shape)
    if isinstance(preprocessing, SpectrumPreprocessing):
        return [_spectral(w, preprocessing.wavelength, redshift) for w in worst]
    return [_image(w, preprocessing.bands, preprocessing.size) for w in worst]


def worst_windows(
    residual: np.ndarray, seen: np.ndarray, shape: tuple[int, ...], most: int = 5
) -> list[tuple[float, int, tuple[int, ...], int]]:
    """Windows with the largest |Σ residual| / √n, as (significance, channel, start of each axis, length).

    ``residual`` and ``seen`` are flat, (n_values,). No two of them overlap in one channel.
    """
    image = torch.from_numpy(residual.reshape(shape))
    mask = torch.from_numpy(seen.reshape(shape).astype(residual.dtype))
    candidates: list[tuple[float, int, tuple[int, ...], int]] = []
    for length in WINDOWS[len(shape) - 1]:
        if length > min(shape[1:]):
            continue
        total, count = (_window_sums(a, length) for a in (image, mask))
        value = (total / count.clamp(min=1).sqrt()).numpy()
        for flat in np.argsort(-np.abs(value), axis=None)[: 20 * most]:
            if abs(value.flat[flat]) < MIN_SIGNIFICANCE:
                break
            channel, *start = (int(k) for k in np.unravel_index(flat, value.shape))
            candidates.append((float(value.flat[flat]), channel, tuple(start), length))
    chosen: list[tuple[float, int, tuple[int, ...], int]] = []
    for one in sorted(candidates, key=lambda c: -abs(c[0])):
        if not any(_overlap(one, other) for other in chosen):
            chosen.append(one)
        if len(chosen) == most:
            break
    return chosen


def _window_sums(image: torch.Tensor, length: int) -> torch.Tensor:
    for axis in range(1, image.dim()):
        image = image.unfold(axis, length, 1).sum(-1)
    return image


def _overlap(a: tuple[float, int, tuple[int, ...], int], b: tuple[float, int, tuple[int, ...], int]) -> bool:
    return a[1] == b[1] and all(s < t + b[3] and t < s + a[3] for s, t in zip(a[2], b[2], strict=True))


def _spectral(
    window: tuple[float, int, tuple[int, ...], int], wavelength: np.ndarray, redshift: float
) -> SpectralWindow:
    significance, _, (start,), length = window
    low, high = float(wavelength[start]), float(wavelength[start + length - 1])
    centre = math.sqrt(low * high)
    if min(abs(centre * (1 + redshift) - sky) for sky in SKY_LINES) < 6:
        return SpectralWindow(significance, low, high, "night sky")
    name, rest = min(LINES.items(), key=lambda item: abs(item[1] - centre))
    reach = max(LINE_TOLERANCE / C_KMS * centre, (high - low) / 4)
    return SpectralWindow(significance, low, high, name if abs(rest - centre) < reach else "")


def _image(window: tuple[float, int, tuple[int, ...], int], bands: tuple[str, ...], size: int) -> ImageWindow:
    significance, channel, (row, column), length = window
    y, x = row + (length - 1) / 2, column + (length - 1) / 2
    up, left = y - (size - 1) / 2, (size - 1) / 2 - x
    angle = math.degrees(math.atan2(left, up)) % 360
    return ImageWindow(significance, bands[channel], round(y), round(x), length, math.hypot(up, left), angle)
