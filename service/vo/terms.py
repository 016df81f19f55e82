"""What an ADQL expression becomes: SQL with its type and, for a column as it is, its description."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from service.catalog.columns import Column
from service.catalog.schema import CleanText, UTCDateTime
from service.vo.errors import VoError

NUMBERS = ("int", "short", "float")
SQL_TYPES: dict[str, Any] = {
    "int": sa.BigInteger(),
    "short": sa.BigInteger(),
    "float": sa.Double(),
    "text": CleanText(),
    "time": UTCDateTime(),
}
WORDS = {"int": "a number", "short": "a number", "float": "a number", "text": "text", "time": "a time"}
BIGGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Source:
    """A table or a subquery in FROM."""

    alias: str
    """As columns are qualified with it, in lower case"""
    table: str
    """Full name in lower case, empty for a subquery"""
    columns: dict[str, Term]
    """By their names"""
    sql: Any
    position: dict[str, sa.ColumnElement[Any]] = field(default_factory=dict)
    """x, y, z and object_key, of tables with positions"""


@dataclass(frozen=True, slots=True)
class Term:
    """A value in SQL."""

    sql: sa.ColumnElement[Any]
    type: str
    """``int``, ``short``, ``float``, ``text``, ``time``, or ``null`` for NULL itself"""
    column: Column | None = None
    """Of a column as it is"""
    constant: float | int | str | None = None
    """Of a literal"""
    source: Source | None = None


def number(value: float | int) -> Term:
    """A literal number, bound as a parameter."""
    if isinstance(value, int) and abs(value) <= BIGGEST:
        return Term(sa.literal(value, sa.BigInteger()), "int", constant=value)
    return Term(sa.literal(float(value), sa.Double()), "float", constant=float(value))


def text(value: str) -> Term:
    """A literal text, bound as a parameter."""
    return Term(sa.literal(value, CleanText()), "text", constant=value)


def as_float(term: Term) -> sa.ColumnElement[float]:
    """The number as a double."""
    if term.constant is not None:
        return sa.literal(float(term.constant), sa.Double())
    return sa.cast(term.sql, sa.Double) if term.type in ("int", "short") else term.sql


def need(term: Term, *types: str, where: str) -> Term:
    """The term, when it is of one of these types or NULL. Raises VoError."""
    if term.type not in (*types, "null"):
        raise VoError(f"{where} takes {WORDS[types[0]]}, not {WORDS[term.type]}")
    if term.type == "null":
        return Term(sa.cast(sa.null(), SQL_TYPES[types[0]]), types[0])
    return term


def alike(terms: list[Term], where: str) -> list[Term]:
    """The terms, when one can be compared with the other; texts beside a time are read as times.

    Raises VoError.
    """
    if any(term.type == "time" for term in terms):
        terms = [_time(term) if term.type == "text" else term for term in terms]
    kinds = {WORDS[term.type] for term in terms if term.type != "null"}
    if len(kinds) > 1:
        raise VoError(f"{where} takes things of one kind, not {' and '.join(sorted(kinds))}")
    return terms


def _time(term: Term) -> Term:
    if not isinstance(term.constant, str):
        raise VoError("a time can be compared with another or with a literal such as '2026-03-01T12:00:00'")
    try:
        when = datetime.fromisoformat(term.constant.strip())
    except ValueError:
        raise VoError(
            f"{term.constant[:40]!r} is not a time: write it as '2026-03-01T12:00:00', in UTC"
        ) from None
    try:
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except OverflowError:
        raise VoError(f"{term.constant[:40]!r} is too far from now") from None
    return Term(sa.literal(when, UTCDateTime()), "time")
