"""The windows of an object that depart most from its reconstruction, with names an astronomer knows."""

from __future__ import annotations

import math

import numpy as np
import torch

from models.cutouts import CutoutPreprocessing
from models.explanation import ImageWindow, SpectralWindow
from models.parts import window_sums
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


def windows_of(
    residual: np.ndarray,
    seen: np.ndarray,
    preprocessing: SpectrumPreprocessing | CutoutPreprocessing,
    redshift: np.ndarray,
) -> list[list[SpectralWindow] | list[ImageWindow]]:
    """The worst windows of n objects, named; ``residual`` in σ and ``seen`` are (n, n_values), ``redshift`` (n,)."""
    worst = worst_windows(residual, seen, preprocessing.shape)
    if isinstance(preprocessing, SpectrumPreprocessing):
        wavelength = preprocessing.wavelength
        return [
            [_spectral(w, wavelength, float(z)) for w in ws] for ws, z in zip(worst, redshift, strict=True)
        ]
    return [[_image(w, preprocessing) for w in ws] for ws in worst]


def worst_windows(
    residual: np.ndarray, seen: np.ndarray, shape: tuple[int, ...], most: int = 5
) -> list[list[tuple[float, int, tuple[int, ...], int]]]:
    """Windows of the largest |Σ residual| / √n, as (significance, channel, start of each axis, length), of each object.

    ``residual`` and ``seen`` are flat, (n, n_values). No two windows of an object overlap in one channel.
    """
    image, mask = (torch.from_numpy(a.astype(np.float32).reshape(-1, *shape)) for a in (residual, seen))
    values = [
        (total / count.clamp(min=1).sqrt()).numpy()
        for total, count in zip(window_sums(image), window_sums(mask), strict=True)
    ]
    return [_choose([value[i] for value in values], most) for i in range(len(residual))]


def _choose(values: list[np.ndarray], most: int) -> list[tuple[float, int, tuple[int, ...], int]]:
    """The ``most`` largest of one object's windows, as above; ``values`` (channels, …) are by doubling length."""
    sizes = [np.abs(value) for value in values]
    places = [int(size.argmax()) for size in sizes]
    chosen: list[tuple[float, int, tuple[int, ...], int]] = []
    for _ in range(most):
        best = max(range(len(sizes)), key=lambda k: sizes[k].flat[places[k]])
        value = float(values[best].flat[places[best]])
        if abs(value) < MIN_SIGNIFICANCE:
            break
        length = 2**best
        channel, *start = (int(k) for k in np.unravel_index(places[best], sizes[best].shape))
        chosen.append((value, channel, tuple(start), length))
        for doublings, other in enumerate(sizes):  # what overlaps it may not be chosen again
            other[channel][tuple(slice(max(0, k - 2**doublings + 1), k + length) for k in start)] = 0
            if other.flat[places[doublings]] == 0:
                places[doublings] = int(other.argmax())
    return chosen


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


def _image(
    window: tuple[float, int, tuple[int, ...], int], preprocessing: CutoutPreprocessing
) -> ImageWindow:
    significance, channel, start, length = window
    # from the density model's pixels to those of the image
    n, centre = preprocessing.coarse, (preprocessing.size - 1) / 2
    y, x = (n * (k + length / 2) - 0.5 for k in start)
    up, left = y - centre, centre - x
    angle = math.degrees(math.atan2(left, up)) % 360
    band, radius = preprocessing.bands[channel], math.hypot(up, left)
    return ImageWindow(significance, band, round(y), round(x), n * length, radius, angle)
