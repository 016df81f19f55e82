"""What databases want spelled their own way: inserts, keys of JSON, JSON values, long lists in pieces."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB

T = TypeVar("T")

CHUNK = 1000
"""Values in one IN list; SQLite takes 32,766 in a statement."""


def insert_into(connection: sa.Connection, table: sa.Table) -> Any:
    """The INSERT of this database, which knows ON CONFLICT."""
    return (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(table)


def json_keys(connection: sa.Connection, column: sa.ColumnElement[Any]) -> Any:
    """A table-valued function with one column, ``key``: the keys of a JSON object column."""
    if connection.dialect.name == "postgresql":
        return sa.func.jsonb_object_keys(column).table_valued("key", name="keys").render_derived()
    return sa.func.json_each(column).table_valued("key", name="keys")


def one_of(connection: sa.Connection, column: sa.Column[int], ids: Sequence[int]) -> sa.ColumnElement[bool]:
    """Whether a column is one of these whole numbers, which PostgreSQL takes as one parameter.

    So the statement is the same for any number of them, and the server keeps the plan that it once made.
    """
    if connection.dialect.name == "postgresql":
        return column == sa.any_(sa.literal(list(ids), postgresql.ARRAY(sa.BigInteger)))
    return column.in_(ids)


def rows_as_json(connection: sa.Connection, rows: Sequence[Sequence[str | int | None]]) -> sa.Subquery:
    """A table of rows that travels as one parameter, with its columns c0, c1, … as text.

    Drivers take far longer over thousands of parameters than databases do over the rows.
    """
    cells: list[sa.ColumnElement[Any]]
    width = len(rows[0])
    if connection.dialect.name == "postgresql":
        each = sa.func.jsonb_array_elements(sa.literal(rows, JSONB)).table_valued("value", name="each")
        cells = [each.c.value.op("->>")(sa.literal_column(str(i))) for i in range(width)]
    else:
        each = sa.func.json_each(json.dumps(rows)).table_valued("value", name="each")
        cells = [sa.func.json_extract(each.c.value, f"$[{i}]") for i in range(width)]
    columns = [cell.label(f"c{i}") for i, cell in enumerate(cells)]
    return sa.select(*columns).select_from(each).subquery()


def finite_json(value: Any) -> Any:
    """The same value in plain Python types, with None for NaN and infinities, which JSON does not know."""
    if isinstance(value, dict):
        return {str(key): finite_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return finite_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def refresh_statistics(connection: sa.Connection) -> None:
    """Let SQLite's planner look at what is in the tables by now; PostgreSQL's does so by itself."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA analysis_limit = 1000")
        connection.exec_driver_sql("ANALYZE")


def chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """The values in lists of at most CHUNK."""
    values = list(values)
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))
