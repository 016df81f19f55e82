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
ROUNDING = 4e-16
"""The last bit of a unit vector, 5e-11 arcsec, which must not decide about a cone of radius 0 or 180."""


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
    """(n,) and (n,) in degrees → (n,) int64, nested indices of order 29.

    Górski et al. 2005, § 4.1 and § 5.2. astropy-healpix gives the same but for positions within rounding of a
    pixel's edge, and takes a second to import.
    """
    side = 1 << ORDER
    turn = np.asarray(ra) % 360 / 90 % 4
    z, away = np.sin(np.radians(dec)), np.cos(np.radians(dec))
    # Around the equator: the two diagonal coordinates count the lines of pixel edges from the south-west and
    # the south-east.
    rising = np.floor(side * (0.5 + turn - 0.75 * z)).astype(np.int64)
    falling = np.floor(side * (0.5 + turn + 0.75 * z)).astype(np.int64)
    a, b = rising >> ORDER, falling >> ORDER
    belt = np.where(a == b, (a & 3) + 4, np.where(a < b, a & 3, (b & 3) + 8))
    belt_x, belt_y = falling & (side - 1), side - 1 - (rising & (side - 1))
    # In the caps they are counted from the pole, along the two sides of one of its four faces.
    quarter = np.minimum(turn.astype(np.int64), 3)
    reach = side * away / np.sqrt((1 + np.abs(z)) / 3)
    east = np.minimum((turn - quarter) * reach, side - 1).astype(np.int64)
    west = np.minimum((1 - turn + quarter) * reach, side - 1).astype(np.int64)
    north = z > 0
    cap = np.where(north, quarter, quarter + 8)
    cap_x, cap_y = np.where(north, side - 1 - west, east), np.where(north, side - 1 - east, west)
    equatorial = np.abs(z) <= 2 / 3
    face = np.where(equatorial, belt, cap)
    x, y = np.where(equatorial, belt_x, cap_x), np.where(equatorial, belt_y, cap_y)
    return (face << 2 * ORDER) | _spread(x) | _spread(y) << 1


def _spread(values: np.ndarray) -> np.ndarray:
    """The bits of numbers below 2³², with a zero bit before each."""
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF), (8, 0x00FF00FF00FF00FF), (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333), (1, 0x5555555555555555),
    ):  # fmt: skip
        values = (values | values << shift) & mask
    return values


def cone_ranges(cone: Cone) -> list[tuple[int, int]]:
    """Half-open ranges [low, high) of order-29 indices that cover the cone, sorted and disjoint.

    They hold every position of the cone and some around it.
    """
    # Pixels half as wide as the radius: some 20 cover the cone, in about ten ranges.
    wanted = np.log2(BASE_PIXEL_WIDTH / max(cone.radius, 1e-9)) + 1
    order = int(np.clip(np.ceil(wanted), 0, FINEST_CONE_ORDER))
    return ranges_of(covering(cone, order), order)


def covering(cone: Cone, order: int) -> np.ndarray:
    """Nested pixels of an order, (n,) int64, that hold every position of a cone, and some around it."""
    from astropy import units as u
    from astropy_healpix import HEALPix

    # The search looks at pixels' corners: the margin finds those that only the middle of an edge lets into the cone, as
    # any may be of a cone smaller than its pixel.
    width = BASE_PIXEL_WIDTH / 2**order
    radius = min(max(cone.radius + 0.25 * width, width), 180.0)
    grid = HEALPix(2**order, order="nested")
    pixels = grid.cone_search_lonlat(cone.ra % 360 * u.deg, cone.dec * u.deg, radius * u.deg)
    return np.asarray(pixels, dtype=np.int64)


def ranges_of(pixels: np.ndarray, order: int) -> list[tuple[int, int]]:
    """Half-open ranges of order-29 indices that the nested pixels of an order hold, sorted and disjoint."""
    pixels = np.sort(pixels)
    starts = pixels[np.flatnonzero(np.diff(pixels, prepend=-2) > 1)]
    ends = pixels[np.flatnonzero(np.diff(pixels, append=np.iinfo(np.int64).max) > 1)] + 1
    shift = 2 * (ORDER - order)
    return [(int(start) << shift, int(end) << shift) for start, end in zip(starts, ends, strict=True)]


def in_cone(cone: Cone, key: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """The condition on a column of objects' numbers: an indexed covering, then the exact distance.

    Two unit vectors at angle θ lie 2 sin(θ/2) apart, so |v − c|² ≤ (2 sin(r/2))².
    """
    x, y, z = (float(value) for value in unit_vectors(np.array(cone.ra % 360), np.array(cone.dec)))
    # A subquery of its own, so that no planner walks a whole ranking to look for the few rows in the cone.
    near = objects.alias("near")
    column = near.c
    dx, dy, dz = column.x - x, column.y - y, column.z - z
    chord = 2 * np.sin(np.radians(cone.radius) / 2) + ROUNDING
    exact = dx * dx + dy * dy + dz * dz <= float(chord**2)
    ranges = [sa.and_(column.healpix29 >= low, column.healpix29 < high) for low, high in cone_ranges(cone)]
    return key.in_(sa.select(column.id).where(sa.or_(*ranges), exact))
