"""Faults of an image: each function changes an exposed cutout in place and says what it did."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.simulate.grid import log_uniform
from workers.simulate.light import SIZE, Image, colours

BAD, SATURATED, COSMIC, NODATA = 1, 2, 4, 8
"""Bits of the MASK extension."""
FULL_WELL = 4.0
"""Nanomaggy per pixel at which the camera saturates."""
_TICKS = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
X, Y = _TICKS[None, :], _TICKS[:, None]


@dataclass(slots=True)
class Exposure:
    """An exposed cutout."""

    flux: Image
    """Shape (3, SIZE, SIZE), nanomaggy per pixel."""
    variance: Image
    """Of the same shape, nanomaggy²."""
    mask: NDArray[np.int16]
    fwhm: tuple[float, float, float]
    gain: NDArray[np.float32]
    """Electrons per nanomaggy in g, r, i."""

    @property
    def noise(self) -> Image:
        """Sky noise per band, shape (3,)."""
        return np.sqrt(np.median(self.variance, axis=(1, 2)))


Planted = tuple[float, str]
"""Strength, and a note for the truth table."""


def satellite_trail(rng: np.random.Generator, image: Exposure) -> Planted:
    """A satellite crossed one exposure, or each at another place; strength: peak over the sky noise."""
    strength = log_uniform(rng, 4, 40)
    bands = [int(rng.integers(3))] if rng.random() < 0.75 else [0, 1, 2]
    for band in bands:
        angle, offset = rng.uniform(0, math.pi), rng.uniform(-0.4, 0.4) * SIZE
        width = image.fwhm[band] / 2.355 * rng.uniform(1.0, 1.7)
        away = X * math.cos(angle) + Y * math.sin(angle) - offset
        trail = strength * image.noise[band] * np.exp(-0.5 * (away / width) ** 2)
        image.flux[band] += trail + np.sqrt(trail / image.gain[band]) * rng.standard_normal((SIZE, SIZE))
    return strength, "bands=" + "".join("gri"[band] for band in bands)


def saturated_star(rng: np.random.Generator, image: Exposure) -> Planted:
    """A star far over the full well, with halo, spikes and bleeding; strength: its r flux in nanomaggy."""
    strength = log_uniform(rng, 100, 2500)
    x, y = rng.uniform(-0.42, 0.42, 2) * SIZE
    tint = colours(rng.uniform(0.2, 1.3), rng.uniform(0.05, 0.7))
    r2 = (X - x) ** 2 + (Y - y) ** 2
    along, tilt, flagged = rng.uniform(8, 18), rng.uniform(-0.15, 0.15), rng.random() < 0.5
    for band in range(3):
        alpha = image.fwhm[band] / 1.21
        core = 0.94 * 1.6 / (math.pi * alpha**2) * (1 + r2 / alpha**2) ** -2.6
        halo = 0.06 / (2 * math.pi * 14**2) * np.exp(-np.sqrt(r2) / 14)
        u, v = (X - x) + tilt * (Y - y), (Y - y) - tilt * (X - x)
        spikes = np.exp(-np.abs(u) / 0.8 - np.abs(v) / along) + np.exp(-np.abs(v) / 0.8 - np.abs(u) / along)
        star = strength * tint[band] * (core + halo + 5e-4 * spikes)
        image.flux[band] += star + np.sqrt(star / image.gain[band]) * rng.standard_normal((SIZE, SIZE))
        image.variance[band] += star / image.gain[band]
        over = star > FULL_WELL
        if over.any():
            spill = over.sum(0)[None, :] / over.sum(0).max() * rng.uniform(0.15, 0.5) * SIZE
            over |= (np.abs(Y - y) < spill) & (spill > 0.35 * spill.max())
        image.flux[band][over] = FULL_WELL
        if flagged:
            image.mask[band][over] |= SATURATED
    return strength, f"x={x:.0f};y={y:.0f}" + (";flagged" if flagged else "")


def ghost(rng: np.random.Generator, image: Exposure) -> Planted:
    """An out-of-focus reflection of the pupil; strength: surface brightness over the sky noise."""
    strength, radius = log_uniform(rng, 1.2, 7), rng.uniform(0.18, 0.45) * SIZE
    x, y = rng.uniform(-0.35, 0.35, 2) * SIZE
    hole_x, hole_y = x + 0.1 * radius * rng.normal(), y + 0.1 * radius * rng.normal()

    def disc(cx: float, cy: float, r: float) -> Image:
        return 1 / (1 + np.exp(np.clip((np.hypot(X - cx, Y - cy) - r) / 0.9, -50, 50)))

    pupil = (disc(x, y, radius) - disc(hole_x, hole_y, 0.38 * radius)).clip(0)
    pupil = pupil * (1 + 0.25 * (X - x) / radius)
    for band in range(3):
        image.flux[band] += strength * image.noise[band] * rng.uniform(0.5, 1.2) * pupil
    return strength, f"radius={radius:.0f}"


def wrong_stretch(rng: np.random.Generator, image: Exposure) -> Planted:
    """Somebody's display stretch, 8-bit levels, a sign, or one band on another zero-point."""
    sort = str(rng.choice(["asinh", "eight_bit", "log", "negative", "one_band"]))
    flux, noise = image.flux, image.noise[:, None, None]
    low, high = np.nanpercentile(flux, [30, 98.5])
    if sort == "asinh":
        flux[:] = 0.03 * np.arcsinh(flux / (2 * noise))
    elif sort == "eight_bit":
        flux[:] = np.round(np.clip((flux - low) / (high - low), 0, 1) * 255) * (high - low) / 255
    elif sort == "log":
        flux[:] = 0.3 + 0.1 * np.log10(np.maximum(flux, noise / 3))
    elif sort == "negative":
        flux *= -1
    else:
        flux[rng.integers(3)] *= log_uniform(rng, 6, 50) ** rng.choice([-1, 1])
    return 1.0, sort


def half_frame(rng: np.random.Generator, image: Exposure) -> Planted:
    """Part of the frame is lost: zero, not a number, repeated or shifted; strength: the share lost."""
    strength = rng.uniform(0.2, 0.6)
    sort = str(rng.choice(["zero", "nan", "repeat", "shift"]))
    bands = slice(None) if rng.random() < 0.5 else slice(band := int(rng.integers(3)), band + 1)
    turned = rng.random() < 0.5
    flux = (image.flux.swapaxes(1, 2) if turned else image.flux)[bands]
    mask = (image.mask.swapaxes(1, 2) if turned else image.mask)[bands]
    first = SIZE - int(strength * SIZE)
    if sort == "zero":
        flux[:, first:] = 0
    elif sort == "nan":
        flux[:, first:] = np.nan
    elif sort == "repeat":
        flux[:, first:] = flux[:, first - 1 : first]
    else:
        flux[:, first:] = np.roll(flux[:, first:], int(rng.integers(8, SIZE - 8)), 2)
    if sort in ("zero", "nan") and rng.random() < 0.5:
        mask[:, first:] |= NODATA
        sort += ";flagged"
    return strength, sort


FAULTS: dict[str, Callable[[np.random.Generator, Exposure], Planted]] = {
    "satellite_trail": satellite_trail,
    "saturated_star": saturated_star,
    "ghost": ghost,
    "wrong_stretch": wrong_stretch,
    "half_frame": half_frame,
}


def blemishes(rng: np.random.Generator, image: Exposure) -> None:
    """What every camera has, and flags: cosmic rays, and now and then a bad column; in place."""
    for _ in range(rng.poisson(0.5)):
        band, angle = rng.integers(3), rng.uniform(0, math.pi)
        x, y = rng.uniform(3, SIZE - 3, 2)
        energy = log_uniform(rng, 0.05, 2.5)
        for step in range(int(log_uniform(rng, 1, 9))):
            row, column = round(y + step * math.sin(angle)), round(x + step * math.cos(angle))
            if 0 <= row < SIZE and 0 <= column < SIZE:
                image.flux[band, row, column] += energy * rng.uniform(0.5, 1)
                image.mask[band, row, column] |= COSMIC
    if rng.random() < 0.1:
        band, column = rng.integers(3), rng.integers(SIZE)
        image.flux[band, :, column] = np.nan if rng.random() < 0.3 else 0
        image.mask[band, :, column] |= BAD
