"""Filters: each alone, all together, and those that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.catalog.engine import CatalogError
from service.catalog.filters import Filters
from service.catalog.healpix import Cone, healpix29, unit_vectors
from service.catalog.labels import Label, record_labels
from service.catalog.polygon import Polygon
from service.catalog.ranking import outliers
from service.catalog.runs import finish_if_complete
from service.catalog.writer import write_batch

SQUARE = Polygon(((9.5, -6.0), (12.5, -6.0), (12.5, -4.0), (9.5, -4.0)))


def name(i: int) -> str:
    return f"0266-51602-{i:04d}"


def numbers(rows: Iterable[dict[str, Any]]) -> set[int]:
    return {int(row["object_id"][-4:]) for row in rows}


@pytest.fixture
def filled(engine: sa.Engine, run: int, models: dict[str, str], make_row: Callable[..., Any]) -> sa.Engine:
    """Spectra 0 … 19 over two nights; 3 and 4 are labelled as lenses, 5 as an artefact, 6 as something else."""
    rows = [
        make_row(
            i,
            night=f"2026-03-{1 + i % 4:02d}",
            snr=float(i),
            redshift=None if i == 7 else i / 10,
            spectral_class="QSO" if i % 5 == 0 else "GALAXY",
            flags={"outside-domain"} if i % 2 else {"outside"},
            reader_flags={"noise-estimated"} if i < 3 else set(),
            parts={"window": 1.0, "window_p": 1 / (1 + i), "rarity": 2.0, "rarity_p": float("nan")},
            object_id="100%_é-0012" if i == 12 else name(i),
        )
        for i in range(20)
    ]
    write_batch(engine, run, rows, [])
    finish_if_complete(engine, run)
    said = [(3, "lens", "ann"), (4, "lens", "ann"), (5, "artefact", "ann"), (6, "odd one", "ann")]
    record_labels(engine, [Label(name(i), label, by) for i, label, by in said])
    record_labels(engine, [Label(name(3), "not-lens", "bob"), Label(name(8), "lens", "bob")])
    record_labels(engine, [Label(name(8), "artefact", "bob")])
    return engine


ALONE = [
    (Filters(since="2026-03-03"), {i for i in range(20) if i % 4 >= 2}),
    (Filters(since="2026-03-02", until="2026-03-03"), {i for i in range(20) if i % 4 in (1, 2)}),
    (Filters(part=("window", 0.1)), set(range(9, 20))),
    (Filters(part=("rarity", 1.0)), set()),
    (Filters(snr=(17.0, None)), {17, 18, 19}),
    (Filters(snr=(3.0, 5.0)), {3, 4, 5}),
    (Filters(redshift=(0.55, 0.85)), {6, 8}),
    (Filters(spectral_class="qso"), {0, 5, 10, 15}),
    (Filters(label="Lens"), {3, 4}),
    (Filters(label="odd_one"), {6}),
    (Filters(label="never said"), set()),
    (Filters(labelled=True), {3, 4, 5, 6, 8}),
    (Filters(labelled=False, snr=(None, 8.5)), {0, 1, 2, 7}),
    (Filters(flag="outside"), set(range(0, 20, 2))),
    (Filters(flag="noise-estimated"), {0, 1, 2}),
    (Filters(flag="out_ide"), set()),
    (Filters(no_flag="outside-domain"), set(range(0, 20, 2))),
    (Filters(flag="duplicate"), set()),
    (Filters(flag="instrument-problem"), set()),
    (Filters(no_flag="instrument-problem"), set(range(20))),
    (Filters(search="-0012"), {12}),
    (Filters(search="51602-000"), set(range(10))),
    (Filters(search="%"), {12}),
    (Filters(search="0_"), set()),
    (Filters(search="%_"), {12}),
    (Filters(search="'; DROP TABLE scores; --"), set()),
    (Filters(polygon=SQUARE), {0, 1, 2}),
]


def test_each_filter_alone(filled: sa.Engine) -> None:
    for filters, expected in ALONE:
        assert numbers(outliers(filled, filters, 100).rows) == expected, filters


def test_all_together_and_page_by_page(filled: sa.Engine) -> None:
    filters = Filters(
        kind="spectrum", model="sdss", since="2026-03-01", until="2026-03-31", p=0.9, part=("window", 0.5),
        snr=(1.0, 18.0), redshift=(0.1, 1.9), spectral_class="GALAXY", labelled=False, no_flag="duplicate",
        search="51602", cone=Cone(15.0, -4.0, 60.0),
        polygon=Polygon(((0.0, -60.0), (60.0, -60.0), (60.0, 60.0), (0.0, 60.0))),
    )  # fmt: skip
    whole = outliers(filled, filters, 100).rows
    assert numbers(whole) == {i for i in range(1, 19) if i % 5 and i not in (3, 4, 5, 6, 7, 8, 12)}
    seen: list[dict[str, Any]] = []
    page = outliers(filled, filters, 2)
    while page.next is not None:
        seen += page.rows
        page = outliers(filled, filters, 2, page.next)
    assert seen + page.rows == whole


def test_an_upper_case_letter_is_found(engine: sa.Engine, run: int, make_row: Callable[..., Any]) -> None:
    write_batch(engine, run, [make_row(1, object_id="SDSS J0001")], [])
    assert len(outliers(engine, Filters(search="sdss j"), 5).rows) == 1


def test_the_expected_lens_fraction(
    engine: sa.Engine, run: int, make_row: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is found page by page is what the rows' own fractions say, whatever the database could not decide."""
    monkeypatch.setattr("service.catalog.ranking.ROWS_AT_ONCE", 3)
    rng = np.random.default_rng(4)
    shares = rng.dirichlet([0.3, 0.3, 0.3], 60).astype(np.float32)
    rows = [
        make_row(i, cluster=int(r.argmax()), cluster_probability=float(r.max()), responsibilities=r)
        for i, r in enumerate(shares)
    ]
    write_batch(engine, run, rows, [])
    assert outliers(engine, Filters(lens_fraction=0.0), 100).rows == []
    first = {k: [i for i, row in enumerate(rows) if row.cluster == k] for k in (0, 1)}
    said = {first[0][0]: "lens", first[0][1]: "lens", first[1][0]: "lens", first[1][1]: "not-lens"}
    record_labels(engine, [Label(name(i), label, "ann") for i, label in said.items()])
    everything = outliers(engine, Filters(), 100).rows
    for least in (0.0, 0.5, 0.6, 0.75, 0.8, 0.84, 1.0):
        expected = [row for row in everything if row["lens_fraction"] is not None]
        expected = [row for row in expected if row["lens_fraction"] >= least]
        filters, seen, token = Filters(lens_fraction=least), [], None
        for _ in range(60):
            page = outliers(engine, filters, 7, token)
            seen += page.rows
            token = page.next
            if token is None:
                break
        assert seen == expected, least
    assert 0 < len(expected) + 1 < 60


CONTRADICTIONS = [
    (Filters(snr=(2.0, 1.0)), "no snr lies between 2 and 1"),
    (Filters(redshift=(2.0, 1.0)), "no redshift"),
    (Filters(since="2026-03-02", until="2026-03-01"), "no night lies between"),
    (Filters(part=("windows", 0.1)), "no part of the score is called 'windows'; there are rarity, window"),
    (Filters(label=" "), "a label has 1 to 100"),
]


def test_filters_that_cannot_be(filled: sa.Engine) -> None:
    for filters, words in CONTRADICTIONS:
        with pytest.raises(CatalogError, match=words):
            outliers(filled, filters, 5)


def square(ra: float, dec: float, side: float) -> Polygon:
    """Four corners around a place, found on the sphere, so that poles are nothing special."""
    centre = unit_vectors(np.array(ra), np.array(dec))
    east = np.cross([0.0, 0.0, 1.0], centre) if abs(dec) < 89.99 else np.array([1.0, 0.0, 0.0])
    east /= np.linalg.norm(east)
    north = np.cross(centre, east)
    step = np.tan(np.radians(side / 2))
    corners = [centre + step * (a * east + b * north) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    unit = [c / np.linalg.norm(c) for c in corners]
    return Polygon(
        tuple((float(np.degrees(np.arctan2(y, x))), float(np.degrees(np.arcsin(z)))) for x, y, z in unit)
    )


@settings(max_examples=80, deadline=None)
@given(
    st.floats(0, 360),
    st.floats(-90, 90),
    st.floats(-5, 2.2).map(lambda e: min(10**e, 140.0)),
    st.integers(0, 99),
)
@example(175.0, 42.5, 1e-5, 0)  # smaller than a pixel, across the middle of its edge
def test_the_covering_of_a_polygon_misses_nothing(ra: float, dec: float, side: float, seed: int) -> None:
    polygon = square(ra, dec, side)
    ranges = np.array(polygon.ranges(), dtype=np.int64)
    assert (ranges[:, 0] < ranges[:, 1]).all() and (ranges[1:, 0] > ranges[:-1, 1]).all()
    assert len(ranges) < 400
    weights = np.random.default_rng(seed).dirichlet([0.5] * 4, 300)  # points within it, many near its edges
    v = weights @ polygon.corners
    v /= np.linalg.norm(v, axis=1)[:, None]
    pixels = healpix29(np.degrees(np.arctan2(v[:, 1], v[:, 0])), np.degrees(np.arcsin(v[:, 2])))
    where = np.searchsorted(ranges[:, 0], pixels, side="right") - 1
    assert (where >= 0).all() and (pixels < ranges[where, 1]).all()


def test_polygons_in_the_catalog_are_exact(engine: sa.Engine, run: int, make_row: Callable[..., Any]) -> None:
    places = [(0.0, 0.0), (359.9, 30.0), (12.0, 90.0), (0.0, -90.0), (180.0, 45.0)]
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(0, 360, 200), np.degrees(np.arcsin(rng.uniform(-1, 1, 200)))
    for k, (a, d) in enumerate(places):  # some of them near each place
        ra[10 * k : 10 * k + 10] = a + rng.normal(0, 1, 10)
        dec[10 * k : 10 * k + 10] = np.clip(d + rng.normal(0, 1, 10), -90, 90)
    write_batch(engine, run, [make_row(i, ra=ra[i], dec=dec[i]) for i in range(200)], [])
    v = unit_vectors(ra, dec)
    for a, d in places:
        for side in (1.0, 20.0, 120.0):
            polygon = square(a, d, side)
            for way in (polygon, Polygon(polygon.vertices[::-1])):
                found = numbers(outliers(engine, Filters(polygon=way), 200).rows)
                depth = (v @ polygon.normals.T).min(axis=1)
                # One edge runs through the pole, where the last bit decides.
                assert set(np.flatnonzero(depth > 1e-12).tolist()) <= found
                assert found <= set(np.flatnonzero(depth > -1e-12).tolist())


BAD_POLYGONS = [
    ("", "3 to 100"),
    ("1,2,3,4", "3 to 100"),
    (",".join(["1,1"] * 101), "3 to 100"),
    ("1,2,3", "no partner"),
    ("a,b,c,d,e,f", "numbers only"),
    ("nan,0,1,0,1,1", "right ascension and declination"),
    ("0,91,1,0,1,1", "right ascension and declination"),
    ("0,0,0,0,1,1", "same or opposite"),
    ("0,0,180,0,90,10", "same or opposite"),
    ("0,0,120,0,240,0", "smaller than a hemisphere"),
    ("0,0,10,0,0,10,10,10", "not convex"),
    ("0,0,10,0,10,10,5,1,0,10", "not convex"),
]


def test_polygons_that_are_none() -> None:
    for text, words in BAD_POLYGONS:
        with pytest.raises(CatalogError, match=words):
            Polygon.parse(text)
