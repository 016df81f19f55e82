"""Convex polygons on the sky, whose edges are great circles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import sqlalchemy as sa

from service.catalog.engine import CatalogError
from service.catalog.healpix import (
    BASE_PIXEL_WIDTH,
    FINEST_CONE_ORDER,
    Cone,
    covering,
    ranges_of,
    unit_vectors,
)
from service.catalog.schema import objects

MAX_VERTICES = 100
SAME = 1e-12
"""Vertices nearer than this, 0.2 micro-arcsec, are one; the last bits of a unit vector must not tell them apart."""


@dataclass(frozen=True)
class Polygon:
    """All positions within a convex polygon, its vertices (ra, dec) in degrees (ICRS), in order either way round."""

    vertices: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not 3 <= len(self.vertices) <= MAX_VERTICES:
            raise CatalogError(f"a polygon has 3 to {MAX_VERTICES} vertices, not {len(self.vertices)}")
        for ra, dec in self.vertices:
            if not math.isfinite(ra) or not -90 <= dec <= 90:
                raise CatalogError(
                    f"a polygon's vertices are right ascension and declination in degrees, not {ra:g}, {dec:g}"
                )
        if (self.normals @ self.corners.T < -SAME).any():
            raise CatalogError("the polygon is not convex: each vertex has to lie on one side of every edge")

    @classmethod
    def parse(cls, text: str) -> Polygon:
        """``ra,dec,ra,dec,…`` in degrees; spaces may stand for commas. Raises CatalogError."""
        try:
            numbers = [float(word) for word in text.replace(",", " ").split()]
        except ValueError:
            raise CatalogError(
                "a polygon is written as ra,dec,ra,dec,… in degrees, with numbers only"
            ) from None
        if len(numbers) % 2:
            raise CatalogError("a polygon is written as ra,dec,ra,dec,…: one number has no partner")
        return cls(tuple(zip(numbers[::2], numbers[1::2], strict=True)))

    @cached_property
    def corners(self) -> np.ndarray:
        """(n, 3) unit vectors."""
        ra, dec = np.array(self.vertices).T
        return unit_vectors(ra % 360, dec)

    @cached_property
    def normals(self) -> np.ndarray:
        """(n, 3) unit normals of the edges' planes; v is inside where normals · v ≥ 0."""
        # The same as the product with the next vertex, without its cancellation where the two are near.
        normals = np.cross(self.corners, np.roll(self.corners, -1, axis=0) - self.corners)
        length = np.linalg.norm(normals, axis=1)
        if (length < SAME).any():
            raise CatalogError("two vertices of the polygon in a row are the same or opposite points")
        normals /= length[:, None]
        # Which way round the vertices go shows by the side that their middle lies on.
        return normals if (normals @ self.middle).sum() >= 0 else -normals

    @cached_property
    def middle(self) -> np.ndarray:
        """(3,) unit vector amid the vertices."""
        middle = self.corners.sum(axis=0)
        length = np.linalg.norm(middle)
        if length < SAME:
            raise CatalogError("a polygon has to be smaller than a hemisphere")
        return middle / length

    def ranges(self) -> list[tuple[int, int]]:
        """Half-open ranges of order-29 indices that cover the polygon, sorted and disjoint."""
        from astropy import units as u
        from astropy_healpix import HEALPix

        x, y, z = self.middle
        radius = float(np.degrees(np.arccos(np.clip(self.corners @ self.middle, -1, 1)).max()))
        if (
            radius > 89
        ):  # a cap that holds the vertices holds the polygon only where it is less than a hemisphere
            radius = 180.0
        # Some three hundred pixels around it, of which those that touch it are kept.
        wanted = math.ceil(math.log2(BASE_PIXEL_WIDTH / max(radius, 1e-9))) + 3
        order = min(max(wanted, 0), FINEST_CONE_ORDER)
        grid = HEALPix(2**order, order="nested")
        # Farther than this from a pixel's centre lies none of its points (the widest pixels are at the poles).
        reach = BASE_PIXEL_WIDTH / 2**order
        ra, dec = np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))
        pixels = covering(Cone(float(ra), float(dec), radius), order)
        lon, lat = (angle.to_value(u.deg) for angle in grid.healpix_to_lonlat(pixels))
        near = (self.normals @ unit_vectors(lon, lat).T).min(axis=0) >= -math.sin(
            math.radians(min(reach, 90))
        )
        return ranges_of(pixels[near], order)


def in_polygon(polygon: Polygon, key: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """The condition on a column of objects' numbers: an indexed covering, then the side of each edge."""
    near = objects.alias("near_polygon")
    column = near.c
    ranges = [sa.and_(column.healpix29 >= low, column.healpix29 < high) for low, high in polygon.ranges()]
    sides = [
        column.x * float(a) + column.y * float(b) + column.z * float(c) >= -4e-16
        for a, b, c in polygon.normals
    ]
    return key.in_(sa.select(column.id).where(sa.or_(sa.false(), *ranges), *sides))
