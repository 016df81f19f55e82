"""Writing scores and rejections: once, twice, at once, and what it does to the run."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from service.catalog import schema
from service.catalog.attempts import recover
from service.catalog.engine import CatalogError, make_engine
from service.catalog.queries import explained
from service.catalog.rows import RejectedRow
from service.catalog.runs import add_inputs, counts, finish_if_complete, open_run
from service.catalog.writer import NOT_FINITE, write_batch

TABLES = ("objects", "observations", "scores", "embeddings", "explanations", "failures", "run_inputs")


def dump(engine: sa.Engine, without: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    """All rows of the tables that a batch touches, but for the columns that count or tell the time."""
    result = {}
    with engine.connect() as connection:
        for name in TABLES:
            table = schema.metadata.tables[name]
            columns = [c for c in table.c if c.name not in ("scored_at", "last_seen", "attempts", *without)]
            rows = connection.execute(sa.select(*columns)).all()
            result[name] = sorted(tuple(map(repr, row)) for row in rows)
    return result


def number_of(engine: sa.Engine, table: sa.Table) -> int:
    with engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def column(engine: sa.Engine, column: sa.Column[Any]) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.scalars(sa.select(column).order_by(*column.table.primary_key.columns)))


def q_values(p: np.ndarray) -> np.ndarray:
    """Benjamini–Hochberg by the book: q_i = min over j ≥ i of m·p_(j)/j."""
    order = np.argsort(p)
    raw = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty_like(p)
    q[order] = np.minimum(1, np.minimum.accumulate(raw[::-1])[::-1])
    return q


def test_writing_twice_changes_nothing(engine: sa.Engine, run: int, make_row: Callable[..., Any]) -> None:
    def batch() -> tuple[list[Any], list[Any]]:
        return [make_row(i) for i in range(20)], [RejectedRow("/data/bad.fits", "truncated", "of 2880 bytes")]

    write_batch(engine, run, *batch())
    assert finish_if_complete(engine, run)
    once = dump(engine)
    write_batch(engine, run, *batch())
    assert finish_if_complete(engine, run)
    assert dump(engine) == once
    assert len(once["scores"]) == 20 and len(once["failures"]) == 1
    assert column(engine, schema.failures.c.attempts) == [2]


def test_only_outliers_have_explanations(engine: sa.Engine, run: int, make_row: Callable[..., Any]) -> None:
    def write(*data: bytes | None) -> list[bytes]:
        write_batch(engine, run, [make_row(i, explanation=d) for i, d in enumerate(data)], [])
        return column(engine, schema.explanations.c.data)

    assert write(None, None) == []
    assert write(None, b"\x00one", b"two") == [b"\x00one", b"two"]
    assert write(b"none", b"\x00one", b"other") == [b"none", b"\x00one", b"other"]
    assert explained(engine, "0266-51602-0001", "sdss")["data"] == b"\x00one"
    write_batch(engine, run, [make_row(1, sha256="f" * 64)], [])
    assert explained(engine, "0266-51602-0001")["data"] is None, "of other bytes than those scored last"


def test_the_ledger_accounts_for_every_input(
    engine: sa.Engine, run: int, make_row: Callable[..., Any]
) -> None:
    rows = [make_row(i) for i in range(3)]
    paths = [row.path for row in rows] + ["/data/bad.fits"]
    assert add_inputs(engine, run, [(path, 10, 1) for path in paths]) == sorted(paths)
    assert not finish_if_complete(engine, run)
    write_batch(engine, run, rows[:2], [])
    assert counts(engine, run) == {"found": 4, "queued": 2, "scored": 2, "failed": 0, "reasons": {}}
    assert recover(engine, run) == sorted([rows[2].path, "/data/bad.fits"])
    write_batch(engine, run, rows[2:], [RejectedRow("/data/bad.fits", "truncated")])
    expected = {"found": 4, "queued": 0, "scored": 3, "failed": 1, "reasons": {"truncated": 1}}
    assert counts(engine, run) == expected
    assert counts(engine, run, [*paths[2:], "/elsewhere"]) == expected | {"found": 2, "scored": 1}
    assert finish_if_complete(engine, run)
    assert column(engine, schema.runs.c.summary) == [
        {"found": 4, "scored": 3, "failed": 1, "reasons": {"truncated": 1}}
    ]


def test_inputs_are_queued_again_only_when_they_changed(
    engine: sa.Engine, run: int, make_row: Callable[..., Any]
) -> None:
    row = make_row(1)
    assert add_inputs(engine, run, [(row.path, 10, 1)]) == [row.path]
    assert add_inputs(engine, run, [(row.path, 10, 1)]) == []
    write_batch(engine, run, [row], [])
    assert finish_if_complete(engine, run)
    assert add_inputs(engine, run, [(row.path, 10, 1)]) == []
    assert finish_if_complete(engine, run)
    assert add_inputs(engine, run, [(row.path, 11, 1)]) == [row.path]
    assert not finish_if_complete(engine, run)
    write_batch(engine, run, [make_row(1)], [])
    assert add_inputs(engine, run, [(row.path, 11, 1)], requeue=True) == [row.path]


def test_a_run_is_one_run(engine: sa.Engine, models: dict[str, str]) -> None:
    ids = {open_run(engine, "sdss/2026-03-02/m", "sdss", "2026-03-02", models) for _ in range(3)}
    assert len(ids) == 1
    assert len({*ids, open_run(engine, "sdss/2026-03-03/m", "sdss", "2026-03-03", models)}) == 2


def test_q_values_over_the_run_with_ties(engine: sa.Engine, run: int, make_row: Callable[..., Any]) -> None:
    p = np.round(np.random.default_rng(7).uniform(0.01, 1, 200), 2)
    write_batch(engine, run, [make_row(i, p_value=p[i]) for i in range(len(p))], [])
    assert column(engine, schema.scores.c.q_value) == [None] * len(p)
    assert finish_if_complete(engine, run)
    with engine.connect() as connection:
        pq = connection.execute(sa.select(schema.scores.c.p_value, schema.scores.c.q_value)).all()
    got = np.array([list(row) for row in pq])
    np.testing.assert_allclose(got[:, 1], q_values(got[:, 0]), rtol=1e-12)


def test_a_later_run_keeps_its_own_q_values(
    engine: sa.Engine, run: int, models: dict[str, str], make_row: Callable[..., Any]
) -> None:
    write_batch(engine, run, [make_row(i) for i in range(4)], [])
    later = open_run(engine, "score/later", "", "2026-03-02", models)
    write_batch(engine, later, [make_row(3)], [])
    assert finish_if_complete(engine, later)
    assert finish_if_complete(engine, run)
    values = dict(
        zip(column(engine, schema.scores.c.run_id), column(engine, schema.scores.c.q_value), strict=True)
    )
    assert values[later] == pytest.approx(1 / 4)
    assert None not in values.values()


def test_a_success_ends_the_failures_it_resolves(
    engine: sa.Engine, run: int, models: dict[str, str], make_row: Callable[..., Any]
) -> None:
    row = make_row(1)
    other = RejectedRow(row.path, "the model takes cutouts", kind="spectrum", model=models["cutout"])
    write_batch(engine, run, [], [RejectedRow(row.path, "unreadable")])
    assert column(engine, schema.failures.c.reason) == ["unreadable"]
    write_batch(engine, run, [], [other])
    assert column(engine, schema.failures.c.reason) == ["the model takes cutouts"]
    write_batch(engine, run, [row], [])
    assert column(engine, schema.failures.c.reason) == ["the model takes cutouts"]
    write_batch(engine, run, [], [RejectedRow(row.path, "unreadable")])
    write_batch(engine, run, [make_row(1)], [])
    assert column(engine, schema.failures.c.reason) == []


def test_changed_bytes_are_a_new_observation(
    engine: sa.Engine, run: int, make_row: Callable[..., Any]
) -> None:
    def current() -> list[tuple[str, bool]]:
        pairs = zip(
            column(engine, schema.observations.c.sha256),
            column(engine, schema.observations.c.superseded),
            strict=True,
        )
        return list(pairs)

    write_batch(engine, run, [make_row(1, sha256="a")], [])
    write_batch(engine, run, [make_row(1, sha256="b")], [])
    assert current() == [("a", True), ("b", False)]
    write_batch(engine, run, [make_row(1, sha256="a")], [])
    assert current() == [("a", False), ("b", True)]
    write_batch(engine, run, [], [RejectedRow(make_row(1).path, "truncated", sha256="c")])
    assert current() == [("a", True), ("b", True)]
    assert number_of(engine, schema.objects) == 1


def test_equal_bytes_under_two_paths_are_flagged(
    engine: sa.Engine, run: int, make_row: Callable[..., Any]
) -> None:
    rows = [make_row(1), make_row(1, path="/data/copy.fits"), make_row(2)]
    write_batch(engine, run, rows, [])
    finish_if_complete(engine, run)
    assert sorted(column(engine, schema.observations.c.duplicate)) == [False, True, True]
    assert number_of(engine, schema.scores) == 3 and number_of(engine, schema.objects) == 2


def test_a_path_twice_in_a_batch_is_one_input(
    engine: sa.Engine, run: int, make_row: Callable[..., Any]
) -> None:
    row = make_row(1)
    write_batch(engine, run, [row, make_row(1)], [RejectedRow(row.path, "truncated")])
    assert counts(engine, run) == {"found": 1, "queued": 0, "scored": 1, "failed": 0, "reasons": {}}
    assert number_of(engine, schema.failures) == 0


def test_numbers_that_are_not_finite_become_failures(
    engine: sa.Engine, run: int, make_row: Callable[..., Any]
) -> None:
    write_batch(engine, run, [make_row(1, score=math.nan), make_row(2, elbo=-math.inf), make_row(3)], [])
    assert column(engine, schema.failures.c.reason) == [NOT_FINITE] * 2
    write_batch(engine, run, [make_row(4, parts={"a": math.nan}, redshift=math.nan, ra=math.nan)], [])
    assert column(engine, schema.scores.c.parts)[-1] == {"a": None}
    assert column(engine, schema.observations.c.redshift)[-1] is None
    assert column(engine, schema.objects.c.healpix29)[-1] is None


def test_text_that_databases_refuse(engine: sa.Engine, run: int, make_row: Callable[..., Any]) -> None:
    path = "/data/\udcff\x00.fits"
    assert add_inputs(engine, run, [(path, None, None)]) == [path]
    write_batch(engine, run, [make_row(1, path=path, object_id="a\x00b\udcfe")], [])
    assert counts(engine, run, [path])["scored"] == 1
    assert finish_if_complete(engine, run)
    assert column(engine, schema.objects.c.object_id) == ["ab\\udcfe"]


def test_a_known_position_survives_a_file_without_one(
    engine: sa.Engine, run: int, make_row: Callable[..., Any]
) -> None:
    write_batch(engine, run, [make_row(1, ra=-30.0, dec=20.0)], [])
    write_batch(engine, run, [make_row(1, ra=None, dec=None, path="/data/again.fits")], [])
    assert column(engine, schema.objects.c.ra) == [330.0]


@pytest.mark.parametrize("changes", [{"model": "unknown@000000000000"}, {}])
def test_unknown_runs_and_models_write_nothing(
    engine: sa.Engine, run: int, make_row: Callable[..., Any], changes: dict[str, str]
) -> None:
    with pytest.raises(CatalogError, match=r"no run|does not list"):
        write_batch(engine, run if changes else run + 1, [make_row(1, **changes)], [])
    assert all(rows == [] for rows in dump(engine).values())


def test_many_writers_at_once(
    engine: sa.Engine, catalog_url: str, models: dict[str, str], make_row: Callable[..., Any]
) -> None:
    """Overlapping batches in every order, each followed by an attempt to end the run."""
    errors: list[BaseException] = []
    run = open_run(engine, "sdss/2026-03-01/both", "sdss", "2026-03-01", {"spectrum": "sdss@0123456789ab"})
    add_inputs(engine, run, [(make_row(i).path, 1, 1) for i in range(40)])

    def write(seed: int) -> None:
        own = make_engine(catalog_url)
        order = np.random.default_rng(seed).permutation(40)
        try:
            for part in np.array_split(order, 4):
                write_batch(own, run, [make_row(int(i)) for i in part if i % 8], [
                    RejectedRow(make_row(int(i)).path, "truncated") for i in part if i % 8 == 0
                ])  # fmt: skip
                finish_if_complete(own, run)
        except Exception as error:  # handed to the test's own thread, which fails by it
            errors.append(error)
        finally:
            own.dispose()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert finish_if_complete(engine, run)
    assert counts(engine, run) == {
        "found": 40, "queued": 0, "scored": 35, "failed": 5, "reasons": {"truncated": 5},
    }  # fmt: skip
    assert None not in column(engine, schema.scores.c.q_value)


@given(st.text())
def test_clean_text_is_stable_and_encodable(text: str) -> None:
    once = schema.clean(text)
    assert schema.clean(once) == once
    assert "\x00" not in once and once.encode("utf-8") is not None
