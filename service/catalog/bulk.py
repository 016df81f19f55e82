"""Many rows at once: each upsert described once, and done in the way in which its database is quick.

PostgreSQL takes the rows by binary COPY into a temporary table and from there by one INSERT … SELECT; SQLite by
``executemany``. SQLAlchemy writes both statements and converts the values, once for each and by columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from service.catalog.schema import CleanText, clean_or_none

Columns = Mapping[str, Sequence[Any]]
"""Values by column, all of one length."""
Expressions = dict[str, sa.ColumnElement[Any]]


@dataclass(eq=False)
class Upsert:
    """Inserts rows; where ``key`` is there, overwrites ``update`` and sets what ``extra`` makes of the new row.

    Expressions hold no bound values: the statement is kept as text. ``write`` wants no key twice.
    """

    table: sa.Table
    key: tuple[str, ...]
    update: tuple[str, ...] = ()
    extra: Callable[[Any], Expressions] = lambda new: {}
    _prepared: dict[Any, Any] = field(default_factory=dict, init=False)

    def write(self, connection: sa.Connection, columns: Columns) -> None:
        """Write the rows in their order, so that writers who sort by key lock in the same order."""
        names = tuple(column.name for column in self.table.c if column.name in columns)
        if not len(columns[names[0]]):
            return
        dialect = connection.dialect
        if (dialect.name, names) not in self._prepared:
            prepare = self._for_sqlite if dialect.name == "sqlite" else self._for_postgresql
            self._prepared[dialect.name, names] = (
                _converters(self.table, names, dialect),
                prepare(dialect, names),
            )
        converters, statements = self._prepared[dialect.name, names]
        rows = zip(
            *(
                map(convert, columns[name]) if convert else columns[name]
                for name, convert in zip(names, converters, strict=True)
            ),
            strict=True,
        )
        if dialect.name == "sqlite":
            connection.exec_driver_sql(statements[0], list(rows))
            return
        stage, copy, insert = statements
        connection.exec_driver_sql(stage)
        types = [self.table.c[name].type.compile(dialect).lower() for name in names]
        _copy(connection, copy, types, rows)
        connection.exec_driver_sql(insert)

    def _for_sqlite(self, dialect: sa.Dialect, names: tuple[str, ...]) -> list[str]:
        statement = self._on_conflict(sqlite.insert(self.table))
        return [str(statement.compile(dialect=dialect, column_keys=list(names)))]

    def _for_postgresql(self, dialect: sa.Dialect, names: tuple[str, ...]) -> list[str]:
        """What makes the temporary table, what fills it, and what takes the rows over."""
        quote = dialect.identifier_preparer.quote
        new, listed = f"new_{self.table.name}", ", ".join(map(quote, names))
        source = sa.select(sa.table(new, *(sa.column(name) for name in names)))
        statement = self._on_conflict(postgresql.insert(self.table).from_select(names, source))
        return [
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {quote(new)} ON COMMIT DELETE ROWS"
            f" AS SELECT * FROM {quote(self.table.name)} WITH NO DATA",
            f"COPY {quote(new)} ({listed}) FROM STDIN (FORMAT BINARY)",
            str(statement.compile(dialect=dialect)),
        ]

    def _on_conflict(self, statement: Any) -> Any:
        changed = {name: statement.excluded[name] for name in self.update} | self.extra(statement.excluded)
        return statement.on_conflict_do_update(index_elements=self.key, set_=changed)


def _converters(table: sa.Table, names: tuple[str, ...], dialect: sa.Dialect) -> list[Any]:
    """What turns a Python value into the driver's, by column; None where they are the same, as for bytes."""

    def converter(kind: sa.types.TypeEngine[Any]) -> Any:
        if isinstance(kind, sa.LargeBinary):
            return None
        if isinstance(kind, CleanText):  # most columns; SQLAlchemy's way there takes twice as long
            return clean_or_none
        return kind.dialect_impl(dialect).bind_processor(dialect)

    return [converter(table.c[name].type) for name in names]


def _copy(
    connection: sa.Connection, statement: str, types: list[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    """Run psycopg's COPY; its errors come out as SQLAlchemy's, as from any other statement."""
    import psycopg

    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(f"COPY needs psycopg, not {type(driver)}")
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as into:
            into.set_types(types)
            for row in rows:
                into.write_row(row)
    except psycopg.Error as error:
        raise DBAPIError.instance(
            statement, None, error, psycopg.Error, dialect=connection.dialect
        ) from error
