"""Analytic stellar spectra: Planck curves with Balmer, metal and molecular absorption for each temperature.

They are the stars of the simulation and the building blocks of its galaxies. Line positions are laboratory
vacuum wavelengths; how strength runs with temperature is a smooth fit by eye to the spectral sequence.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from workers.simulate.grid import (
    N_REST,
    REST_FIRST,
    REST_WAVE,
    STEP,
    Array,
    log_uniform,
    seen_at,
    smooth,
    unit,
)
from workers.simulate.source import Source

TEMPERATURES = np.array(
    [2800, 3100, 3400, 3800, 4200, 4600, 5000, 5500, 6000, 6600, 7400, 8500, 10000, 13000, 20000, 32000],
    float,
)
"""Effective temperatures of the library, kelvin."""

CLASS_EDGES = (("M", 3900), ("K", 5250), ("G", 6000), ("F", 7400), ("A", 10000), ("B", 30000), ("O", 1e9))

BALMER = [911.76 / (0.25 - 1 / n**2) for n in range(3, 20)]
"""Vacuum wavelengths of Hα, Hβ … in Å."""

# (wavelength in Å, optical depth at the centre in a K star, half width in Å, temperature in K above which it
# fades)
METALS = (
    (3934.8, 2.2, 7.0, 7600), (3969.6, 1.8, 7.0, 7600), (4227.9, 0.55, 3.0, 5200), (4304.0, 0.40, 11.0, 6200),
    (4384.8, 0.40, 4.0, 5900), (4456.0, 0.22, 5.0, 5600), (4532.0, 0.22, 8.0, 5700),
    (4669.0, 0.25, 18.0, 5600), (4891.0, 0.15, 7.0, 5700), (4920.0, 0.16, 5.0, 5700),
    (4957.0, 0.14, 5.0, 5700), (5015.0, 0.20, 9.0, 5800), (5110.0, 0.16, 30.0, 5000),
    (5168.7, 0.42, 4.0, 6000), (5174.1, 0.45, 4.0, 6000), (5185.0, 0.55, 4.0, 6000),
    (5270.0, 0.32, 7.0, 5900), (5330.0, 0.25, 6.0, 5900), (5406.0, 0.16, 5.0, 5700),
    (5709.0, 0.12, 5.0, 5500), (5782.0, 0.09, 5.0, 5300), (5891.6, 0.55, 3.0, 5100),
    (5897.6, 0.50, 3.0, 5100), (6124.0, 0.10, 4.0, 5200), (6164.0, 0.16, 5.0, 5000),
    (6280.0, 0.06, 9.0, 5500), (6497.0, 0.20, 4.0, 5400), (8185.5, 0.12, 3.0, 4000),
    (8197.1, 0.14, 3.0, 4000), (8500.4, 0.38, 3.0, 6800), (8544.4, 0.60, 4.0, 6800),
    (8664.5, 0.50, 4.0, 6800),
)  # fmt: skip
# Molecular bands (band head in Å, optical depth, length of the tail in Å; a negative tail degrades to the
# blue).
TITANIUM_OXIDE = (
    (4763, 0.7, 130), (4956, 0.9, 150), (5170, 0.9, 180), (5450, 0.7, 150), (5850, 0.8, 100),
    (6160, 0.7, 200), (6652, 0.7, 130), (6820, 0.35, 80), (7055, 1.1, 210), (7591, 0.7, 140),
    (7670, 0.4, 130), (8435, 0.5, 170), (8862, 0.5, 150), (9210, 0.5, 130),
)  # fmt: skip
CARBON = (
    (4383, 1.3, -120), (4738, 1.5, -150), (5166, 1.8, -190), (5637, 1.3, -190), (6122, 0.45, -110),
    (6192, 0.3, -90), (6930, 0.5, 180), (7090, 0.4, 150), (7285, 0.4, 150), (7876, 0.6, 160),
    (8090, 0.55, 170), (9140, 0.8, 180),
)  # fmt: skip


def planck(temperature: float) -> Array:
    """Planck's B_λ on the rest grid, shape (N_REST,), scaled to 1 at 5500 Å."""
    hc_k = 1.438777e8  # Å K

    def radiance(wave: Array | float) -> Array | float:
        return wave**-5.0 / np.expm1(hc_k / (wave * temperature))

    return np.asarray(radiance(REST_WAVE) / radiance(5500.0))


def bands(heads: tuple[tuple[float, float, float], ...]) -> Array:
    """Optical depth (N_REST,) of molecular bands: a sharp head and an exponential tail."""
    depth = np.zeros(N_REST)
    for head, strength, tail in heads:
        along = (REST_WAVE - head) / tail
        depth += (
            strength * np.exp(-np.maximum(along, 0)) / (1 + np.exp(-np.clip(along * abs(tail) / 7, -50, 50)))
        )
    return depth


@lru_cache(maxsize=1)
def line_forest() -> Array:
    """Optical depth (N_REST,) of many weak iron-peak lines, denser and stronger to the blue."""
    rng = np.random.default_rng(26)  # iron; the same forest for every star, as in nature
    wave = 2200 * (7800 / 2200) ** rng.beta(0.9, 1.1, 1600)
    depth = np.zeros(N_REST)
    np.add.at(
        depth,
        np.round(np.log10(wave) / STEP).astype(int) - REST_FIRST,
        rng.exponential(0.55, 1600) * (4300 / wave) ** 2.2,
    )
    return smooth(depth, 1.5)


def stellar_spectrum(temperature: float, balmer_width: float = 1.0) -> Array:
    """One star on the rest grid, shape (N_REST,), scaled to a mean of 1 at 5450–5550 Å.

    ``temperature`` in kelvin; ``balmer_width`` stretches the Balmer wings, 4 or more for a white dwarf.
    """
    hydrogen = np.exp(-((np.log(temperature / 9300) / (0.36 if temperature < 9300 else 0.75)) ** 2))
    metals = 1 / (1 + np.exp((temperature - 6000) / 550))
    depth = 0.65 * metals * line_forest()
    for wave, strength, width, fades in METALS:
        amount = strength / (1 + np.exp((temperature - fades) / 600))
        depth += amount / (1 + ((REST_WAVE - wave) / width) ** 2) ** 1.5
    for order, wave in enumerate(BALMER):
        width = (2.5 + 9.5 * hydrogen) * balmer_width
        strength = 1.15 * hydrogen * (1.0, 1.15, 1.15, 1.05)[min(order, 3)] * 0.86 ** max(0, order - 4)
        depth += strength / (1 + ((REST_WAVE - wave) / width) ** 2)
    # The Balmer jump, and the crowding of metal lines that makes the 4000 Å break.
    depth += 0.75 * hydrogen / (1 + np.exp((REST_WAVE - 3690) / 25)) / balmer_width
    depth += metals * (
        0.42 / (1 + np.exp((REST_WAVE - 3985) / 14)) + 0.35 * np.clip(4300 / REST_WAVE - 1, 0, None)
    )
    depth += metals * 0.20 * (np.abs(REST_WAVE - 3850) < 36)  # CN 3883
    depth += bands(TITANIUM_OXIDE) * 1.15 / (1 + np.exp((temperature - 3350) / 230))
    flux = planck(temperature) * np.exp(-depth)
    return flux / flux[(REST_WAVE > 5450) & (REST_WAVE < 5550)].mean()


@lru_cache(maxsize=1)
def library() -> Array:
    """Spectra of all ``TEMPERATURES``, shape (16, N_REST)."""
    return np.array([stellar_spectrum(t) for t in TEMPERATURES])


def at_temperature(temperature: float) -> Array:
    """A star between the library's temperatures, shape (N_REST,)."""
    position = np.interp(np.log(temperature), np.log(TEMPERATURES), np.arange(len(TEMPERATURES)))
    low = min(int(position), len(TEMPERATURES) - 2)
    part = position - low
    return (1 - part) * library()[low] + part * library()[low + 1]


@lru_cache(maxsize=1)
def white_dwarfs() -> Array:
    """Hydrogen white dwarfs of 9, 12, 17 and 26 thousand kelvin, shape (4, N_REST)."""
    return np.array([stellar_spectrum(t, balmer_width=3.2) for t in (9000.0, 12000.0, 17000.0, 26000.0)])


@lru_cache(maxsize=1)
def carbon_template() -> Array:
    """A carbon star, shape (N_REST,): its oxygen is bound, so C2 and CN stand where TiO would."""
    metals = stellar_spectrum(4600.0) / planck(4600.0)
    return planck(3600.0) * metals * np.exp(-bands(CARBON))


def star(rng: np.random.Generator) -> Source:
    """A star of the disc or halo: A to M, one in sixteen a white dwarf."""
    redshift = rng.normal(0, 90) / 299792.458
    if rng.random() < 0.06:
        shares = rng.dirichlet(np.full(4, 0.4))
        return _star(rng, np.tensordot(shares, white_dwarfs(), 1), "WD", redshift, white_dwarfs())
    letter = str(rng.choice(list("AFGKM"), p=[0.06, 0.36, 0.15, 0.22, 0.21]))
    low, high = {
        "A": (7600, 10000),
        "F": (6000, 7400),
        "G": (5300, 6000),
        "K": (3950, 5250),
        "M": (2900, 3850),
    }[letter]
    temperature = log_uniform(rng, low, high)
    digit = int(9.99 * (high - temperature) / (high - low))
    nearest = np.argsort(np.abs(np.log(TEMPERATURES / temperature)))[:3]
    return _star(rng, at_temperature(temperature), f"{letter}{digit}", redshift, library()[nearest])


def carbon_star(rng: np.random.Generator) -> Source:
    """A carbon star, with its own template in the pipeline's basis."""
    reddening = REST_WAVE ** -rng.uniform(-1.0, 1.5)
    return _star(
        rng, carbon_template() * reddening, "Carbon", rng.normal(0, 90) / 299792.458, carbon_template()[None]
    )


def _star(rng: np.random.Generator, rest: Array, subclass: str, redshift: float, templates: Array) -> Source:
    dust = np.exp(-rng.gamma(1.0, 0.10) * (5500 / REST_WAVE) ** 1.3)
    rows = np.array([unit(row) for row in seen_at(templates, redshift)])
    return Source("STAR", subclass, redshift, unit(smooth(seen_at(rest * dust, redshift), 0.9)), rows)
