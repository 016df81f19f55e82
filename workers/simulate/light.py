"""Light on a fine pixel grid: Sérsic profiles, spiral arms, the point-spread function, and the camera.

The fine grid has ``OVER`` pixels per camera pixel and a margin, so that the periodic convolution wraps
nothing in. Positions are in camera pixels from the middle of the cutout, x along columns and y along rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from workers.simulate.grid import log_uniform

Image = NDArray[np.floating[Any]]

SIZE = 64
"""Pixels on a side of a cutout."""
SCALE = 0.339
"""Arcsec per pixel."""
OVER = 3
MARGIN = 8
FINE = (SIZE + 2 * MARGIN) * OVER
AXIS: Image = ((np.arange(FINE, dtype=np.float32) + 0.5) / OVER - MARGIN - SIZE / 2).astype(np.float32)
"""Coordinate of the fine pixels, camera pixels from the middle, shape (FINE,)."""
FWHM = (3.2, 2.75, 2.6)
"""Typical seeing in g, r and i, pixels."""


@dataclass(slots=True)
class Profile:
    """An elliptical Sérsic profile."""

    flux: float
    """Nanomaggy in r."""
    radius: float
    """Half-light radius along the major axis, pixels."""
    index: float
    axis_ratio: float
    angle: float
    """Of the major axis from +x to +y, radians."""
    x: float = 0.0
    y: float = 0.0


def window(x: float, y: float, reach: float) -> tuple[slice, slice]:
    """Rows and columns of the fine grid within ``reach`` camera pixels of (x, y)."""

    def cut(centre: float) -> slice:
        low = int((centre - reach + SIZE / 2 + MARGIN) * OVER)
        return slice(max(0, low), min(FINE, low + int(2 * reach * OVER) + 1))

    return cut(y), cut(x)


def sersic(shape: Profile, x: Image, y: Image) -> Image:
    """Flux per fine pixel of a profile at coordinates ``x``, ``y`` (broadcast), total ``shape.flux``.

    b_n from Ciotti & Bertin (1999, A&A 352, 447, eq. 18). The centre is softened by a third of a fine pixel.
    """
    n, q = shape.index, shape.axis_ratio
    b = 2 * n - 1 / 3 + 0.009876 / n
    c, s = math.cos(shape.angle), math.sin(shape.angle)
    u, v = c * (x - shape.x) + s * (y - shape.y), c * (y - shape.y) - s * (x - shape.x)
    r2 = (u * u + (v / q) ** 2 + (0.33 / OVER) ** 2) / shape.radius**2
    light = np.exp(-b * (r2 ** np.float32(0.5 / n) - 1), dtype=np.float32)
    total = 2 * math.pi * shape.radius**2 * q * n * math.exp(b) * b ** (-2 * n) * math.gamma(2 * n) * OVER**2
    return light * np.float32(shape.flux / total)


def spiral(rng: np.random.Generator, disc: Profile) -> Image:
    """Factor (FINE, FINE) that raises two or three logarithmic arms and a few bright knots in a disc."""
    x, y = AXIS[None, :] - np.float32(disc.x), AXIS[:, None] - np.float32(disc.y)
    c, s = math.cos(disc.angle), math.sin(disc.angle)
    u, v = c * x + s * y, (c * y - s * x) / disc.axis_ratio
    r = np.hypot(u, v) / disc.radius + 0.05
    pitch, arms, turn = (
        rng.uniform(3.0, 6.5) * rng.choice([-1, 1]),
        rng.choice([2, 2, 2, 2, 3]),
        rng.uniform(0, 2 * math.pi),
    )
    phase = arms * np.arctan2(v, u) - np.float32(pitch) * np.log(r) + np.float32(turn)
    ridge = np.exp(1.4 * (np.cos(phase) - 1), dtype=np.float32)
    return (
        (1 + rng.uniform(0.25, 1.1) * (ridge - 0.35) * np.minimum(r, 1) ** 1.5).clip(0.1).astype(np.float32)
    )


@dataclass(slots=True)
class Seeing:
    """One night's point-spread function in g, r and i."""

    fwhm: tuple[float, float, float]
    """Pixels."""
    transform: NDArray[np.complex64]
    """Of the PSF centred on the origin, shape (3, FINE, FINE // 2 + 1)."""
    stamp: Image
    """The PSF in camera pixels, (3, 41, 41), each with sum 1, centred on a pixel."""


@lru_cache(maxsize=32)
def seeing(night: int) -> Seeing:
    """The Moffat PSF of one of 32 nights: width, wings and elongation differ."""
    rng = np.random.default_rng([night, 3])
    worse, beta = rng.lognormal(0, 0.10), rng.uniform(2.6, 3.8)
    stretch, angle = rng.uniform(1.0, 1.09), rng.uniform(0, math.pi)
    ticks = fft.fftfreq(FINE, 1 / (FINE / OVER)).astype(np.float32)
    stamp_ticks = np.arange(-20, 21, dtype=np.float32)
    widths, transforms, stamps = [], [], []
    for typical in FWHM:
        fwhm = float(typical * worse * rng.lognormal(0, 0.03))
        alpha = fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))

        def moffat(t: Image, alpha: float = alpha) -> Image:
            c, s = math.cos(angle), math.sin(angle)
            u, v = c * t[None, :] + s * t[:, None], c * t[:, None] - s * t[None, :]
            shape = (1 + (u * u / stretch + v * v * stretch) / alpha**2) ** -beta
            return (shape / shape.sum()).astype(np.float32)

        widths.append(fwhm)
        transforms.append(fft.rfft2(moffat(ticks)).astype(np.complex64))
        stamps.append(moffat(stamp_ticks))
    return Seeing((widths[0], widths[1], widths[2]), np.array(transforms), np.array(stamps))


def photograph(fine: Image, through: Seeing) -> Image:
    """The cutout (3, SIZE, SIZE) of light on the fine grid (3, FINE, FINE): blurred and binned."""
    blurred = fft.irfft2(fft.rfft2(fine) * through.transform, s=(FINE, FINE))
    wide = FINE // OVER
    binned = blurred.reshape(3, wide, OVER, wide, OVER).sum((2, 4))
    return binned[:, MARGIN:-MARGIN, MARGIN:-MARGIN].astype(np.float32)


def colours(g_r: float, r_i: float) -> Image:
    """Flux in g, r, i relative to r, shape (3,)."""
    return np.array([10 ** (-0.4 * g_r), 1, 10 ** (0.4 * r_i)], np.float32)


def nanomaggy(magnitude: float) -> float:
    """Flux of an AB magnitude."""
    return 10 ** (0.4 * (22.5 - magnitude))


def typical_radius(rng: np.random.Generator, magnitude: float) -> float:
    """Half-light radius (pixels) of a galaxy of this r magnitude, with the scatter of real ones."""
    return 2.1 * 10 ** (-0.13 * (magnitude - 18)) * log_uniform(rng, 0.6, 1.6) / SCALE
