"""Scenes on the fine grid: the galaxy in the middle, and the faint galaxies and stars around it."""

from __future__ import annotations

import math

import numpy as np

from workers.simulate.grid import log_uniform
from workers.simulate.light import (
    AXIS,
    FINE,
    MARGIN,
    OVER,
    SIZE,
    Image,
    Profile,
    colours,
    nanomaggy,
    sersic,
    spiral,
    typical_radius,
    window,
)

NEIGHBOURS = 3.4
"""Mean number of other objects brighter than FAINTEST in the field of the fine grid."""
FAINTEST = 24.3


def blank() -> Image:
    """An empty scene (3, FINE, FINE)."""
    return np.zeros((3, FINE, FINE), np.float32)


def add_profile(scene: Image, shape: Profile, tint: Image, factor: Image | None = None) -> None:
    """Add a Sérsic profile to ``scene`` in place; ``tint`` (3,) and ``factor`` (FINE, FINE) modulate it."""
    rows, columns = window(shape.x, shape.y, max(4.0, shape.radius * (6 if shape.index < 1.5 else 11)))
    light = sersic(shape, AXIS[None, columns], AXIS[rows, None])
    if factor is not None:
        before = light.sum()
        light = light * factor[rows, columns]
        light *= before / max(float(light.sum()), 1e-12)
    scene[:, rows, columns] += tint[:, None, None] * light


def add_point(scene: Image, flux: float, tint: Image, x: float, y: float) -> None:
    """Add a star at (x, y) to ``scene`` in place, spread over the four nearest fine pixels."""
    column, row = ((c + SIZE / 2 + MARGIN) * OVER - 0.5 for c in (x, y))
    i, j = int(row), int(column)
    if not (0 <= i < FINE - 1 and 0 <= j < FINE - 1):
        return
    down, right = row - i, column - j
    share = np.outer([1 - down, down], [1 - right, right]).astype(np.float32)
    scene[:, i : i + 2, j : j + 2] += flux * tint[:, None, None] * share


def early(rng: np.random.Generator, scene: Image, magnitude: float, x: float, y: float) -> float:
    """An elliptical or lenticular; returns its half-light radius in pixels."""
    radius = typical_radius(rng, magnitude)
    tint = colours(rng.normal(0.92, 0.09), rng.normal(0.41, 0.035))
    angle, q = rng.uniform(0, math.pi), rng.uniform(0.5, 1.0)
    flux = nanomaggy(magnitude)
    halo = rng.uniform(0, 0.35)
    add_profile(scene, Profile(flux * (1 - halo), 0.8 * radius, rng.uniform(2.2, 4.5), q, angle, x, y), tint)
    add_profile(
        scene, Profile(flux * halo, 1.7 * radius, 1.0, min(1, q * rng.uniform(0.8, 1.1)), angle, x, y), tint
    )
    return radius


def late(rng: np.random.Generator, scene: Image, magnitude: float, x: float, y: float) -> float:
    """A disc with a bulge, mostly with arms; returns its half-light radius in pixels."""
    radius = typical_radius(rng, magnitude)
    angle, cos_i = rng.uniform(0, math.pi), rng.uniform(0.0, 1.0)
    q = math.sqrt(cos_i**2 + 0.04 * (1 - cos_i**2)) if cos_i > 0.12 else 0.2
    blue = colours(rng.normal(0.48, 0.13), rng.normal(0.24, 0.06))
    red = colours(rng.normal(0.82, 0.10), rng.normal(0.38, 0.04))
    flux, bulge = nanomaggy(magnitude), rng.beta(1.1, 4.5)
    disc = Profile(flux * (1 - bulge), radius, rng.uniform(0.85, 1.2), q, angle, x, y)
    armed = rng.random() < 0.65 and radius > 3
    add_profile(scene, disc, blue, spiral(rng, disc) if armed else None)
    core = Profile(
        flux * bulge, radius * rng.uniform(0.12, 0.35), rng.uniform(1.2, 3.5), 0.5 + 0.5 * q, angle, x, y
    )
    add_profile(scene, core, red)
    if rng.random() < 0.3 and radius > 4:
        bar = Profile(0.12 * flux, 0.45 * radius, 0.6, 0.25, angle + rng.uniform(-1, 1), x, y)
        add_profile(scene, bar, red)
    for _ in range(rng.poisson(2.0 if radius > 4 else 0.3)):  # clumps of young stars
        away, turn = radius * rng.uniform(0.4, 1.6), rng.uniform(0, 2 * math.pi)
        u, v = away * math.cos(turn), away * math.sin(turn) * q
        place = (x + u * math.cos(angle) - v * math.sin(angle), y + u * math.sin(angle) + v * math.cos(angle))
        knot = Profile(flux * log_uniform(rng, 0.002, 0.02), 0.8, 1.0, 1.0, 0.0, *place)
        add_profile(scene, knot, colours(rng.normal(0.2, 0.1), rng.normal(0.0, 0.1)))
    return radius


MAKERS = {"early": early, "late": late}


def add_neighbours(rng: np.random.Generator, scene: Image) -> None:
    """Faint galaxies and stars at random places, in place; counts rise by 10^0.34 per magnitude."""
    half = SIZE / 2 + MARGIN - 1
    for _ in range(rng.poisson(NEIGHBOURS)):
        magnitude = FAINTEST + math.log10(max(1 - rng.random(), 1e-4)) / 0.34
        x, y = rng.uniform(-half, half, 2)
        if math.hypot(x, y) < 9 and magnitude < 21.5:
            continue
        green_red = float(np.clip(rng.normal(0.75, 0.35), 0.0, 1.7))
        tint = colours(green_red, 0.45 * green_red + rng.normal(0, 0.07))
        if rng.random() < (0.35 if magnitude < 21.5 else 0.08):
            add_point(scene, nanomaggy(magnitude), tint, x, y)
            continue
        radius = float(np.clip(1.3 * 10 ** (-0.13 * (magnitude - 21.5)) * log_uniform(rng, 0.5, 1.6), 0.5, 6))
        shape = Profile(
            nanomaggy(magnitude),
            radius,
            rng.uniform(0.8, 2.0),
            rng.uniform(0.3, 1),
            rng.uniform(0, math.pi),
            x,
            y,
        )
        add_profile(scene, shape, tint)
