"""Bulk upserts: the same rows in either database, and errors that look like any other statement's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from service.catalog import schema
from service.catalog.bulk import Upsert
from service.catalog.engine import writing

FAILURES = Upsert(
    schema.failures,
    ("path", "model"),
    ("reason",),
    lambda new: {"attempts": schema.failures.c.attempts + new.attempts},
)


def columns(run: int, **changes: list[Any]) -> dict[str, list[Any]]:
    now = datetime(2026, 3, 1, 12, 30, 15, 250, tzinfo=UTC)
    values: dict[str, list[Any]] = {
        "reason": ["é\x00\udcff", "b", "c"], "path": ["/1", "/2", "/3"], "attempts": [1, 2, 3], "detail": [""] * 3,
        "kind": [""] * 3, "model": [""] * 3, "run_id": [run] * 3, "first_seen": [now] * 3, "last_seen": [now] * 3,
    }  # fmt: skip
    return values | changes


def rows(engine: sa.Engine) -> list[Any]:
    f = schema.failures.c
    with engine.connect() as connection:
        return [
            tuple(row)
            for row in connection.execute(
                sa.select(f.path, f.reason, f.attempts, f.first_seen).order_by(f.path)
            )
        ]


def test_values_are_converted_as_by_any_statement(engine: sa.Engine, run: int) -> None:
    for _ in range(2):
        with writing(engine) as connection:
            FAILURES.write(connection, columns(run))
    now = columns(run)["first_seen"][0]
    assert rows(engine) == [("/1", "é\\udcff", 2, now), ("/2", "b", 4, now), ("/3", "c", 6, now)]


def test_no_rows_are_no_statement(engine: sa.Engine, run: int) -> None:
    with writing(engine) as connection:
        FAILURES.write(connection, {name: [] for name in columns(run)})
    assert rows(engine) == []


def test_a_refused_row_is_an_error_of_sqlalchemy_and_writes_nothing(engine: sa.Engine, run: int) -> None:
    with pytest.raises(IntegrityError), writing(engine) as connection:
        FAILURES.write(connection, columns(run, reason=["a", None, "c"]))
    assert rows(engine) == []


def test_what_the_driver_refuses_is_an_error_of_sqlalchemy(engine: sa.Engine, run: int) -> None:
    wrong = columns(run, attempts=[1, 2**80, 3])
    with pytest.raises((DBAPIError, OverflowError)), writing(engine) as connection:
        FAILURES.write(connection, wrong)
    with writing(engine) as connection:
        FAILURES.write(connection, columns(run))
    assert len(rows(engine)) == 3
