"""Spectra that an astronomer would want to be shown: seven rare objects and three faults of the instrument.

Each function changes a noise-free flux (N_PIXELS,), in 1e-17 erg/s/cm²/Å, and says what it did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from workers.simulate.galaxies import LINES, Galaxy, add_nebula, galaxy, odd_nebula
from workers.simulate.grid import R_BAND, WAVE, Array, add_lines, log_uniform, unit
from workers.simulate.quasars import quasar
from workers.simulate.source import Source
from workers.simulate.spectrograph import Fibre
from workers.simulate.stars import carbon_star, star


@dataclass(slots=True)
class Scene:
    """A source at its brightness, before the noise."""

    source: Source
    flux: Array
    """Shape (N_PIXELS,); the anomaly replaces it."""
    fibre: Fibre


Planted = tuple[Array, float, str]
"""The new flux (N_PIXELS,), the strength of the anomaly, and a note for the truth table."""


def blend_lens(rng: np.random.Generator, scene: Scene) -> Planted:
    """[O II], Hβ and [O III] of a lensed galaxy behind; strength: summed signal-to-noise of its lines."""
    nearest = max(0.30, scene.source.redshift + 0.12)
    behind = rng.uniform(nearest, max(0.82, nearest + 0.1))
    ratios = {
        "OIIa": 0.9,
        "OIIb": 1.25,
        "Hg": 0.47,
        "Hb": 1.0,
        "OIIIa": 0.0,
        "OIII": log_uniform(rng, 0.7, 4.5),
    }
    ratios["OIIIa"] = ratios["OIII"] / 2.98
    lines = np.zeros_like(WAVE)
    names = [LINES[name] * (1 + behind) for name in ratios]
    add_lines(lines, names, list(ratios.values()), math.hypot(rng.uniform(50, 130), 65))
    variance = scene.fibre.dark_variance + scene.fibre.gain * (scene.fibre.sky_lines + scene.flux)
    strength = log_uniform(rng, 10, 60)
    lines *= strength / math.sqrt(float((lines**2 / variance).sum()))
    return scene.flux + lines, strength, f"z2={behind:.4f}"


def superposition(rng: np.random.Generator, scene: Scene) -> Planted:
    """A second object in the same fibre, at another redshift; strength: its r-band flux over the first's."""
    makers: dict[str, Callable[[np.random.Generator], Source]] = {
        "galaxy": galaxy,
        "qso": quasar,
        "star": star,
    }
    name = str(rng.choice(list(makers), p=[0.5, 0.25, 0.25]))
    second = makers[name](rng)
    while abs(second.redshift - scene.source.redshift) < 0.03:
        second = makers["qso" if name == "star" else name](rng)
    strength = log_uniform(rng, 0.2, 0.9)
    return (
        scene.flux + strength * float(scene.flux[R_BAND].mean()) * second.flux,
        strength,
        f"{name};z2={second.redshift:.4f}",
    )


def broad_absorption(rng: np.random.Generator, scene: Scene) -> Planted:
    """Troughs of an outflow blueward of the quasar's lines; strength: their depth."""
    strength, speed = rng.uniform(0.45, 0.97), log_uniform(rng, 2500, 13000)
    width = speed * rng.uniform(0.25, 0.55)
    low = rng.random() < 0.35
    ions = {1549.1: 1.0, 1398.0: 0.8, 1240.1: 0.9, 1033.8: 0.8} | ({1859.0: 0.7, 2799.0: 0.8} if low else {})
    velocity_noise = np.cumsum(rng.normal(0, 0.08, 64))
    tau = np.zeros_like(WAVE)
    for rest, share in ions.items():
        velocity = 299792.458 * (1 - WAVE / (rest * (1 + scene.source.redshift)))
        along = (velocity - speed) / width
        ragged = 1 + 0.5 * np.sin(np.interp(along, np.linspace(-2.5, 2.5, 64), velocity_noise))
        tau += share * np.exp(-(np.minimum(np.abs(along), 8) ** 3)) * ragged
    return (
        scene.flux * np.exp(math.log(1 - strength) * tau),
        strength,
        f"v={speed:.0f}km/s" + (";low" if low else ""),
    )


def line_ratio(rng: np.random.Generator, scene: Scene) -> Planted:
    """Emission lines on no known branch; strength: equivalent width of the strongest, Å."""
    host = _galaxy(scene)
    name, ratios, anchor = odd_nebula(rng)
    strength = log_uniform(rng, 60, 600)
    level = scene.flux * host.continuum / np.maximum(host.flux, 1e-9)
    flux = level.copy()
    add_nebula(flux, level, scene.source.redshift, ratios, strength, host.line_width, scale_by=anchor)
    return flux, strength, name


def double_peaked(rng: np.random.Generator, scene: Scene) -> Planted:
    """Broad Balmer lines of a rotating disc around a black hole; strength: equivalent width of Hα, Å."""
    strength, split = log_uniform(rng, 60, 300), rng.uniform(1800, 4800)
    sigma, uneven = split * rng.uniform(0.25, 0.42), rng.uniform(0.9, 1.6)
    one = 1 + scene.source.redshift
    flux = scene.flux.copy()
    for name, share in (("Ha", 1.0), ("Hb", 0.25), ("Hg", 0.10)):
        area = strength * share * one * float(np.interp(LINES[name] * one, WAVE, scene.flux))
        waves = [LINES[name] * one * (1 + v / 299792.458) for v in (-split, 0.9 * split, 0.0)]
        parts = [0.44 * uneven / (1 + uneven) * 2, 0.44 / (1 + uneven) * 2, 0.12]
        add_lines(flux, waves, [area * part for part in parts], sigma)
    return flux, strength, f"dv={2 * split:.0f}km/s"


def carbon(rng: np.random.Generator, scene: Scene) -> Planted:
    """Nothing is added: the source itself is rare."""
    return scene.flux, 1.0, ""


def odd_reddening(rng: np.random.Generator, scene: Scene) -> Planted:
    """Dust far beyond the population's, steeper than usual; strength: E(B−V) in magnitudes."""
    strength, slope = log_uniform(rng, 0.7, 1.8), rng.uniform(1.0, 1.8)
    extinction = 3.1 * strength * (WAVE / 5500) ** -slope
    reddened = scene.flux * 10 ** (-0.4 * extinction)
    return unit(reddened) * float(scene.flux[R_BAND].mean()), strength, f"slope={slope:.2f}"


def sky_residual(rng: np.random.Generator, scene: Scene) -> Planted:
    """Sky lines left in, or taken out twice; strength: their share, negative where too much was taken out."""
    strength = log_uniform(rng, 0.06, 0.35) * rng.choice([-1, 1])
    return scene.flux + strength * scene.fibre.sky_lines, float(strength), ""


def dichroic_step(rng: np.random.Generator, scene: Scene) -> Planted:
    """The blue and the red camera disagree; strength: size of the step relative to the flux."""
    strength = log_uniform(rng, 0.18, 0.6) * rng.choice([-1, 1])
    where = rng.uniform(5870, 6080)
    step = strength / (1 + np.exp(-(WAVE - where) / rng.uniform(4, 25)))
    return scene.flux * (1 + step), float(strength), f"at={where:.0f}A"


def unplugged(rng: np.random.Generator, scene: Scene) -> Planted:
    """The fibre fell out of the plate; strength: share of the light that still arrives.

    The pixel masks say nothing of it, or no reader would let it through; ZWARNING sometimes does.
    """
    strength = log_uniform(rng, 0.001, 0.02)
    pedestal = rng.normal(0, 0.1) * (WAVE / 5500) ** rng.normal(0, 0.8)
    return scene.flux * strength + pedestal, strength, ""


PLANTERS: dict[str, Callable[[np.random.Generator, Scene], Planted]] = {
    "blend_lens": blend_lens,
    "superposition": superposition,
    "broad_absorption": broad_absorption,
    "line_ratio": line_ratio,
    "double_peaked": double_peaked,
    "carbon_star": carbon,
    "odd_reddening": odd_reddening,
    "sky_residual": sky_residual,
    "dichroic_step": dichroic_step,
    "unplugged": unplugged,
}
KINDS = tuple(PLANTERS)


def source_for(rng: np.random.Generator, kind: str) -> Source:
    """The object underneath: what the anomaly needs, or one of the survey's usual mix."""
    if kind == "broad_absorption":
        return quasar(rng, redshift=float(rng.uniform(1.7, 3.6)))
    if kind == "line_ratio":
        return galaxy(rng, redshift=float(rng.uniform(0.03, 0.30)))
    if kind == "double_peaked":
        return galaxy(rng, redshift=float(rng.uniform(0.03, 0.33)))
    if kind == "blend_lens":
        return galaxy(rng, redshift=float(rng.uniform(0.05, 0.45)), star_forming=float(rng.beta(1, 12)))
    if kind == "carbon_star":
        return carbon_star(rng)
    draw = rng.random()
    return galaxy(rng) if draw < 0.90 else quasar(rng) if draw < 0.98 else star(rng)


def _galaxy(scene: Scene) -> Galaxy:
    if not isinstance(scene.source, Galaxy):
        raise TypeError(f"needs a galaxy, got a {scene.source.spectral_class}")
    return scene.source
