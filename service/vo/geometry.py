"""Points and circles on the sky, and what ADQL asks about them.

A cone with written-out numbers goes through the HEALPix index and is refined exactly, as everywhere in the catalog;
anything else is arithmetic of unit vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from service.catalog.engine import CatalogError
from service.catalog.healpix import ROUNDING, Cone, in_cone, unit_vectors
from service.vo.errors import VoError
from service.vo.tables import KEY, POSITION
from service.vo.terms import NUMBERS, Term, as_float, need, number

FRAMES = ("", "ICRS")
"""Coordinate systems that a POINT may name; the catalog has no other."""


@dataclass(frozen=True, slots=True)
class Point:
    ra: Term
    dec: Term

    def constant(self) -> tuple[float, float] | None:
        """Degrees, where both are written out."""
        ra, dec = self.ra.constant, self.dec.constant
        return None if ra is None or dec is None else (float(ra), float(dec))

    def vector(self) -> list[sa.ColumnElement[float]]:
        """Its unit vector: x, y, z."""
        known = self.constant()
        if known is not None:
            vector = unit_vectors(np.array(known[0] % 360), np.array(known[1]))
            return [sa.literal(float(value), sa.Double()) for value in vector]
        stored = self.stored()
        if stored is not None:
            return [stored[name] for name in POSITION]
        ra, dec = (sa.func.radians(as_float(term), type_=sa.Double) for term in (self.ra, self.dec))

        def f(name: str, x: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
            called: sa.ColumnElement[float] = getattr(sa.func, name)(x, type_=sa.Double)
            return called

        return [f("cos", dec) * f("cos", ra), f("cos", dec) * f("sin", ra), f("sin", dec)]

    def stored(self) -> dict[str, sa.ColumnElement[Any]] | None:
        """x, y, z and object_key, where it is a row's own position."""
        source = self.ra.source
        names = (self.ra.column and self.ra.column.name, self.dec.column and self.dec.column.name)
        if source is None or source is not self.dec.source or names != ("ra", "dec"):
            return None
        return source.position or None


@dataclass(frozen=True, slots=True)
class Circle:
    centre: Point
    radius: Term
    """Degrees"""


Shape = Point | Circle


def make_point(arguments: list[Term]) -> Point:
    """POINT([frame,] ra, dec)"""
    ra, dec = _without_frame("POINT", arguments, 2)
    if dec.constant is not None and not -90 <= float(dec.constant) <= 90:
        raise VoError(f"the declination of a POINT lies between -90 and 90 degrees, {dec.constant} does not")
    return Point(ra, dec)


def make_circle(arguments: list[Term | Point]) -> Circle:
    """CIRCLE([frame,] ra, dec, radius) or CIRCLE(POINT(…), radius)"""
    centres = [argument for argument in arguments if isinstance(argument, Point)]
    terms = [argument for argument in arguments if not isinstance(argument, Point)]
    if centres:
        if len(centres) > 1 or not arguments or not isinstance(arguments[-2], Point):
            raise VoError("CIRCLE takes a POINT and a radius, or ra, dec and radius")
        (radius,) = _without_frame("CIRCLE", terms, 1)
        centre = centres[0]
    else:
        ra, dec, radius = _without_frame("CIRCLE", terms, 3)
        centre = make_point([ra, dec])
    if radius.constant is not None and not 0 <= float(radius.constant) <= 180:
        raise VoError(f"the radius of a CIRCLE lies between 0 and 180 degrees, {radius.constant} does not")
    return Circle(centre, radius)


def _without_frame(name: str, arguments: list[Term], n: int) -> list[Term]:
    if len(arguments) == n + 1 and arguments[0].type == "text":
        frame = arguments[0].constant
        if not isinstance(frame, str) or frame.strip().upper().split(" ")[0] not in FRAMES:
            raise VoError(f"positions are in ICRS here: write {name}('ICRS', …) or leave the frame out")
        arguments = arguments[1:]
    if len(arguments) != n:
        raise VoError(f"{name} takes {n} number{'' if n == 1 else 's'} in degrees, not {len(arguments)}")
    return [need(term, *NUMBERS, where=name) for term in arguments]


def distance(a: Point, b: Point) -> Term:
    """Degrees: 2 atan2(|a − b|, |a + b|) of unit vectors, accurate at any separation (Kahan 2006, § 12)."""
    apart, together = _squares(a, b)
    root = [sa.func.sqrt(value, type_=sa.Double) for value in (apart, together)]
    angle = 2.0 * sa.func.atan2(*root, type_=sa.Double)
    return Term(sa.func.degrees(angle, type_=sa.Double), "float")


def contains(inner: Shape, outer: Shape) -> sa.ColumnElement[bool]:
    """Whether a circle holds a point or another circle."""
    if not isinstance(outer, Circle):
        raise VoError("CONTAINS takes a POINT or a CIRCLE, and the CIRCLE that may hold it")
    if isinstance(inner, Circle):
        reach = Term(as_float(outer.radius) - as_float(inner.radius), "float", constant=_less(outer, inner))
        near = _within(inner.centre, outer.centre, reach)
        return sa.and_(as_float(inner.radius) <= as_float(outer.radius), near)
    return _within(inner, outer.centre, outer.radius)


def intersects(a: Shape, b: Shape) -> sa.ColumnElement[bool]:
    """Whether two shapes have a point in common; a POINT is a circle of radius 0."""
    shapes = [shape if isinstance(shape, Circle) else Circle(shape, number(0)) for shape in (a, b)]
    known = [shape.radius.constant for shape in shapes]
    reach = None if None in known else min(180.0, sum(float(value or 0) for value in known))
    radius = sum((as_float(shape.radius) for shape in shapes), start=sa.literal(0.0, sa.Double()))
    return _within(shapes[0].centre, shapes[1].centre, Term(radius, "float", constant=reach))


def _less(outer: Circle, inner: Circle) -> float | None:
    if outer.radius.constant is None or inner.radius.constant is None:
        return None
    return max(0.0, float(outer.radius.constant) - float(inner.radius.constant))


def _within(a: Point, b: Point, radius: Term) -> sa.ColumnElement[bool]:
    """Whether two points are at most ``radius`` apart."""
    if radius.constant is not None:
        for moving, fixed in ((a, b), (b, a)):
            stored, centre = moving.stored(), fixed.constant()
            if stored is not None and centre is not None:
                return in_cone(_cone(*centre, float(radius.constant)), stored[KEY])
        reach: sa.ColumnElement[Any] = sa.literal(math.radians(float(radius.constant)) / 2, sa.Double())
    else:
        reach = sa.func.radians(radius.sql, type_=sa.Double) / 2.0
    apart, _ = _squares(a, b)
    # Two unit vectors at angle θ lie 2 sin(θ/2) apart; beyond 180° that would fall again.
    half = sa.case((reach > math.pi / 2, sa.literal(math.pi / 2, sa.Double())), else_=reach)
    chord = 2.0 * sa.func.sin(half, type_=sa.Double) + ROUNDING
    return sa.and_(reach >= 0.0, apart <= chord * chord)


def _squares(a: Point, b: Point) -> tuple[sa.ColumnElement[float], sa.ColumnElement[float]]:
    """|a − b|² and |a + b|²"""
    pairs = list(zip(a.vector(), b.vector(), strict=True))
    zero: sa.ColumnElement[float] = sa.literal(0.0, sa.Double())
    return sum(((p - q) * (p - q) for p, q in pairs), start=zero), sum(
        ((p + q) * (p + q) for p, q in pairs), start=zero
    )


def _cone(ra: float, dec: float, radius: float) -> Cone:
    try:
        return Cone(ra, dec, radius)
    except CatalogError as error:
        raise VoError(str(error)) from None
