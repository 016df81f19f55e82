"""Positions on the sky as the catalog keeps them: nested HEALPix integers, unit vectors, cones.

HEALPix: Górski et al. 2005, ApJ 622, 759.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from service.catalog.engine import CatalogError
from service.catalog.schema import objects

ORDER = 29
"""Of the stored integers; the finest that fits 64 bits, pixels of 0.4 mas."""
BASE_PIXEL_WIDTH = 58.6
"""Degrees, of a pixel of order 0; each further order halves it."""
FINEST_CONE_ORDER = 20
"""Of the pixels that cover a cone: 0.2 arcsec. Smaller cones gain nothing from finer ones."""


@dataclass(frozen=True, slots=True)
class Cone:
    """All positions within ``radius`` of a centre, all three in degrees (ICRS)."""

    ra: float
    dec: float
    radius: float

    def __post_init__(self) -> None:
        if not np.isfinite(self.ra):
            raise CatalogError(f"the right ascension of a cone is a number of degrees, not {self.ra}")
        if not -90 <= self.dec <= 90:
            raise CatalogError(
                f"the declination of a cone lies between -90 and 90 degrees, {self.dec} does not"
            )
        if not 0 <= self.radius <= 180:
            raise CatalogError(f"the radius of a cone lies between 0 and 180 degrees, {self.radius} does not")


def unit_vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """(n,) and (n,) in degrees → (n, 3)."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def healpix29(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """(n,) and (n,) in degrees → (n,) int64, nested indices of order 29."""
    from astropy import units as u
    from astropy_healpix import HEALPix

    return np.asarray(
        HEALPix(2**ORDER, order="nested").lonlat_to_healpix(ra * u.deg, dec * u.deg), dtype=np.int64
    )


def cone_ranges(cone: Cone) -> list[tuple[int, int]]:
    """Half-open ranges [low, high) of order-29 indices that cover the cone, sorted and disjoint.

    They hold every position of the cone and some around it.
    """
    from astropy import units as u
    from astropy_healpix import HEALPix

    # Pixels half as wide as the radius: some 20 cover the cone, in about ten ranges.
    wanted = np.log2(BASE_PIXEL_WIDTH / max(cone.radius, 1e-9)) + 1
    order = int(np.clip(np.ceil(wanted), 0, FINEST_CONE_ORDER))
    grid = HEALPix(2**order, order="nested")
    # The margin makes up for rounding where the cone's edge runs along a pixel's.
    radius = min(cone.radius + 0.05 * BASE_PIXEL_WIDTH / 2**order, 180.0)
    pixels = np.sort(
        grid.cone_search_lonlat(cone.ra % 360 * u.deg, cone.dec * u.deg, radius * u.deg).astype(np.int64)
    )
    starts = pixels[np.flatnonzero(np.diff(pixels, prepend=-2) > 1)]
    ends = pixels[np.flatnonzero(np.diff(pixels, append=np.iinfo(np.int64).max) > 1)] + 1
    shift = 2 * (ORDER - order)
    return [(int(start) << shift, int(end) << shift) for start, end in zip(starts, ends, strict=True)]


def in_cone(cone: Cone) -> sa.ColumnElement[bool]:
    """The condition on ``objects``: an indexed covering, then the exact distance.

    Two unit vectors at angle θ lie 2 sin(θ/2) apart, so |v − c|² ≤ (2 sin(r/2))².
    """
    x, y, z = (float(value) for value in unit_vectors(np.array(cone.ra % 360), np.array(cone.dec)))
    # A subquery of its own, so that no planner walks a whole ranking to look for the few rows in the cone.
    near = objects.alias("near")
    column = near.c
    dx, dy, dz = column.x - x, column.y - y, column.z - z
    # The last bit of a unit vector, 5e-11 arcsec, must not decide about a cone of radius 0 or 180.
    chord = 2 * np.sin(np.radians(cone.radius) / 2) + 4e-16
    exact = dx * dx + dy * dy + dz * dz <= float(chord**2)
    ranges = [sa.and_(column.healpix29 >= low, column.healpix29 < high) for low, high in cone_ranges(cone)]
    return objects.c.id.in_(sa.select(column.id).where(sa.or_(*ranges), exact))
