"""Rankings: filters, pages, and the rows they give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from service.catalog import ranking
from service.catalog.columns import NAMES
from service.catalog.engine import CatalogError, NotFoundError, reading
from service.catalog.ranking import Filters, flat, outliers
from service.catalog.runs import finish_if_complete
from service.catalog.writer import write_batch


@pytest.fixture
def filled(engine: sa.Engine, run: int, models: dict[str, str], make_row: Callable[..., Any]) -> sa.Engine:
    """30 spectra, the last of them the most anomalous, 3 of each score; and 5 cutouts."""
    spectra = [
        make_row(i, score=float(i // 3), night="2026-03-02" if i % 2 else "2026-03-01") for i in range(30)
    ]
    cutouts = [
        make_row(
            i,
            kind="cutout",
            survey="hsc",
            model=models["cutout"],
            path=f"/data/cutout-{i}.fits",
            score=100.0 + i,
        )
        for i in range(5)
    ]
    write_batch(engine, run, spectra + cutouts, [])
    finish_if_complete(engine, run)
    return engine


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{row['kind']} {row['object_id']}" for row in rows]


def test_pages_join_to_the_whole(filled: sa.Engine) -> None:
    whole = outliers(filled, Filters(), 100)
    assert whole.next is None and len(whole.rows) == 35
    assert [row["score"] for row in whole.rows] == sorted((row["score"] for row in whole.rows), reverse=True)
    seen: list[dict[str, Any]] = []
    token = None
    for _ in range(35):
        page = outliers(filled, Filters(), 4, token)
        seen += page.rows
        token = page.next
        if token is None:
            break
    assert ids(seen) == ids(whole.rows)


def test_pages_do_not_shift_when_rows_are_added(
    filled: sa.Engine, run: int, make_row: Callable[..., Any]
) -> None:
    first = outliers(filled, Filters(kind="spectrum"), 10)
    rest = outliers(filled, Filters(kind="spectrum"), 100, first.next).rows
    write_batch(filled, run, [make_row(99, score=1e6)], [])
    assert ids(outliers(filled, Filters(kind="spectrum"), 100, first.next).rows) == ids(rest)


FILTERS = [
    (Filters(kind="spectrum"), 30),
    (Filters(kind="cutout"), 5),
    (Filters(model="sdss"), 30),
    (Filters(model="lens@ba9876543210"), 5),
    (Filters(night="2026-03-02"), 15),
    (Filters(kind="spectrum", cluster=1), 10),
    (Filters(kind="spectrum", p=0.1), 21),
    (Filters(kind="spectrum", q=0.05), 0),
    (Filters(kind="spectrum", q=1.0), 0),  # p-values like these are no ordinary night's
    (Filters(kind="spectrum", q=1.0, flagged=True), 30),
    (Filters(night="1999-01-01"), 0),
]


def test_filters(filled: sa.Engine) -> None:
    for filters, number in FILTERS:
        assert len(outliers(filled, filters, 100).rows) == number, filters


def test_rows_have_the_contracts_columns(filled: sa.Engine) -> None:
    row = outliers(filled, Filters(kind="spectrum"), 1).rows[0]
    assert tuple(row) == (*NAMES, "parts", "windows")
    assert tuple(flat(row)) == (*NAMES, "chi2_tail", "chi2_tail_p")
    assert row["model"] == "sdss@0123456789ab" and row["lens_fraction"] is None


def test_flags_are_joined(engine: sa.Engine, run: int, make_row: Callable[..., Any]) -> None:
    rows = [
        make_row(1, reader_flags={"noise-estimated", "a"}, flags={"outside-domain"}),
        make_row(1, path="/data/copy.fits", object_id="copy"),
    ]
    write_batch(engine, run, rows, [])
    finish_if_complete(engine, run)
    flags = {row["object_id"]: row["flags"] for row in outliers(engine, Filters(), 10).rows}
    assert flags == {make_row(1).object_id: "a,duplicate,noise-estimated,outside-domain", "copy": "duplicate"}


def test_superseded_observations_are_not_ranked(
    engine: sa.Engine, run: int, make_row: Callable[..., Any]
) -> None:
    write_batch(engine, run, [make_row(1, sha256="a", score=5.0)], [])
    write_batch(engine, run, [make_row(1, sha256="b", score=4.0)], [])
    assert [row["score"] for row in outliers(engine, Filters(), 10).rows] == [4.0]


def test_what_is_superseded_between_the_two_questions_is_left_out(
    filled: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [row["path"] for row in outliers(filled, Filters(model="sdss"), 3).rows]
    rows_of = ranking.rows_of

    def after_a_write(*arguments: Any) -> dict[int, dict[str, Any]]:
        return {id_: row for id_, row in rows_of(*arguments).items() if row["path"] != expected[1]}

    monkeypatch.setattr(ranking, "rows_of", after_a_write)
    assert [row["path"] for row in outliers(filled, Filters(model="sdss"), 2).rows] == [
        expected[0],
        expected[2],
    ]


def test_a_page_takes_four_questions(filled: sa.Engine) -> None:
    asked: list[str] = []
    sa.event.listen(filled, "before_cursor_execute", lambda *event: asked.append(event[2]))
    for filters in (Filters(model="sdss"), Filters(kind="spectrum"), Filters(model="sdss", cluster=1)):
        asked.clear()
        outliers(filled, filters, 5)
        assert len([statement for statement in asked if statement != "BEGIN"]) == 4, asked


def test_the_server_keeps_the_plan_of_the_rows(filled: sa.Engine) -> None:
    if filled.dialect.name != "postgresql":
        pytest.skip("SQLite plans each time")
    token = None
    for _ in range(12):
        token = outliers(filled, Filters(model="sdss"), 2, token).next
    plans = "SELECT generic_plans FROM pg_prepared_statements WHERE statement LIKE '%= ANY%'"
    with reading(filled) as connection:
        assert connection.execute(sa.text(plans)).scalar_one() > 0


NOT_TOKENS = ["", "x", "bnVsbA", "WzEsMiwzXQ", "W05hTiwgMSwgIm0iXQ", "é", "[1.0, 2, 'm']"]


def test_tokens_that_are_none(filled: sa.Engine) -> None:
    for token in NOT_TOKENS:
        with pytest.raises(CatalogError, match="first page"):
            outliers(filled, Filters(), 5, token)


def test_unknown_models_are_answered_with_the_known(filled: sa.Engine) -> None:
    with pytest.raises(NotFoundError, match="sdss@0123456789ab"):
        outliers(filled, Filters(model="nope"), 5)
    with pytest.raises(NotFoundError, match="of kind spectrum"):
        outliers(filled, Filters(model="sdss", kind="cutout"), 5)


def test_a_cluster_needs_its_model(filled: sa.Engine) -> None:
    with pytest.raises(CatalogError, match="which kind or model"):
        outliers(filled, Filters(cluster=1), 5)


def test_an_empty_catalog_has_no_outliers(engine: sa.Engine) -> None:
    assert outliers(engine, Filters(), 5).rows == []


def test_scores_survive_the_round_trip_exactly(
    engine: sa.Engine, run: int, make_row: Callable[..., Any]
) -> None:
    values = np.random.default_rng(1).normal(size=20) * 10.0 ** np.arange(-10, 10)
    write_batch(engine, run, [make_row(i, score=value) for i, value in enumerate(values)], [])
    assert [row["score"] for row in outliers(engine, Filters(), 50).rows] == sorted(
        values.tolist(), reverse=True
    )
