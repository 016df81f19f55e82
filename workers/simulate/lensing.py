"""A galaxy-scale gravitational lens: what a singular isothermal ellipsoid makes of a source behind it."""

from __future__ import annotations

import math

import numpy as np

from workers.simulate.grid import log_uniform
from workers.simulate.light import AXIS, OVER, SCALE, Image, Profile, colours, sersic, window

SUBSAMPLES = 3
"""Rays per fine pixel and axis."""


def deflected(x: Image, y: Image, einstein: float, q: float, angle: float) -> tuple[Image, Image]:
    """Source-plane positions of image-plane positions ``x``, ``y`` behind a singular isothermal ellipsoid.

    Kormann, Schneider & Bartelmann (1994, A&A 284, 285, eq. 27a); ``einstein`` in the unit of x, ``q`` < 1
    the axis ratio of the mass, ``angle`` of its major axis in radians.
    """
    c, s = math.cos(angle), math.sin(angle)
    u, v = c * x + s * y, c * y - s * x
    flat = math.sqrt(1 - q * q)
    # Along the minor axis v the isodensity radius is v itself, along the major axis q·u.
    psi = np.sqrt((q * u) ** 2 + v**2) + 1e-6
    along = u - einstein * math.sqrt(q) / flat * np.arctan(flat * u / psi)
    across = v - einstein * math.sqrt(q) / flat * np.arctanh(flat * v / psi)
    return c * along - s * across, s * along + c * across


def lensed(rng: np.random.Generator, scene: Image) -> tuple[Image, str]:
    """The lensed light alone, (3, FINE, FINE) in arbitrary units, for a scene of that shape, and a note.

    An arc, a ring, or the two or four images of a compact source; Einstein radius 0.9–2.8 arcsec.
    """
    sort = str(rng.choice(["arc", "ring", "quad", "double"], p=[0.45, 0.25, 0.15, 0.15]))
    einstein = float(np.clip(rng.lognormal(0.5, 0.30), 0.9, 2.8)) / SCALE
    q, angle, turn = rng.uniform(0.55, 0.93), rng.uniform(0, math.pi), rng.uniform(0, 2 * math.pi)
    # How far the source lies from the caustic's middle (Einstein radii), and how large it is (arcsec).
    offsets, sizes = {
        "arc": ((0.18, 0.45), (0.12, 0.35)),
        "ring": ((0.00, 0.10), (0.18, 0.45)),
        "quad": ((0.02, 0.12), (0.05, 0.09)),
        "double": ((0.35, 0.65), (0.05, 0.09)),
    }[sort]
    reach, radius = rng.uniform(*offsets) * einstein, log_uniform(rng, *sizes) / SCALE
    source = Profile(
        flux=1.0,
        radius=radius,
        index=1.0,
        axis_ratio=rng.uniform(0.45, 1.0),
        angle=rng.uniform(0, math.pi),
        x=reach * math.cos(turn),
        y=reach * math.sin(turn),
    )
    rows, columns = window(0, 0, 2.4 * einstein + 2)
    steps = ((np.arange(SUBSAMPLES, dtype=np.float32) + 0.5) / SUBSAMPLES - 0.5) / OVER
    x, y = (AXIS[None, cut, None] + steps for cut in (columns, rows))
    u, v = deflected(x.reshape(1, -1), y.reshape(-1, 1), einstein, q, angle)
    light = sersic(source, u.astype(np.float32), v.astype(np.float32))
    height, width = rows.stop - rows.start, columns.stop - columns.start
    out = np.zeros_like(scene)
    tint = colours(rng.normal(0.08, 0.15), rng.normal(0.05, 0.10))
    out[:, rows, columns] = tint[:, None, None] * light.reshape(height, SUBSAMPLES, width, SUBSAMPLES).mean(
        (1, 3)
    )
    return out, f"{sort};theta_e={einstein * SCALE:.2f}arcsec"
