"""Running a query where nothing can be written, for a limited time, up to a limited number of rows."""

from __future__ import annotations

import contextlib
import math
import random
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError, OperationalError, ProgrammingError, StatementError

from service.catalog.columns import Column
from service.catalog.engine import make_engine
from service.vo.errors import BusyError, TooSlowError, VoError
from service.vo.tables import Table, public_tables
from service.vo.tap_schema import with_tap_schema
from service.vo.translate import Query, translate

AT_ONCE = 8
"""Queries that run at the same time in this process."""
PATIENCE_S = 5
"""How long one more waits for its turn."""
STEPS = 20_000
"""Of SQLite's virtual machine between two looks at the clock: some milliseconds."""
MOST_CELLS = 3_000_000
"""Rows times columns of one result, which is held in memory."""


@dataclass(frozen=True, slots=True)
class Result:
    columns: list[Column]
    rows: list[tuple[Any, ...]]
    overflow: bool
    """Whether there is more than MAXREC let through."""


class Stopper:
    """Ends a query from outside. One for each query."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._cancel: Callable[[], Any] | None = None
        self._lock = threading.Lock()

    def stop(self) -> None:
        self.stopped.set()
        threading.Thread(target=self._insist, daemon=True).start()

    def _insist(self) -> None:
        """A cancellation that reaches a server between two statements does nothing, so it is repeated."""
        while True:
            with self._lock:
                if self._cancel is None:
                    return
                self._cancel()
            time.sleep(0.1)

    @contextlib.contextmanager
    def running(self, cancel: Callable[[], Any]) -> Iterator[None]:
        """For as long as the block runs, ``stop`` calls ``cancel``. Raises TooSlowError where it was called before."""
        with self._lock:
            self._cancel = cancel
        try:
            if self.stopped.is_set():
                raise TooSlowError("the query was stopped")
            yield
        finally:
            with self._lock:
                self._cancel = None


class Reader:
    """The catalog as VO queries see it."""

    def __init__(self, url: str) -> None:
        self.engine = read_only_engine(url)
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def dispose(self) -> None:
        self.engine.dispose()

    def tables(self) -> dict[str, Table]:
        """All public tables, by name in lower case."""
        with self.engine.connect() as connection:
            return with_tap_schema(public_tables(connection))

    def run(self, text: str, maxrec: int, seconds: float, stopper: Stopper | None = None) -> Result:
        """What this ADQL asks for. Raises VoError; TooSlowError after ``seconds`` or when it is stopped."""
        return self.query(
            lambda connection: translate(text, with_tap_schema(public_tables(connection)), connection),
            maxrec,
            seconds,
            stopper,
        )

    def query(
        self,
        make: Callable[[sa.Connection], Query],
        maxrec: int,
        seconds: float,
        stopper: Stopper | None = None,
    ) -> Result:
        """The rows of the query that ``make`` makes; as ``run``."""
        stopper = stopper or Stopper()
        if not self._places.acquire(timeout=PATIENCE_S):
            raise BusyError("too many queries run at this moment: try again later")
        try:
            with self.engine.connect() as connection, _limited(connection, seconds, stopper):
                return _fetch(connection, make(connection), maxrec)
        except RecursionError:
            raise VoError("the query is nested too deeply") from None
        except DBAPIError as error:
            raise _explained(error, seconds, stopper) from error
        except StatementError as error:
            raise VoError(f"the query cannot be run: {_first_line(error.orig or error)}") from error
        finally:
            self._places.release()


def _fetch(connection: sa.Connection, query: Query, maxrec: int) -> Result:
    columns = [output.column() for output in query.outputs]
    most = min(maxrec, MOST_CELLS // len(columns))
    wanted = most + 1 if query.top is None else min(query.top, most + 1)
    if most == 0:
        return Result(columns, [], True)
    rows = connection.execute(query.sql.limit(wanted)).all()
    return Result(columns, [tuple(row) for row in rows[:most]], len(rows) > most)


def read_only_engine(url: str) -> sa.Engine:
    """An engine whose connections cannot write, whatever they are told."""
    parsed = sa.make_url(url)
    engine = make_engine(url)
    if parsed.get_backend_name() == "sqlite":
        sa.event.listen(engine, "connect", _configure_sqlite)
        return engine
    sa.event.listen(engine, "connect", _configure_postgresql)
    return engine


def _configure_postgresql(connection: Any, _record: Any) -> None:
    connection.read_only = True  # psycopg begins each transaction so


def _configure_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA case_sensitive_like = ON")  # as in PostgreSQL, and as ADQL has it
    for name, (n, function) in SQLITE_FUNCTIONS.items():
        connection.create_function(name, n, function, deterministic=name != "adql_rand")


@contextlib.contextmanager
def _limited(connection: sa.Connection, seconds: float, stopper: Stopper) -> Iterator[None]:
    raw: Any = connection.connection.dbapi_connection
    if connection.dialect.name == "postgresql":
        connection.execute(
            sa.select(sa.func.set_config("statement_timeout", f"{max(1, int(seconds * 1000))}", True))
        )
        try:
            with stopper.running(raw.cancel):
                yield
        finally:
            if stopper.stopped.is_set():
                connection.invalidate()  # a late cancellation must not meet the next query
        return
    end = time.monotonic() + seconds
    raw.set_progress_handler(lambda: stopper.stopped.is_set() or time.monotonic() > end, STEPS)
    try:
        yield
    finally:
        raw.set_progress_handler(None, 0)


WRONG_FOR_SQLITE = (
    "overflow",
    "too many",
    "too large",
    "too deep",
    "too big",
    "LIKE or GLOB",
    "parser stack",
)


def _explained(error: DBAPIError, seconds: float, stopper: Stopper) -> Exception:
    """What a database's complaint means to the person who asked; the complaint itself where it is ours."""
    complaint = str(error.orig)
    code = getattr(error.orig, "sqlstate", None)
    if stopper.stopped.is_set():
        return TooSlowError("the query was stopped")
    if code == "57014" or "interrupted" in complaint:
        return TooSlowError(
            f"the query took longer than {seconds:g} s: ask for less, or run it asynchronously with more time"
        )
    wrong = isinstance(error, DataError) or (
        isinstance(error, ProgrammingError) and code not in (None, "42501")
    )
    if isinstance(error, OperationalError) and any(words in complaint for words in WRONG_FOR_SQLITE):
        wrong = True
    if wrong or code in ("54001", "54011", "54023", "53400"):
        return VoError(f"the database cannot do this: {_first_line(error.orig)}")
    return error


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]


def _safe(function: Callable[..., float]) -> Callable[..., float | None]:
    """NULL of NULL, and where the function has no value."""

    def safe(*values: float | None) -> float | None:
        if None in values:
            return None
        try:
            result = float(function(*values))
        except (ValueError, OverflowError, ZeroDivisionError):
            return None
        return result if math.isfinite(result) else None

    return safe


def _float32_at(data: bytes | None, k: int) -> float | None:
    if data is None:
        return None
    return float(struct.unpack_from("<f", data, 4 * k)[0]) if len(data) >= 4 * k + 4 else 0.0


SQLITE_FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    # Not every SQLite is built with these.
    **{
        name: (1, _safe(getattr(math, name)))
        for name in (
            "ceil", "floor", "degrees", "radians", "exp", "log10", "sqrt", "acos", "asin", "atan", "cos", "sin", "tan",
        )
    },
    "ln": (1, _safe(math.log)),
    "cot": (1, _safe(lambda x: 1 / math.tan(x))),
    "atan2": (2, _safe(math.atan2)),
    "power": (2, _safe(math.pow)),
    "adql_rand": (0, random.random),
    "float32_at": (2, _float32_at),
}  # fmt: skip
