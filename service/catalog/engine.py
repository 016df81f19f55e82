"""Opening the catalog: engines for SQLite and PostgreSQL, the schema's revision, upgrades."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from pydantic_core import from_json, to_json
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

if TYPE_CHECKING:
    from alembic.config import Config

BUSY_TIMEOUT_MS = 60_000
"""How long a SQLite connection waits for another's write to end."""
UPGRADE_LOCK = 7325_1234
"""PostgreSQL advisory lock under which one process at a time migrates; the number is arbitrary."""


class CatalogError(Exception):
    """What is wrong with the catalog or with what was asked of it, in words for the person who asked."""


class NotFoundError(CatalogError):
    """What was asked for is not in the catalog."""


def make_engine(url: str) -> sa.Engine:
    """An engine for `url`, not connected yet. Raises CatalogError where the URL is not one of a catalog."""
    try:
        parsed = sa.make_url(url)
    except ArgumentError:
        # The text may hold a password, so it is not repeated.
        raise CatalogError(
            "PECULIAR_DATABASE_URL is not a database URL; write sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
        ) from None
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise CatalogError(f"a catalog lives in SQLite or PostgreSQL, not in {parsed.get_backend_name()}")
    try:
        # pydantic's JSON: a row is mostly score parts, which take json.loads three and json.dumps nine times as long
        json: dict[str, Any] = {"json_serializer": _as_json, "json_deserializer": from_json}
        if parsed.get_backend_name() == "postgresql":
            engine = sa.create_engine(parsed, pool_pre_ping=True, **json)
            sa.event.listen(engine, "before_cursor_execute", _choose_format)
            return engine
        engine = sa.create_engine(parsed, **json)
    except (NoSuchModuleError, ImportError) as error:
        raise CatalogError(f"no driver for {parsed.drivername}: {error}") from error
    sa.event.listen(engine, "connect", _configure_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _as_json(value: Any) -> str:
    return to_json(value).decode()


def _choose_format(connection: sa.Connection, cursor: Any, *_: Any) -> None:
    # PostgreSQL writes answers as text, unless asked for the bytes of numbers and latents as they are. SQLAlchemy
    # wants text where it looks at the schema.
    if connection.get_execution_options().get("binary", False):
        from psycopg.pq import Format

        cursor.format = Format.BINARY


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # Transactions are begun by _begin_sqlite; the driver by itself begins them late, or not at all for DDL.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads before it writes fails at once when another wrote meanwhile; one that takes the
    # write lock at its start waits its turn.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection for a few short questions, on PostgreSQL without a transaction around them.

    Each sees what is committed when it is asked, as in PostgreSQL's transactions of the usual kind. That saves BEGIN
    and ROLLBACK, and psycopg keeps the statements that the server has prepared: it forgets them at every ROLLBACK.
    Answers that are read piece by piece (``yield_per``) need a transaction: ``engine.connect()``.
    """
    options = {"isolation_level": "AUTOCOMMIT"} if engine.dialect.name == "postgresql" else {}
    with engine.connect().execution_options(binary=True, **options) as connection:
        yield connection


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that will write: committed at the end of the block, rolled back on an exception."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


def open_catalog(url: str, create: bool = False) -> sa.Engine:
    """An engine on a catalog whose schema is the one this program knows.

    With ``create``, as the commands that write want it, a missing or completely empty database is made one.
    Raises CatalogError, saying what to run, where there is no catalog, where it is older or newer than this
    program, or where it cannot be reached.
    """
    engine = make_engine(url)
    try:
        current = revision(engine)
        if current is None and create:
            if not _has_tables(engine):
                upgrade(engine)
            # Another process may have been quicker.
            current = revision(engine)
    except CatalogError:
        engine.dispose()
        raise
    head, name = head_revision(), display_name(engine)
    if current == head:
        return engine
    engine.dispose()
    if current is None:
        raise CatalogError(
            f"there is no catalog at {name} yet: `peculiar train` and `peculiar score` make one, "
            "and so does `peculiar db upgrade`"
        )
    if current not in known_revisions():
        raise CatalogError(
            f"the catalog at {name} has schema {current}, which this version of peculiar does not know: "
            "install a newer one"
        )
    raise CatalogError(
        f"the catalog at {name} has schema {current}, this program needs {head}: run `peculiar db upgrade`"
    )


def revision(engine: sa.Engine) -> str | None:
    """The schema's revision, None where there is no catalog. Raises CatalogError where it cannot be read."""
    file = sqlite_file(engine)
    if file is not None and not file.exists():
        return None  # connecting would leave an empty file behind
    from alembic.runtime.migration import MigrationContext

    with reachable(engine), engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head_revision() -> str:
    """The revision that this program needs."""
    head = _script().get_current_head()
    if head is None:
        msg = "the migrations have no head"
        raise RuntimeError(msg)
    return head


def known_revisions() -> set[str]:
    return {script.revision for script in _script().walk_revisions()}


def upgrade(engine: sa.Engine) -> None:
    """Bring the schema to the head revision; safe when several processes do so at once.

    Raises CatalogError where the database cannot be reached or written.
    """
    from alembic import command

    file = sqlite_file(engine)
    if file is not None and not file.parent.is_dir():
        raise CatalogError(f"cannot make {file}: its folder does not exist")
    with reachable(engine):
        if file is not None:
            _use_wal(engine)
        with writing(engine) as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE_LOCK)))
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _use_wal(engine: sa.Engine) -> None:
    """Choose SQLite's journal in which readers and the one writer do not block each other.

    The mode stays with the file. Other statements wait BUSY_TIMEOUT_MS for other connections; this one is
    refused at once while they use the file.
    """
    end = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    with engine.connect() as connection:
        raw: Any = connection.connection.dbapi_connection
        while True:
            try:
                raw.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.02)
            else:
                return


@contextmanager
def reachable(engine: sa.Engine) -> Iterator[None]:
    """Turns the driver's complaint into one sentence for the user."""
    try:
        yield
    except DBAPIError as error:
        reason = (
            str(error.orig).strip().splitlines()[0]
            if error.orig and str(error.orig).strip()
            else "no reason given"
        )
        raise CatalogError(f"cannot use the catalog at {display_name(engine)}: {reason}") from error


def display_name(engine: sa.Engine) -> str:
    """The catalog's URL without its password."""
    return engine.url.render_as_string(hide_password=True)


def sqlite_file(engine: sa.Engine) -> Path | None:
    """The file of a SQLite catalog; None for PostgreSQL and for one in memory."""
    database = engine.url.database
    if (
        engine.dialect.name != "sqlite"
        or not database
        or database == ":memory:"
        or database.startswith("file:")
    ):
        return None
    return Path(database)


def _has_tables(engine: sa.Engine) -> bool:
    file = sqlite_file(engine)
    if file is not None and not file.exists():
        return False
    with reachable(engine):
        return bool(sa.inspect(engine).get_table_names())


def _config() -> Config:
    from alembic.config import Config

    import migrations

    config = Config()
    # Alembic interpolates % in its options.
    config.set_main_option("script_location", str(Path(migrations.__path__[0])).replace("%", "%%"))
    return config


def _script() -> Any:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config())
