"""Cones: the covering misses nothing, the exact distance decides, poles and RA 0 are nothing special."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from astropy import units as u
from astropy.coordinates import angular_separation
from hypothesis import given, settings
from hypothesis import strategies as st

from service.catalog.engine import CatalogError
from service.catalog.healpix import Cone, cone_ranges, healpix29
from service.catalog.ranking import Filters, outliers
from service.catalog.writer import write_batch

CENTRES = [(0.0, 0.0), (359.9999, 30.0), (123.4, 90.0), (0.0, -90.0), (45.0, 41.8), (180.0, -89.9)]
CENTRES += [(110.5, 61.711679291319555)]  # close to the middle of an edge of the finest pixels
RADII = [0.0, 1e-7, 1e-5, 0.001, 0.1, 3.0, 45.0, 90.0, 179.9, 180.0]


def around(ra: float, dec: float, radius: float, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """n positions at random distances up to twice the radius from a centre, in degrees."""
    rng = np.random.default_rng(seed)
    distance = np.radians(np.minimum(rng.uniform(0, 2, n) * radius, 180))
    bearing = rng.uniform(0, 2 * np.pi, n)
    ra0, dec0 = np.radians(ra), np.radians(dec)
    sin_dec = np.sin(dec0) * np.cos(distance) + np.cos(dec0) * np.sin(distance) * np.cos(bearing)
    x = np.cos(distance) - np.sin(dec0) * sin_dec
    y = np.sin(bearing) * np.sin(distance) * np.cos(dec0)
    return np.degrees(ra0 + np.arctan2(y, x)) % 360, np.degrees(np.arcsin(np.clip(sin_dec, -1, 1)))


def separation(ra: np.ndarray, dec: np.ndarray, cone: Cone) -> np.ndarray:
    radians = [np.radians(value) for value in (ra, dec, cone.ra, cone.dec)]
    return np.degrees(np.asarray(angular_separation(*radians)))


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize(("ra", "dec"), CENTRES)
def test_the_covering_misses_nothing(ra: float, dec: float, radius: float) -> None:
    cone = Cone(ra, dec, radius)
    ranges = np.array(cone_ranges(cone), dtype=np.int64)
    assert (ranges[:, 0] < ranges[:, 1]).all() and (ranges[1:, 0] > ranges[:-1, 1]).all()
    assert len(ranges) < 400
    lon, lat = around(ra, dec, radius, 2000)
    inside = separation(lon, lat, cone) <= radius
    pixels = healpix29(lon[inside], lat[inside])
    where = np.searchsorted(ranges[:, 0], pixels, side="right") - 1
    assert (where >= 0).all() and (pixels < ranges[where, 1]).all()


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 360),
    st.floats(-90, 90),
    st.floats(-6, 2.25).map(lambda exponent: 10**exponent),
    st.integers(0, 99),
)
def test_any_covering_misses_nothing(ra: float, dec: float, radius: float, seed: int) -> None:
    cone = Cone(ra, dec, radius)
    ranges = np.array(cone_ranges(cone), dtype=np.int64)
    lon, lat = around(ra, dec, radius, 300, seed)
    inside = separation(lon, lat, cone) <= radius
    pixels = healpix29(lon[inside], lat[inside])
    where = np.searchsorted(ranges[:, 0], pixels, side="right") - 1
    assert (where >= 0).all() and (pixels < ranges[where, 1]).all()


def test_cones_in_the_catalog_are_exact(engine: sa.Engine, run: int, make_row: Callable[..., Any]) -> None:
    positions = [
        around(ra, dec, radius, 8, seed=i) for i, (ra, dec) in enumerate(CENTRES) for radius in RADII
    ]
    ra, dec = (np.concatenate(part) for part in zip(*positions, strict=True))
    rows = [make_row(i, ra=ra[i], dec=dec[i]) for i in range(len(ra))]
    write_batch(engine, run, rows, [])
    for centre in CENTRES:
        for radius in RADII[2:]:
            cone = Cone(*centre, radius)
            found = outliers(engine, Filters(cone=cone), len(ra)).rows
            distance = separation(ra, dec, cone)
            names = {row["object_id"] for row in found}
            # Some centres lie exactly 90° apart, where the last bit decides.
            assert names >= {rows[i].object_id for i in np.flatnonzero(distance < radius - 1e-9)}
            assert names <= {rows[i].object_id for i in np.flatnonzero(distance < radius + 1e-9)}


def test_radius_zero_finds_the_very_position(
    engine: sa.Engine, run: int, make_row: Callable[..., Any]
) -> None:
    write_batch(engine, run, [make_row(1, ra=123.456, dec=-7.89), make_row(2, ra=123.457, dec=-7.89)], [])
    found = outliers(engine, Filters(cone=Cone(123.456, -7.89, 0)), 10).rows
    assert [row["object_id"] for row in found] == [make_row(1).object_id]


def test_objects_without_a_position_are_in_no_cone(
    engine: sa.Engine, run: int, make_row: Callable[..., Any]
) -> None:
    write_batch(engine, run, [make_row(1, ra=None, dec=None)], [])
    assert outliers(engine, Filters(cone=Cone(0, 0, 180)), 10).rows == []


@pytest.mark.parametrize(
    "values", [(0, 91, 1), (0, 0, -1), (0, 0, 181), (float("nan"), 0, 1), (0, float("nan"), 1)]
)
def test_cones_that_are_none(values: tuple[float, float, float]) -> None:
    with pytest.raises(CatalogError, match="cone"):
        Cone(*values)


def test_indices_are_those_of_astropy_healpix() -> None:
    from astropy_healpix import HEALPix

    lon, lat = HEALPix(2**29, order="nested").healpix_to_lonlat([0, 5, 12 * 4**29 - 1])
    assert healpix29(lon.to_value(u.deg), lat.to_value(u.deg)).tolist() == [0, 5, 12 * 4**29 - 1]
