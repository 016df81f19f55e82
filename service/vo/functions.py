"""The functions that a query may call; there are no others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from service.vo.errors import VoError
from service.vo.terms import NUMBERS, SQL_TYPES, Term, alike, as_float, need, number

MOST_DIGITS = 15

ONE_NUMBER = {
    "CEILING": "ceil", "DEGREES": "degrees", "EXP": "exp", "FLOOR": "floor", "LOG": "ln", "LOG10": "log10",
    "RADIANS": "radians", "SQRT": "sqrt", "ACOS": "acos", "ASIN": "asin", "ATAN": "atan", "COS": "cos", "SIN": "sin",
    "TAN": "tan", "COT": "cot",
}  # fmt: skip
"""ADQL's name → that of the function in both databases, from a number to a number."""
TWO_NUMBERS = {"ATAN2": "atan2", "POWER": "power"}
AGGREGATES = ("COUNT", "SUM", "AVG", "MIN", "MAX")


def call(name: str, arguments: list[Term]) -> Term:
    """The call of a function with this name, in upper case. Raises VoError for one that is not known."""
    if name in ONE_NUMBER:
        _count(name, arguments, 1)
        x = as_float(need(arguments[0], *NUMBERS, where=name))
        return _float(getattr(sa.func, ONE_NUMBER[name])(x, type_=sa.Double))
    if name in TWO_NUMBERS:
        _count(name, arguments, 2)
        x, y = (as_float(need(term, *NUMBERS, where=name)) for term in arguments)
        return _float(getattr(sa.func, TWO_NUMBERS[name])(x, y, type_=sa.Double))
    if name not in OTHERS:
        raise VoError(f"there is no function {name[:60]}; there are {', '.join(sorted(KNOWN))}")
    return OTHERS[name](name, arguments)


def divided(x: Term, y: Term) -> Term:
    """x / y, of whole numbers without the rest; NULL for a division by zero."""
    if x.type == "float" or y.type == "float":
        return _float(
            as_float(x) / sa.func.nullif(as_float(y), sa.literal(0.0, sa.Double()), type_=sa.Double)
        )
    return Term(x.sql // sa.func.nullif(y.sql, sa.literal(0, sa.BigInteger()), type_=sa.BigInteger), "int")


def _float(sql: sa.ColumnElement[Any]) -> Term:
    return Term(sql, "float")


def _count(name: str, arguments: list[Term], *allowed: int) -> None:
    if len(arguments) not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise VoError(f"{name} takes {wanted} argument{'' if allowed == (1,) else 's'}, not {len(arguments)}")


def _abs(name: str, arguments: list[Term]) -> Term:
    _count(name, arguments, 1)
    x = need(arguments[0], *NUMBERS, where=name)
    return Term(sa.func.abs(x.sql, type_=x.sql.type), "int" if x.type == "short" else x.type)


def _mod(name: str, arguments: list[Term]) -> Term:
    _count(name, arguments, 2)
    x, y = (need(term, *NUMBERS, where=name) for term in arguments)
    quotient = divided(x, y)
    if quotient.type == "int":
        return Term(x.sql - y.sql * quotient.sql, "int")
    return _float(as_float(x) - as_float(y) * _cut(quotient.sql))


def _cut(x: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    """Without its fraction."""
    down = sa.func.floor(x, type_=sa.Double)
    return sa.case((x < 0, sa.func.ceil(x, type_=sa.Double)), else_=down)


def _rounded(name: str, arguments: list[Term]) -> Term:
    """ROUND, halves upwards, and TRUNCATE; both databases have their own ideas of either."""
    _count(name, arguments, 1, 2)
    x = as_float(need(arguments[0], *NUMBERS, where=name))
    digits = arguments[1].constant if len(arguments) == 2 else 0
    if not isinstance(digits, int) or abs(digits) > MOST_DIGITS:
        raise VoError(
            f"{name} takes a number of digits written out, between -{MOST_DIGITS} and {MOST_DIGITS}"
        )
    scale: sa.ColumnElement[float] = sa.literal(10.0**digits, sa.Double())
    moved = sa.func.floor(x * scale + 0.5, type_=sa.Double) if name == "ROUND" else _cut(x * scale)
    return _float(moved / scale)


def _pi(name: str, arguments: list[Term]) -> Term:
    _count(name, arguments, 0)
    return number(math.pi)


def _random(name: str, arguments: list[Term]) -> Term:
    _count(name, arguments, 0, 1)
    return _float(Random())


class Random(sa.sql.functions.GenericFunction[float]):
    """A number in [0, 1), which each database calls otherwise."""

    type = sa.Double()
    inherit_cache = True
    name = "adql_rand"


@compiles(Random, "postgresql")
def _random_in_postgresql(element: Random, compiler: Any, **kw: Any) -> str:
    return "random()"


def _letters(name: str, arguments: list[Term]) -> Term:
    _count(name, arguments, 1)
    x = need(arguments[0], "text", where=name)
    return Term(getattr(sa.func, name.lower())(x.sql, type_=sa.Text), "text")


def _coalesce(name: str, arguments: list[Term]) -> Term:
    if len(arguments) < 2:
        raise VoError("COALESCE takes two arguments or more")
    terms = alike(arguments, name)
    types = {term.type for term in terms if term.type != "null"}
    if not types:
        raise VoError("COALESCE takes something other than NULL")
    if len(types) > 1:
        return _float(sa.func.coalesce(*(as_float(need(term, *NUMBERS, where=name)) for term in terms)))
    (kind,) = types
    return Term(sa.func.coalesce(*(need(term, kind, where=name).sql for term in terms)), kind)


OTHERS: dict[str, Callable[[str, list[Term]], Term]] = {
    "ABS": _abs,
    "MOD": _mod,
    "ROUND": _rounded,
    "TRUNCATE": _rounded,
    "PI": _pi,
    "RAND": _random,
    "LOWER": _letters,
    "UPPER": _letters,
    "COALESCE": _coalesce,
}
KNOWN = (
    *ONE_NUMBER, *TWO_NUMBERS, *OTHERS, *AGGREGATES,
    "POINT", "CIRCLE", "CONTAINS", "INTERSECTS", "DISTANCE", "COORD1", "COORD2",
)  # fmt: skip


def aggregate(name: str, argument: Term | None, distinct: bool) -> Term:
    """COUNT, SUM, AVG, MIN or MAX; COUNT of no argument counts rows."""
    if argument is None:
        return Term(sa.func.count(), "int")
    sql = argument.sql
    if name == "COUNT":
        return Term(sa.func.count(sql.distinct() if distinct else sql), "int")
    if name in ("MIN", "MAX"):
        return Term(getattr(sa.func, name.lower())(sql, type_=sql.type), argument.type, argument.column)
    x = need(argument, *NUMBERS, where=name)
    kind = "float" if name == "AVG" or x.type == "float" else "int"
    sql = as_float(x) if kind == "float" else x.sql
    sql = sql.distinct() if distinct else sql
    # PostgreSQL sums 64-bit integers up to a decimal.
    return Term(sa.cast(getattr(sa.func, name.lower())(sql), SQL_TYPES[kind]), kind)
