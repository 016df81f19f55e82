"""A galaxy-scale gravitational lens: the images that a singular isothermal ellipsoid makes of a source behind it."""

from __future__ import annotations

import math

import numpy as np

from workers.simulate.grid import log_uniform
from workers.simulate.light import AXIS, OVER, SCALE, Image, Profile, colours, sersic, window

SUBSAMPLES = 3
"""Rays per fine pixel and axis."""


def deflected(x: Image, y: Image, einstein: float, q: float, angle: float) -> tuple[Image, Image]:
    """Source-plane positions of image-plane positions ``x``, ``y`` behind a singular isothermal ellipsoid.

    Kormann, Schneider & Bartelmann (1994, A&A 284, 285, eq. 27a); ``einstein`` in the unit of x, ``q`` < 1 the axis
    ratio of the mass, ``angle`` of its major axis in radians.
    """
    c, s = math.cos(angle), math.sin(angle)
    u, v = c * x + s * y, c * y - s * x
    flat = math.sqrt(1 - q * q)
    # Along the minor axis v the isodensity radius is v itself, along the major axis q·u.
    psi = np.sqrt((q * u) ** 2 + v**2) + 1e-6
    along = u - einstein * math.sqrt(q) / flat * np.arctan(flat * u / psi)
    across = v - einstein * math.sqrt(q) / flat * np.arctanh(flat * v / psi)
    return c * along - s * across, s * along + c * across


def add_lensed(rng: np.random.Generator, scene: Image) -> tuple[Image, str]:
    """The lensed light alone, (3, FINE, FINE) in arbitrary units, shaped like ``scene``, and a note.

    An arc, a ring, or the two or four images of a compact source; Einstein radius 0.9–2.8 arcsec.
    """
    sort = str(rng.choice(["arc", "ring", "quad", "double"], p=[0.45, 0.25, 0.15, 0.15]))
    einstein = float(np.clip(rng.lognormal(0.35, 0.32), 0.9, 2.8)) / SCALE
    q, angle, turn = rng.uniform(0.55, 0.93), rng.uniform(0, math.pi), rng.uniform(0, 2 * math.pi)
    reach = {"arc": rng.uniform(0.18, 0.45), "ring": rng.uniform(0, 0.10), "quad": rng.uniform(0.02, 0.12),
             "double": rng.uniform(0.35, 0.65)}[sort] * einstein  # fmt: skip
    low, high = {"arc": (0.12, 0.35), "ring": (0.18, 0.45), "quad": (0.05, 0.09), "double": (0.05, 0.09)}[
        sort
    ]
    source = Profile(
        1.0, log_uniform(rng, low, high) / SCALE, 1.0, rng.uniform(0.45, 1.0), rng.uniform(0, math.pi),
        reach * math.cos(turn), reach * math.sin(turn),
    )  # fmt: skip
    rows, columns = window(0, 0, 2.4 * einstein + 2)
    steps = ((np.arange(SUBSAMPLES, dtype=np.float32) + 0.5) / SUBSAMPLES - 0.5) / OVER
    x, y = (AXIS[None, cut, None] + steps for cut in (columns, rows))
    u, v = deflected(x.reshape(1, -1), y.reshape(-1, 1), einstein, q, angle)
    light = sersic(source, u.astype(np.float32), v.astype(np.float32))
    height, width = rows.stop - rows.start, columns.stop - columns.start
    out = np.zeros_like(scene)
    tint = colours(rng.normal(0.15, 0.2), rng.normal(0.10, 0.12))
    out[:, rows, columns] = tint[:, None, None] * light.reshape(height, SUBSAMPLES, width, SUBSAMPLES).mean(
        (1, 3)
    )
    return out, f"{sort};theta_e={einstein * SCALE:.2f}arcsec"
