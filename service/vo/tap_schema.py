"""TAP_SCHEMA: the public tables described in tables (TAP 1.1, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from service.catalog.columns import Column
from service.catalog.statements import rows_as_json
from service.vo.tables import SCHEMA, Table

VOTABLE_TYPES = {"text": "unicodeChar", "float": "double", "int": "long", "short": "int", "time": "char"}
ARRAYSIZES = {"text": "*", "time": "*"}
XTYPES = {"time": "timestamp"}
SCHEMAS = {
    SCHEMA: "Calibrated anomaly scores for spectra and image cutouts.",
    "TAP_SCHEMA": "What can be queried here.",
}


def _text(name: str, description: str, ucd: str = "meta.note") -> Column:
    return Column(name, "text", description, ucd=ucd)


def _number(name: str, description: str, ucd: str = "meta.code") -> Column:
    return Column(name, "short", description, ucd=ucd)


NAME, TITLE = "meta.id", "meta.title"
COLUMNS = {
    "schemas": (
        _text("schema_name", "the schema", NAME),
        _text("utype", "its data model"),
        _text("description", "what is in it"),
        _number("schema_index", "recommended order", "meta.number"),
    ),
    "tables": (
        _text("schema_name", "the schema", NAME),
        _text("table_name", "as in a query", TITLE),
        _text("table_type", "table or view"),
        _text("utype", "its data model"),
        _text("description", "what is in it"),
        _number("table_index", "recommended order", "meta.number"),
    ),
    "columns": (
        _text("table_name", "as in a query", NAME),
        _text("column_name", "as in a query", TITLE),
        _text("datatype", "of VOTable", "meta.code"),
        _text("arraysize", "of VOTable", "meta.code"),
        _text("xtype", "of DALI", "meta.code"),
        _number("size", "no longer used", "meta.number"),
        _text("description", "what it is"),
        _text("utype", "its data model"),
        _text("unit", "as in the VOUnits standard", "meta.unit"),
        _text("ucd", "what kind of quantity it is", "meta.ucd"),
        _number("indexed", "1 where conditions on it are quick"),
        _number("principal", "1 where most people want it"),
        _number("std", "1 where a standard defines it"),
        _number("column_index", "recommended order", "meta.number"),
    ),
    "keys": (
        _text("key_id", "the foreign key", NAME),
        _text("from_table", "the table that has it"),
        _text("target_table", "the table it points to"),
        _text("utype", "its data model"),
        _text("description", "what it connects"),
    ),
    "key_columns": (
        _text("key_id", "the foreign key", NAME),
        _text("from_column", "of the table that has it"),
        _text("target_column", "of the table it points to"),
    ),
}  # fmt: skip
DESCRIPTIONS = {
    "schemas": "The schemas of this service.",
    "tables": "Its tables.",
    "columns": "Their columns.",
    "keys": "Foreign keys between them.",
    "key_columns": "The columns of these keys.",
}
KEYS = {
    "tables": (("schema_name", "TAP_SCHEMA.schemas", "schema_name"),),
    "columns": (("table_name", "TAP_SCHEMA.tables", "table_name"),),
    "keys": (
        ("from_table", "TAP_SCHEMA.tables", "table_name"),
        ("target_table", "TAP_SCHEMA.tables", "table_name"),
    ),
    "key_columns": (("key_id", "TAP_SCHEMA.keys", "key_id"),),
}


def with_tap_schema(public: dict[str, Table]) -> dict[str, Table]:
    """The public tables with those of TAP_SCHEMA, which describe them and themselves."""
    every: dict[str, Table] = dict(public)
    for name, columns in COLUMNS.items():
        table = Table(
            f"TAP_SCHEMA.{name}",
            DESCRIPTIONS[name],
            columns,
            _selecting(name, every),
            principal=frozenset(column.name for column in columns if column.name not in ("utype", "size")),
            keys=KEYS.get(name, ()),
        )
        every[table.name.lower()] = table
    return every


def _selecting(name: str, every: dict[str, Table]) -> Any:
    def select(connection: sa.Connection, wanted: set[str] | None) -> sa.Select[Any]:
        rows = ROWS[name](list(every.values()))
        source = rows_as_json(connection, rows)
        types: dict[str, Any] = {"short": sa.Integer, "text": sa.Text}
        columns: list[sa.ColumnElement[Any]] = [
            sa.cast(source.c[f"c{i}"], types[c.type]).label(c.name) for i, c in enumerate(COLUMNS[name])
        ]
        return sa.select(*columns)

    return select


def foreign_keys(tables: Sequence[Table]) -> list[tuple[str, Table, str, str, str]]:
    """(id, table, its column, the table pointed to, that one's column) of every foreign key."""
    return [
        (f"{table.name}.{column}.{target}", table, column, target, there)
        for table in tables
        for column, target, there in table.keys
    ]


Rows = list[tuple[str | int | None, ...]]


def _schemas(tables: list[Table]) -> Rows:
    return [(name, None, text, i) for i, (name, text) in enumerate(SCHEMAS.items(), 1)]


def _tables(tables: list[Table]) -> Rows:
    return [(t.name.split(".")[0], t.name, "table", None, t.description, i) for i, t in enumerate(tables, 1)]


def _columns(tables: list[Table]) -> Rows:
    return [
        (
            t.name, quoted(c.name), VOTABLE_TYPES[c.type], ARRAYSIZES.get(c.type), XTYPES.get(c.type), None,
            c.description, None, c.unit or None, c.ucd or None, int(c.name in t.indexed), int(c.name in t.principal),
            int(t.name.startswith("TAP_SCHEMA.")), i,
        )
        for t in tables
        for i, c in enumerate(t.columns, 1)
    ]  # fmt: skip


def _keys(tables: list[Table]) -> Rows:
    return [
        (key, table.name, target, None, f"{table.name}.{column} is {target}.{there}")
        for key, table, column, target, there in foreign_keys(tables)
    ]


def _key_columns(tables: list[Table]) -> Rows:
    return [(key, column, there) for key, _, column, _, there in foreign_keys(tables)]


ROWS = {
    "schemas": _schemas,
    "tables": _tables,
    "columns": _columns,
    "keys": _keys,
    "key_columns": _key_columns,
}


def quoted(name: str) -> str:
    """The name of a column as a query writes it: in quotes where ADQL keeps the word for itself."""
    from vo_models.adql.misc import ADQL_SQL_KEYWORDS

    return f'"{name}"' if name.upper() in ADQL_SQL_KEYWORDS else name
