"""Galaxies: stellar populations of different age, dust, and nebular lines on the BPT branches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from workers.simulate.grid import (
    KMS_PER_PIXEL,
    WAVE,
    Array,
    add_lines,
    log_uniform,
    seen_at,
    smooth,
    unit,
)
from workers.simulate.source import Source
from workers.simulate.stars import at_temperature

LINES = {
    "OIIa": 3727.09, "OIIb": 3729.88, "NeIII": 3869.86, "Hd": 4102.89, "Hg": 4341.68, "HeII": 4686.99,
    "Hb": 4862.68, "OIIIa": 4960.29, "OIII": 5008.24, "HeI": 5877.25, "OI": 6302.05, "OIb": 6365.54,
    "NIIa": 6549.86, "Ha": 6564.61, "NII": 6585.27, "SIIa": 6718.29, "SIIb": 6732.68, "ArIII": 7137.76,
    "SIII": 9071.10,
}  # fmt: skip
"""Nebular lines, vacuum Å."""

# Which temperatures shine in a population of a given age, as shares of the light at 5500 Å.
POPULATIONS = {
    "old": {3400: 0.07, 4200: 0.28, 4700: 0.38, 5500: 0.15, 6000: 0.12},
    "middle": {4600: 0.28, 5500: 0.17, 6600: 0.38, 7400: 0.17},
    "young": {4200: 0.12, 8500: 0.50, 10000: 0.38},
    "newborn": {3800: 0.06, 13000: 0.24, 20000: 0.40, 32000: 0.30},
}

MAX_REDSHIFT = 0.60


@dataclass(slots=True)
class Galaxy(Source):
    """A galaxy whose light can still be taken apart."""

    continuum: Array
    """Stars behind dust, shape (N_PIXELS,), on the scale of ``flux``."""
    line_width: float
    """Dispersion of the nebular lines, km/s, instrument included."""


@lru_cache(maxsize=1)
def populations() -> Array:
    """The four populations on the rest grid, shape (4, N_REST), each 1 at 5500 Å."""
    return np.array(
        [sum(share * at_temperature(t) for t, share in mix.items()) for mix in POPULATIONS.values()]
    )


def dust(tau: float, wave: Array) -> Array:
    """Attenuation exp(-τ_V (λ/5500 Å)^-0.7) of Charlot & Fall (2000, ApJ 539, 718), shape of ``wave``."""
    return np.exp(-tau * (wave / 5500) ** -0.7)


def nebular_ratios(rng: np.random.Generator, active: bool) -> dict[str, float]:
    """Line fluxes relative to Hβ before dust, on the star-forming or the active branch of the BPT diagram.

    The star-forming locus lies 0.1–0.2 dex below Kauffmann et al. (2003, MNRAS 346, 1055, eq. 1); the active
    branch runs up and to the right from its foot.
    """
    if active:
        along = rng.beta(1.2, 1.5)
        log_n2, log_o3 = -0.25 + 0.30 * along + rng.normal(0, 0.07), 0.0 + 0.95 * along + rng.normal(0, 0.10)
        log_s2, log_o1, log_o2 = rng.normal(-0.25, 0.08), rng.normal(-0.95, 0.15), rng.normal(0.45, 0.15)
    else:
        log_n2 = float(np.clip(-0.45 - rng.gamma(1.6, 0.14), -1.5, -0.36))
        log_o3 = min(0.61 / (log_n2 - 0.05) + 1.12, 0.78) + rng.normal(0, 0.07)
        log_s2, log_o1, log_o2 = (
            rng.normal(-0.42, 0.07),
            rng.normal(-1.55, 0.12),
            0.40 + 0.25 * log_o3 + rng.normal(0, 0.1),
        )
    n2, o3, s2, o1, o2 = (10**x for x in (log_n2, log_o3, log_s2, log_o1, log_o2))
    alpha = 2.86 if not active else 3.1
    return {
        "OIIa": 0.42 * o2, "OIIb": 0.58 * o2, "NeIII": 0.08 * o3, "Hd": 0.26, "Hg": 0.47, "Hb": 1.0,
        "HeII": 0.15 if active else 0.01, "OIIIa": o3 / 2.98, "OIII": o3, "HeI": 0.12, "OI": alpha * o1,
        "OIb": alpha * o1 / 3, "NIIa": alpha * n2 / 3.05, "Ha": alpha, "NII": alpha * n2,
        "SIIa": 0.57 * alpha * s2, "SIIb": 0.43 * alpha * s2, "ArIII": 0.09, "SIII": 0.25,
    }  # fmt: skip


def add_nebula(
    flux: Array, continuum: Array, redshift: float, ratios: dict[str, float], equivalent_width: float,
    line_width: float, tau: float = 0.0, scale_by: str = "Ha",
) -> None:  # fmt: skip
    """Add lines to ``flux`` in place; ``scale_by`` gets that rest equivalent width (Å) over ``continuum``."""
    waves = np.array([LINES[name] for name in ratios])
    areas = np.array(list(ratios.values())) * dust(tau, waves)
    scale_by = scale_by if LINES[scale_by] * (1 + redshift) < WAVE[-1] else "Hb"
    anchor = LINES[scale_by]
    level = float(np.interp(anchor * (1 + redshift), WAVE, continuum))
    if scale_by == "Hb":
        equivalent_width *= 0.22
    reference = areas[list(ratios).index(scale_by)]
    areas *= equivalent_width * (1 + redshift) * level / reference
    add_lines(flux, list(waves * (1 + redshift)), list(areas), line_width)


# Line patterns that the pipeline's templates can combine freely, relative to the first of each.
PIPELINE_PATTERNS = (
    {"Hb": 1.0, "Ha": 3.1, "Hg": 0.46, "Hd": 0.25},
    {"OIII": 1.0, "OIIIa": 0.335, "NeIII": 0.08},
    {"OIIa": 0.42, "OIIb": 0.58},
    {"NII": 1.0, "NIIa": 0.33, "SIIa": 0.6, "SIIb": 0.45, "OI": 0.1},
)


def pipeline_basis(redshift: float, line_width: float) -> Array:
    """What the survey fits to a galaxy: four populations and four line patterns, shape (8, N_PIXELS)."""
    rows = [smooth(row, 2.2) for row in seen_at(populations(), redshift)]
    for pattern in PIPELINE_PATTERNS:
        lines = np.zeros_like(WAVE)
        waves = [LINES[name] * (1 + redshift) for name in pattern]
        add_lines(lines, waves, [20 * area for area in pattern.values()], line_width)
        rows.append(lines)
    return np.array(rows)


def galaxy(
    rng: np.random.Generator, redshift: float | None = None, star_forming: float | None = None
) -> Galaxy:
    """A galaxy between passive (``star_forming`` 0) and bursting (1), of a bimodal population where None."""
    if redshift is None:
        redshift = float(np.clip(rng.gamma(2.6, 0.055), 0.008, MAX_REDSHIFT))
    if star_forming is None:
        red = rng.random() < np.interp(redshift, [0.0, 0.15, 0.35], [0.40, 0.60, 0.95])
        star_forming = float(rng.beta(1.0, 14) if red else rng.beta(2.6, 3.0))
    s = star_forming
    # Even a bursting galaxy has its old stars, which carry the red end.
    old, middle = 1.5 + 8.5 * (1 - s) ** 3, 0.3 + 2.5 * min(1, 3 * s)
    shares = rng.dirichlet(np.array([old, middle, 0.05 + 2.5 * s, 0.01 + 4.5 * s**1.7]))
    tau = rng.gamma(2.0, 0.10 + 0.15 * (s > 0.15) * (1 - abs(2 * s - 1)))
    dispersion = float(np.clip(rng.normal(190 - 110 * s, 45), 60, 330))
    stars: Array = seen_at(np.tensordot(shares, populations(), 1), redshift) * dust(
        tau, WAVE / (1 + redshift)
    )
    stars = unit(smooth(stars, np.hypot(dispersion / KMS_PER_PIXEL, 0.9)))
    active = rng.random() < np.interp(s, [0, 0.3, 1], [0.35, 0.15, 0.03])
    mean_width = np.interp(s, [0, 0.05, 0.2, 0.5, 1.0], [0.4, 1.2, 9, 28, 110])
    width = float(mean_width * np.exp(rng.normal(0, 0.45)) + (rng.exponential(8) if active else 0))
    line_width = float(np.hypot(rng.uniform(60, 110) if not active else rng.uniform(110, 240), 65))
    flux = stars.copy()
    add_nebula(flux, stars, redshift, nebular_ratios(rng, bool(active)), width, line_width, tau=1.3 * tau)
    subclass = (
        "AGN" if active and width > 3 else "STARBURST" if width > 50 else "STARFORMING" if width > 5 else ""
    )
    basis = pipeline_basis(redshift, line_width)
    return Galaxy("GALAXY", subclass, redshift, flux, basis, stars, line_width)


def odd_nebula(rng: np.random.Generator) -> tuple[str, dict[str, float], str]:
    """Line fluxes off both branches: a name, the fluxes, and the line that the strength is quoted for."""
    patterns = {
        "green_pea": (
            {"OIII": 1.0, "OIIIa": 0.335, "Hb": 0.14, "Ha": 0.42, "NeIII": 0.09, "OIIb": 0.05},
            "OIII",
        ),
        "nii_strong": ({"NII": 1.0, "NIIa": 0.33, "Ha": 0.14, "SIIa": 0.25, "SIIb": 0.25}, "NII"),
        "oi_strong": ({"OI": 0.7, "OIb": 0.23, "Ha": 0.35, "SIIa": 0.6, "SIIb": 0.6, "OIIb": 1.0}, "Ha"),
        "heii_strong": ({"HeII": 0.7, "Hb": 0.22, "Ha": 0.6, "OIII": 0.3, "OIIIa": 0.1}, "Ha"),
    }
    name = str(rng.choice(list(patterns)))
    ratios, anchor = patterns[name]
    return name, {line: value * log_uniform(rng, 0.8, 1.25) for line, value in ratios.items()}, anchor
