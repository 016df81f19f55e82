"""Quasars: a broken power law, broad and narrow lines, iron, the Balmer continuum and the Lyman-α forest.

Line strengths follow the composite of Vanden Berk et al. (2001, AJ 122, 549, table 2) roughly.
"""

from __future__ import annotations

import numpy as np

from workers.simulate.galaxies import populations
from workers.simulate.grid import WAVE, Array, add_lines, seen_at, smooth, unit
from workers.simulate.source import Source

# (rest wavelength in Å, equivalent width in Å, dispersion in km/s, group that brightens and fades together)
BROAD_LINES = (
    (1033.0, 10.0, 3000, "high"), (1216.3, 62.0, 3000, "high"), (1240.5, 19.0, 2900, "high"),
    (1263.0, 3.0, 2600, "high"), (1305.0, 4.0, 2500, "high"), (1398.0, 9.0, 3100, "high"),
    (1547.5, 30.0, 2800, "high"), (1640.0, 6.0, 4200, "high"), (1664.0, 3.0, 3200, "high"),
    (1858.0, 3.5, 3000, "high"), (1893.0, 4.0, 2600, "high"), (1907.0, 19.0, 3600, "high"),
    (2799.0, 33.0, 2400, "low"), (4103.0, 7.0, 2300, "low"), (4341.7, 15.0, 2300, "low"),
    (4862.7, 42.0, 2200, "low"), (5877.2, 6.0, 2600, "low"), (6564.6, 185.0, 2100, "low"),
)  # fmt: skip
NARROW_LINES = (
    (3426.8, 1.0), (3728.5, 2.0), (3869.9, 1.4), (4364.4, 0.8), (4960.3, 4.6), (5008.2, 13.8), (6549.9, 2.2),
    (6585.3, 6.5), (6718.3, 1.8), (6732.7, 1.7),
)  # fmt: skip
# (centre in Å, width in Å, height over the continuum) of the blended Fe II and Fe III.
IRON = (
    (2075, 45, 0.04), (2230, 60, 0.06), (2380, 75, 0.12), (2500, 70, 0.14), (2610, 50, 0.10),
    (2930, 70, 0.08), (3190, 90, 0.07), (4480, 60, 0.07), (4570, 55, 0.13), (4650, 45, 0.08),
    (5190, 50, 0.09), (5300, 65, 0.11),
)  # fmt: skip

MAX_REDSHIFT = 4.2


def continuum(rest: Array, slope: float) -> Array:
    """Broken power law f_λ ∝ λ^slope below 5000 Å and flatter above, shape of ``rest``."""
    return np.where(rest < 5000, (rest / 5000) ** slope, (rest / 5000) ** (0.35 * slope + 0.05))


def iron(rest: Array, strength: float) -> Array:
    """Iron blends and Balmer continuum relative to the power law, shape of ``rest``."""
    bumps = np.zeros_like(rest)
    for centre, width, height in IRON:
        bumps += height * np.exp(-0.5 * ((rest - centre) / width) ** 2)
    balmer = 0.16 * np.exp(-0.5 * ((rest - 3350) / 420) ** 2) / (1 + np.exp((rest - 3680) / 40))
    return strength * (bumps + balmer)


def forest(rng: np.random.Generator | None, redshift: float) -> Array:
    """Transmission (N_PIXELS,) of hydrogen along the way; its mean where ``rng`` is None.

    Effective optical depth 0.0036 (1 + z)^3.46 (Press, Rybicki & Schneider 1993, ApJ 414, 64), a log-normal
    optical depth around it, Lyman β too, and hardly any light below the Lyman limit.
    """
    rest = WAVE / (1 + redshift)
    if rest[0] > 1216:
        return np.ones_like(WAVE)
    transmission = np.ones_like(WAVE)
    for line, share in ((1215.67, 1.0), (1025.72, 0.22)):
        tau = share * 0.0036 * (WAVE / line) ** 3.46
        if rng is not None:
            waves = smooth(rng.standard_normal(len(WAVE)), 1.7)
            tau = 1.9 * tau * np.exp(1.7 * waves / waves.std() - 1.0)
        transmission *= np.where(rest < line * 0.998, np.exp(-tau), 1)
    return transmission * np.where(rest < 912, 0.12, 1)


def quasar(rng: np.random.Generator, redshift: float | None = None, lowest: float = 0.08) -> Source:
    """A type 1 quasar, at a redshift above ``lowest`` drawn like the survey's where None."""
    while redshift is None or not lowest <= redshift <= MAX_REDSHIFT:
        redshift = float(rng.gamma(4.0, 0.42))
    rest = WAVE / (1 + redshift)
    slope = float(np.clip(rng.normal(-1.45, 0.30), -2.3, -0.6))
    level = continuum(rest, slope)
    flux: Array = level * (1 + iron(rest, float(rng.lognormal(0, 0.45))))
    width = float(rng.lognormal(0, 0.22))
    group = {"high": rng.lognormal(0, 0.3), "low": rng.lognormal(0, 0.22)}
    for wave, strength, sigma, member in BROAD_LINES:
        if WAVE[0] * 0.97 < wave * (1 + redshift) < WAVE[-1] * 1.03:
            area = strength * group[member] * rng.lognormal(0, 0.15)
            _two_gaussians(flux, level, wave, redshift, area, sigma * width, rng.normal(0, 0.0008))
    narrow = float(rng.lognormal(-0.3, 0.8))
    for wave, strength in NARROW_LINES:
        _one_gaussian(flux, level, wave, redshift, strength * narrow, 230.0)
    if rng.random() < 0.2:
        flux = flux * np.exp(-rng.gamma(1.0, 0.12) * (5500 / rest) ** 1.2)
    flux = unit(flux * forest(rng, redshift))
    if redshift < 0.6:
        share = rng.beta(1.2, 4.0)
        flux = (1 - share) * flux + share * unit(_host(redshift))
    return Source(
        "QSO", "BROADLINE" if redshift < 2.2 or rng.random() < 0.7 else "", redshift, flux, _basis(redshift)
    )


def _one_gaussian(
    flux: Array, level: Array, wave: float, redshift: float, width: float, sigma: float
) -> None:
    here = wave * (1 + redshift)
    height = float(np.interp(here, WAVE, level))
    add_lines(flux, [here], [width * (1 + redshift) * height], sigma)


def _two_gaussians(
    flux: Array, level: Array, wave: float, redshift: float, width: float, sigma: float, shift: float
) -> None:
    """A core and wings, moved by ``shift`` in Δλ/λ: closer to real broad lines than a single Gaussian."""
    _one_gaussian(flux, level, wave * (1 + shift / 2), redshift, 0.45 * width, 0.55 * sigma)
    _one_gaussian(flux, level, wave * (1 + shift), redshift, 0.55 * width, 1.5 * sigma)


def _host(redshift: float) -> Array:
    """The stars of the galaxy around a quasar, shape (N_PIXELS,)."""
    return smooth(seen_at(np.tensordot([0.6, 0.25, 0.15, 0.0], populations(), 1), redshift), 2.5)


def _basis(redshift: float) -> Array:
    """What the pipeline fits: two power laws, iron, groups of lines, a host; (7 or 8, N_PIXELS)."""
    rest = WAVE / (1 + redshift)
    level, mean_forest = continuum(rest, -1.55), forest(None, redshift)
    rows = [continuum(rest, -1.0), continuum(rest, -2.1), level * iron(rest, 1.0)]
    for low, high in ((0.0, 1500.0), (1500.0, 2500.0), (2500.0, 9000.0)):
        lines = np.zeros_like(WAVE)
        for wave, strength, sigma, _ in BROAD_LINES:
            if low <= wave < high and WAVE[0] < wave * (1 + redshift) < WAVE[-1]:
                _two_gaussians(lines, level, wave, redshift, strength, sigma, 0.0)
        rows.append(lines)
    lines = np.zeros_like(WAVE)
    for wave, strength in NARROW_LINES:
        _one_gaussian(lines, level, wave, redshift, strength, 230.0)
    rows.append(lines)
    if redshift < 0.6:
        rows.append(_host(redshift))
    return np.array([row * mean_forest for row in rows])
