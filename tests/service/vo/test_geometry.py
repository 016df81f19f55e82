"""ADQL's points and circles on the sphere, the same in both databases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.vo.conftest import POSITIONS

Ask = Callable[..., list[tuple[Any, ...]]]


@pytest.mark.parametrize(
    ("ra", "dec", "radius"),
    [
        (0, 0, 0.001), (0, 0, 1), (359.9999, 0, 0.0001), (10, 90, 0.06), (200, 90, 0.04), (77, -90, 1), (10, 20, 0),
        (10, 20, 180), (180, 0, 90), (180, 0, 179.99995), (0, -30, 0.44), (0, 89.95, 0.11), (0, 0, 90),
    ],
)  # fmt: skip
def test_cones_are_exact(ask: Ask, apart: Any, ra: float, dec: float, radius: float) -> None:
    wanted = [float(i) for i, place in enumerate(POSITIONS) if apart(place, (ra, dec)) <= radius + 1e-12]
    circle = f"CIRCLE('ICRS', {ra}, {dec}, {radius})"
    from_scores = "FROM peculiar.scores WHERE kind = 'spectrum' AND"
    index = f"SELECT score {from_scores} CONTAINS(POINT('ICRS', ra, dec), {circle}) = 1 ORDER BY score"
    assert ask(index) == [(score,) for score in wanted]
    arithmetic = f"SELECT score {from_scores} CONTAINS(POINT(ra + 0, dec), {circle}) = 1 ORDER BY score"
    assert ask(arithmetic) == [(score,) for score in wanted]
    crossing = f"SELECT score {from_scores} 1 = INTERSECTS({circle}, POINT(ra, dec)) ORDER BY score"
    assert ask(crossing) == [(score,) for score in wanted]
    outside = f"SELECT COUNT(*) {from_scores} CONTAINS(POINT(ra, dec), {circle}) = 0"
    assert ask(outside) == [(12 - len(wanted),)]


def test_distances_and_circles(ask: Ask, apart: Any) -> None:
    found = ask(
        "SELECT score, DISTANCE(POINT(ra, dec), POINT(10, 20)), DISTANCE(ra, dec, 10, 20) FROM peculiar.scores "
        "WHERE kind = 'spectrum' AND ra IS NOT NULL ORDER BY score"
    )
    for (_, by_points, by_numbers), place in zip(found, POSITIONS, strict=True):
        assert by_points == pytest.approx(apart(place, (10, 20)), abs=1e-9)
        assert by_points == by_numbers
    pairs = ask(
        "SELECT COUNT(*) FROM peculiar.objects a JOIN peculiar.objects b ON a.object_key < b.object_key AND "
        "CONTAINS(POINT(a.ra, a.dec), CIRCLE(b.ra, b.dec, 0.12)) = 1 WHERE a.kind = 'spectrum' AND b.kind = 'spectrum'"
    )
    near = [
        (a, b) for i, a in enumerate(POSITIONS) for b in POSITIONS[i + 1 :] if apart(a, b) <= 0.12
    ]  # fmt: skip
    assert pairs == [(len(near),)]
    within = "CONTAINS(CIRCLE(ra, dec, 1), CIRCLE(0, 0, {}))"
    assert ask(f"SELECT COUNT(*) FROM peculiar.objects WHERE {within.format(1.00005)} = 1") == [(1,)]
    assert ask(f"SELECT COUNT(*) FROM peculiar.objects WHERE {within.format(0.5)} = 1") == [(0,)]
    nobody = ask("SELECT CONTAINS(POINT(ra, dec), CIRCLE(0, 0, 9)) FROM peculiar.scores WHERE ra IS NULL")
    assert nobody == [(None,)]
    assert ask(
        "SELECT COORD1(POINT(ra, dec)), COORD2(POINT(ra, dec)) FROM peculiar.scores WHERE score = 10"
    ) == [(10.0, 20.0)]
