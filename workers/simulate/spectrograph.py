"""The spectrograph and the night sky: from a noise-free flux to the flux, ivar and masks of one fibre.

The numbers are those of a 45-minute exposure of the SDSS-I spectrographs: noise, sky level, resolution and
how wrong the pipeline's own errors are (0.9 of what they say in the blue, more than they say under the OH
lines).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from workers.simulate.grid import (
    FIRST,
    KMS_PER_PIXEL,
    N_PIXELS,
    STEP,
    WAVE,
    Array,
    add_lines,
    log_uniform,
    smooth,
)

# Night-sky lines (Osterbrock et al. 1996, PASP 108, 277): vacuum Å, typical peak in 1e-17 erg/s/cm²/Å.
CITY = (
    (4047.7, 16),
    (4359.6, 33),
    (5462.3, 30),
    (5685, 4),
    (5689.8, 12),
    (5771, 7),
    (5792, 7),
    (5891.6, 60),
    (5897.6, 35),
)
OXYGEN = ((5199.5, 3), (5578.9, 206), (6302.0, 54), (6365.5, 19))
HYDROXYL = (
    (5869, 6), (5917, 4), (5934, 6), (5955, 5), (6237, 11), (6260, 10), (6289, 7), (6331, 7), (6467, 6),
    (6501, 11), (6535, 8), (6555, 9), (6579, 7), (6606, 4), (6831, 19), (6866, 27), (6891, 5), (6902, 4),
    (6915, 7), (6926, 14), (6942, 7), (6952, 17), (6981, 11), (7015, 5), (7050, 5), (7243, 44), (7279, 55),
    (7306, 11), (7318, 37), (7332, 17), (7343, 50), (7360, 14), (7372, 38), (7394, 11), (7404, 25), (7432, 7),
    (7440, 13), (7475, 10), (7483, 10), (7526, 30), (7574, 21), (7587, 6), (7601, 21), (7621, 6), (7631, 16),
    (7665, 6), (7719, 57), (7753, 72), (7784, 10), (7796, 46), (7811, 16), (7823, 60), (7843, 12), (7856, 67),
    (7872, 25), (7892, 30), (7916, 78), (7934, 22), (7952, 11), (7967, 57), (7982, 25), (7996, 66),
    (8017, 18), (8028, 47), (8054, 10), (8065, 26), (8106, 10), (8149, 5), (8186, 5), (8198, 7), (8291, 61),
    (8300, 63), (8314, 21), (8347, 140), (8367, 16), (8385, 31), (8402, 108), (8418, 44), (8433, 129),
    (8455, 38), (8468, 99), (8496, 25), (8507, 56), (8541, 10), (8551, 20), (8632, 32), (8657, 31),
    (8770, 110), (8780, 115), (8794, 38), (8829, 210), (8853, 20), (8869, 46), (8888, 155), (8906, 73),
    (8923, 195), (8945, 56), (8962, 133), (8991, 45), (9003, 79), (9041, 23), (9053, 42), (9095, 12),
    (9105, 21), (9218, 25),
)  # fmt: skip

# (wavelength in Å, value): 1σ of a fibre on dark sky, noise variance per unit of flux, sky continuum, wdisp,
# and the true noise over what the pipeline says.
NOISE = (
    (3784, 3), (3820, 2.6), (3900, 1.95), (4000, 1.57), (4250, 1.05), (4500, 0.88), (4750, 0.76), (5000, 0.7),
    (5250, 0.63), (5500, 0.62), (5750, 0.65), (5900, 0.67), (6000, 0.63), (6100, 0.54), (6300, 0.45),
    (6500, 0.39), (6750, 0.34), (7000, 0.34), (7500, 0.38), (8000, 0.45), (8250, 0.48), (8500, 0.57),
    (8750, 0.7), (9000, 0.82), (9287, 1),
)  # fmt: skip
GAIN = (
    (3784, 0.5), (4000, 0.2), (4300, 0.07), (4700, 0.045), (5100, 0.029), (5500, 0.045), (5900, 0.055),
    (6100, 0.035), (6500, 0.018), (7000, 0.02), (7800, 0.026), (8400, 0.039), (8900, 0.066), (9287, 0.11),
)  # fmt: skip
SKY = (
    (3784, 3.6), (3900, 4.6), (4100, 6.1), (4500, 5.9), (5000, 5.4), (5400, 5.3), (5700, 7.3), (5880, 10.8),
    (5960, 10.5), (6100, 7.4), (6600, 5), (7000, 4.8), (7600, 5.2), (7900, 6.2), (8200, 4.7), (8700, 5.4),
    (9287, 3.6),
)  # fmt: skip
DISPERSION = (
    (3784, 1.16), (4250, 1.06), (4750, 0.965), (5250, 0.88), (5750, 0.8), (5850, 0.86), (6100, 0.943),
    (6750, 0.863), (7500, 0.762), (8300, 0.705), (9287, 0.75),
)  # fmt: skip
MISSTATED = (
    (3784, 0.98), (4200, 0.93), (5500, 0.92), (6000, 0.89), (7000, 0.91), (7800, 0.95), (8400, 1.01),
    (8900, 1.06), (9287, 1.05),
)  # fmt: skip

# Bits of the survey's pixel mask (SPPIXMASK).
MANYBADCOLUMNS, NEARBADPIXEL, LOWFLAT, FULLREJECT, PARTIALREJECT, SCATTEREDLIGHT = 4, 16, 17, 18, 19, 20
BRIGHTSKY, NODATA, COMBINEREJ, BADSKYCHI = 23, 24, 25, 27


@dataclass(slots=True)
class Fibre:
    """Conditions of one fibre on one night, all arrays (N_PIXELS,), flux units 1e-17 erg/s/cm²/Å."""

    sky: Array
    sky_lines: Array
    """The part of ``sky`` that is line emission."""
    dark_variance: Array
    """Variance of the noise on line-free sky."""
    gain: Array
    """Variance added per unit of flux from sky lines and object."""
    misstated: Array
    """True noise over what the pipeline says."""
    wdisp: Array
    """Dispersion of the line-spread function, pixels."""


@dataclass(slots=True)
class Observed:
    """What the survey's file holds of one fibre, arrays (N_PIXELS,)."""

    flux: Array
    ivar: Array
    and_mask: NDArray[np.int32]
    or_mask: NDArray[np.int32]


def on_grid(knots: tuple[tuple[float, float], ...]) -> Array:
    """Linear interpolation of (wavelength, value) pairs on the observed grid, shape (N_PIXELS,)."""
    return np.interp(WAVE, *np.array(knots).T)


@lru_cache(maxsize=1)
def _curves() -> tuple[Array, ...]:
    """The smooth curves above on the grid, and the three families of sky lines: seven arrays (N_PIXELS,)."""
    curves = [smooth(on_grid(knots), 25) for knots in (NOISE, GAIN, SKY, MISSTATED)] + [on_grid(DISPERSION)]
    for family in (CITY, OXYGEN, HYDROXYL):
        lines = np.zeros(N_PIXELS)
        for wave, peak in family:
            sigma = 1.15 * curves[4][int(np.log10(wave) / STEP) - FIRST]
            area = peak * sigma * np.sqrt(2 * np.pi) * wave * STEP * np.log(10)
            add_lines(lines, [wave], [area], sigma * KMS_PER_PIXEL)
        curves.append(lines)
    return tuple(curves)


def fibre(rng: np.random.Generator) -> Fibre:
    """One fibre: sky brightness, noise and resolution scatter from fibre to fibre and night to night."""
    noise, gain, sky, misstated, wdisp, city, oxygen, hydroxyl = _curves()
    lines = (
        city * log_uniform(rng, 0.7, 1.4)
        + oxygen * log_uniform(rng, 0.5, 1.7)
        + hydroxyl * log_uniform(rng, 0.6, 1.5)
    )
    tilt = np.exp(rng.normal(0, 0.04) * np.linspace(-1, 1, N_PIXELS))
    depth = float(np.clip(rng.normal(1, 0.08), 0.75, 1.3))
    grain = 1 + 0.025 * smooth(
        rng.standard_normal(N_PIXELS), 1.0
    )  # pixels differ in response and in rejected exposures
    return Fibre(
        sky=sky * log_uniform(rng, 0.85, 1.3) * tilt + lines,
        sky_lines=lines,
        dark_variance=(noise * depth * tilt * grain) ** 2,
        gain=gain * depth**2 * grain**2,
        misstated=misstated
        * rng.normal(1, 0.04)
        * np.exp(rng.normal(0, 0.04) * np.linspace(-1, 1, N_PIXELS)),
        wdisp=wdisp * rng.normal(1, 0.03) * tilt,
    )


def observe(rng: np.random.Generator, flux: Array, where: Fibre) -> Observed:
    """Expose ``flux`` (N_PIXELS,) through a fibre: photon and read noise, sky residuals, masks, ivar."""
    variance = where.dark_variance + where.gain * (where.sky_lines + np.maximum(flux, 0))
    sigma = np.sqrt(variance)
    white = rng.standard_normal(N_PIXELS + 2)
    noise = (white[1:-1] + 0.08 * (white[:-2] + white[2:])) / np.sqrt(
        1 + 2 * 0.08**2
    )  # resampling couples neighbours
    # The sky model is a little too bright or faint, and a little off in wavelength, in patches along the
    # spectrum.
    wander = smooth(rng.standard_normal(N_PIXELS), 60) * 15
    residual = 0.006 * where.sky_lines * (rng.standard_normal() + wander)
    residual += 0.015 * np.gradient(where.sky_lines) * (rng.standard_normal() + wander)
    # Flux calibration and flat field are good to a percent or two, which only bright objects show.
    slow, fast = smooth(rng.standard_normal(N_PIXELS), 50), smooth(rng.standard_normal(N_PIXELS), 1.5)
    calibration = 0.2 * slow + 0.008 * fast
    observed = flux * (1 + calibration) + sigma * noise * where.misstated + residual
    ivar = 1 / variance
    and_mask, or_mask = masks(rng, where, observed, ivar, sigma)
    return Observed(observed, ivar, and_mask, or_mask)


def masks(
    rng: np.random.Generator, where: Fibre, flux: Array, ivar: Array, sigma: Array
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """And_mask and or_mask (N_PIXELS,); bad columns and cosmic rays change ``flux`` and ``ivar`` in place."""
    every, some = np.zeros(N_PIXELS, np.int32), np.zeros(N_PIXELS, np.int32)
    continuum = where.sky - where.sky_lines
    bright = where.sky_lines / continuum
    every[bright > 1.0] |= 1 << BRIGHTSKY
    some[bright > 0.35] |= 1 << BRIGHTSKY
    if rng.random() < 0.25:  # a bad column of the CCD, crossed at a slant
        longest = 250 if rng.random() < 0.15 else 50
        start, length = rng.integers(1, N_PIXELS - 260), int(log_uniform(rng, 1, longest))
        lost = slice(start, start + length)
        ivar[lost] = 0
        flux[lost] = np.linspace(flux[start - 1], flux[start + length], length)  # bridged by the pipeline
        every[lost] |= (1 << FULLREJECT) | (1 << NEARBADPIXEL) | ((1 << NODATA) if rng.random() < 0.3 else 0)
    for start in rng.integers(N_PIXELS, size=rng.poisson(10)):
        struck = slice(start, start + rng.integers(2, 8))
        some[struck] |= (1 << COMBINEREJ) | (1 << PARTIALREJECT)
        if rng.random() < 0.03:  # a cosmic ray that slipped through
            flux[struck] += sigma[struck] * log_uniform(rng, 4, 15)
    if rng.random() < 0.35:
        near = slice(start := rng.integers(N_PIXELS - 200), start + rng.integers(10, 150))
        some[near] |= (1 << NEARBADPIXEL) | (1 << LOWFLAT)
        ivar[near] *= 0.8
    if rng.random() < 0.3:
        lit = slice(start := rng.integers(N_PIXELS - 1500), start + rng.integers(200, 1500))
        some[lit] |= 1 << SCATTEREDLIGHT
    if rng.random() < 0.012:
        every |= 1 << MANYBADCOLUMNS
    if rng.random() < 0.2:
        some[slice(start := rng.integers(N_PIXELS - 300), start + rng.integers(30, 300))] |= 1 << BADSKYCHI
    return every, some | every
