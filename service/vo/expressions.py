"""ADQL expressions → SQLAlchemy: each kind of node of the tree by a method of its own, any other refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlglot import exp

from service.vo import functions, geometry
from service.vo.errors import VoError
from service.vo.geometry import Circle, Point
from service.vo.terms import BIGGEST, NUMBERS, SQL_TYPES, Source, Term, alike, as_float, need, number, text

COMPARED: dict[type[exp.Expr], Callable[[Any, Any], sa.ColumnElement[bool]]] = {
    exp.EQ: lambda a, b: a == b,
    exp.NEQ: lambda a, b: a != b,
    exp.LT: lambda a, b: a < b,
    exp.LTE: lambda a, b: a <= b,
    exp.GT: lambda a, b: a > b,
    exp.GTE: lambda a, b: a >= b,
}
SHAPES = ("POINT", "CIRCLE")
ASKED = ("CONTAINS", "INTERSECTS")
Selecting = Callable[[exp.Select, "Scope"], Any]


def only(node: exp.Expr, *allowed: str) -> None:
    """Refuses a node that carries more than what is looked at."""
    for name, value in node.args.items():
        if value and name not in allowed:
            raise VoError(f"{name.strip('_').upper()} is not supported here")


@dataclass
class Scope:
    """The names that an expression may use, those of the enclosing query after its own."""

    select: Selecting
    """Translates a subquery"""
    parent: Scope | None = None
    sources: dict[str, Source] = field(default_factory=dict)
    merged: dict[str, Term] = field(default_factory=dict)
    """Columns that a JOIN … USING made one"""
    seen: dict[exp.Expr, Term] = field(default_factory=dict)
    """What was translated already. An expression in SELECT and again in GROUP BY has to be the same to a database,
    parameters included."""
    aggregating: bool = False
    """Whether this is inside COUNT, SUM, …"""
    may_aggregate: bool = True
    """Whether this clause knows aggregates"""
    aggregates: int = 0

    def column(self, node: exp.Column) -> Term:
        """Raises VoError for a name that is unknown or could mean several columns."""
        only(node, "this", "table", "db")
        if not isinstance(node.this, exp.Identifier):
            raise VoError("a * stands alone, or after a table's name, or in COUNT")
        if node.args.get("table") is None and (made_one := _named(self.merged, node.this)) is not None:
            return made_one
        found = [
            term
            for source in self.sources.values()
            if _is(source, node)
            for name, term in source.columns.items()
            if same(name, node.this)
        ]
        if len(found) > 1:
            raise VoError(f"{node.this.name[:60]} could be a column of several tables: write TABLE.COLUMN")
        if found:
            return found[0]
        if self.parent is not None:
            return self.parent.column(node)
        raise VoError(f"there is no column {dotted(node)}; {self._known()}")

    def _known(self) -> str:
        names = [name for source in self.sources.values() for name in source.columns]
        return f"there are {', '.join(names[:60])}" if names else "no table is named"

    # Conditions

    def condition(self, node: exp.Expr) -> sa.ColumnElement[bool]:
        """Raises VoError for what is no condition."""
        if isinstance(node, exp.Paren):
            only(node, "this")
            return self.condition(node.this)
        if isinstance(node, exp.And | exp.Or):
            parts = [self.condition(part) for part in node.flatten(unnest=False)]
            return sa.and_(*parts) if isinstance(node, exp.And) else sa.or_(*parts)
        if isinstance(node, exp.Not):
            only(node, "this")
            return sa.not_(self.condition(node.this))
        if type(node) in COMPARED:
            return self._comparison(node)
        if isinstance(node, exp.Between):
            only(node, "this", "low", "high")
            terms = [self.value(part) for part in (node.this, node.args["low"], node.args["high"])]
            middle, low, high = alike(terms, "BETWEEN")
            return sa.between(middle.sql, low.sql, high.sql)
        if isinstance(node, exp.Like | exp.ILike):
            only(node, "this", "expression", "negate")
            word = "LIKE" if isinstance(node, exp.Like) else "ILIKE"
            x, pattern = (need(self.value(part), "text", where=word) for part in (node.this, node.expression))
            matching = x.sql.like if word == "LIKE" else x.sql.ilike
            found: sa.ColumnElement[bool] = matching(pattern.sql, escape="\\")
            return sa.not_(found) if node.args.get("negate") else found
        if isinstance(node, exp.Is):
            only(node, "this", "expression")
            if not isinstance(node.expression, exp.Null):
                raise VoError("IS is followed by NULL or NOT NULL")
            return self.value(node.this).sql.is_(None)
        if isinstance(node, exp.In):
            return self._one_of(node)
        if isinstance(node, exp.Exists):
            only(node, "this")
            if not isinstance(node.this, exp.Select):
                raise VoError("EXISTS is followed by a SELECT in brackets")
            return sa.exists(self.select(node.this, self).sql)
        raise VoError(f"this is no condition: {written(node)}")

    def _comparison(self, node: exp.Expr) -> sa.ColumnElement[bool]:
        only(node, "this", "expression")
        a, b = self.value(node.this), self.value(node.expression)
        # CONTAINS(…) = 1 as the condition itself, which an index can serve.
        if isinstance(node, exp.EQ):
            for asked, answer in ((node.this, b), (node.expression, a)):
                if _called(asked) in ASKED and answer.constant == 1:
                    return self._asked(asked)[0]
        first, second = alike([a, b], "a comparison")
        return COMPARED[type(node)](first.sql, second.sql)

    def _one_of(self, node: exp.In) -> sa.ColumnElement[bool]:
        only(node, "this", "expressions", "query")
        x = self.value(node.this)
        query = node.args.get("query")
        if query is None:
            x, *terms = alike([x, *(self.value(item) for item in node.expressions)], "IN")
            values = [term.constant for term in terms]
            if None in values:
                return x.sql.in_([term.sql for term in terms])
            # One parameter for all of them: lists of thousands of objects are usual.
            kind = "float" if any(isinstance(value, float) for value in values) else terms[0].type
            return x.sql.in_(sa.bindparam(None, values, SQL_TYPES[kind], expanding=True))
        inner = query.this if isinstance(query, exp.Subquery) else query
        if not isinstance(inner, exp.Select):
            raise VoError("IN is followed by values, or by a SELECT, in brackets")
        found = self.select(inner, self)
        if len(found.outputs) != 1:
            raise VoError("a SELECT after IN has one column")
        if any(term.type == "time" for term in (x, found.outputs[0].term)) and x.type != "time":
            raise VoError("a time can be looked for among times only")
        alike([x, found.outputs[0].term], "IN")
        return x.sql.in_(found.sql)

    # Values

    def value(self, node: exp.Expr) -> Term:
        """Raises VoError for what is no value, and for a column that is neither grouped by nor aggregated."""
        if node not in self.seen or self.aggregating:
            term = self._value(node)
            if self.aggregating:
                return term
            self.seen[node] = term
        return self.seen[node]

    def _value(self, node: exp.Expr) -> Term:
        if isinstance(node, exp.Paren):
            only(node, "this")
            return self.value(node.this)
        if isinstance(node, exp.Column):
            return self.column(node)
        if isinstance(node, exp.Literal):
            return text(node.this) if node.is_string else _number(node.this)
        if isinstance(node, exp.Null):
            return Term(sa.null(), "null")
        if isinstance(node, exp.Neg):
            only(node, "this")
            x = need(self.value(node.this), *NUMBERS, where="a minus")
            if x.constant is not None:
                return number(-x.constant)  # type: ignore[operator]  # a number, as `need` saw to
            return Term(-x.sql, x.type)
        if isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Div):
            return self._arithmetic(node)
        if isinstance(node, exp.DPipe):
            only(node, "this", "expression", "safe")
            x, y = (need(self.value(part), "text", where="||") for part in (node.this, node.expression))
            return Term(x.sql + y.sql, "text")
        if isinstance(node, exp.Anonymous):
            return self._call(node)
        if isinstance(node, exp.Subquery):
            return self._scalar(node)
        raise VoError(f"this is no value: {written(node)}")

    def _arithmetic(self, node: exp.Binary) -> Term:
        only(node, "this", "expression", "typed", "safe")
        x, y = (need(self.value(part), *NUMBERS, where="arithmetic") for part in (node.this, node.expression))
        if isinstance(node, exp.Div):
            return functions.divided(x, y)
        kind = "float" if "float" in (x.type, y.type) else "int"
        a, b = (as_float(x), as_float(y)) if kind == "float" else (x.sql, y.sql)
        sql = a + b if isinstance(node, exp.Add) else a - b if isinstance(node, exp.Sub) else a * b
        return Term(sql, kind)

    def _call(self, node: exp.Anonymous) -> Term:
        name = _called(node)
        arguments = node.expressions
        if name in functions.AGGREGATES:
            return self._aggregate(name, arguments)
        if name in SHAPES:
            raise VoError(f"{name} stands within CONTAINS, INTERSECTS or DISTANCE only; select ra and dec")
        if name in ASKED:
            yes, unknown = self._asked(node)
            return Term(sa.case((yes, 1), (unknown, sa.null()), else_=0), "int")
        if name == "DISTANCE":
            if len(arguments) == 4:
                a, b, c, d = (self.value(part) for part in arguments)
                return geometry.distance(geometry.make_point([a, b]), geometry.make_point([c, d]))
            return geometry.distance(*self._points(name, arguments, 2))
        if name in ("COORD1", "COORD2"):
            (point,) = self._points(name, arguments, 1)
            return point.ra if name == "COORD1" else point.dec
        return functions.call(name, [self.value(part) for part in arguments])

    def _aggregate(self, name: str, arguments: list[exp.Expr]) -> Term:
        if not self.may_aggregate:
            raise VoError(f"{name} stands in SELECT, HAVING or ORDER BY only")
        if self.aggregating:
            raise VoError(f"{name} within another aggregate is not possible")
        self.aggregates += 1
        if name == "COUNT" and len(arguments) == 1 and isinstance(arguments[0], exp.Star):
            return functions.aggregate(name, None, False)
        distinct = len(arguments) == 1 and isinstance(arguments[0], exp.Distinct)
        if distinct:
            only(arguments[0], "expressions")
            arguments = arguments[0].expressions
        if len(arguments) != 1:
            raise VoError(f"{name} takes one argument, not {len(arguments)}")
        self.aggregating = True
        argument = self.value(arguments[0])
        self.aggregating = False
        return functions.aggregate(name, argument, distinct)

    def _scalar(self, node: exp.Subquery) -> Term:
        only(node, "this")
        if not isinstance(node.this, exp.Select):
            raise VoError("brackets hold an expression or a SELECT")
        found = self.select(node.this, self)
        if len(found.outputs) != 1 or not found.one_row:
            raise VoError("a SELECT used as a value gives one aggregate, such as (SELECT AVG(score) FROM …)")
        term = found.outputs[0].term
        return Term(sa.type_coerce(found.sql.scalar_subquery(), term.sql.type), term.type)

    # Geometry

    def _shape(self, node: exp.Expr) -> Point | Circle:
        name = _called(node)
        if name not in SHAPES:
            raise VoError(f"a POINT or a CIRCLE is wanted instead of {written(node)}")
        if name == "POINT":
            return self._point(node)
        only(node, "this", "expressions")
        arguments: list[Term | Point] = [
            self._point(part) if _called(part) == "POINT" else self.value(part) for part in node.expressions
        ]
        return geometry.make_circle(arguments)

    def _point(self, node: exp.Expr) -> Point:
        only(node, "this", "expressions")
        return geometry.make_point([self.value(part) for part in node.expressions])

    def _points(self, name: str, arguments: list[exp.Expr], n: int) -> list[Point]:
        shapes = [self._shape(argument) for argument in arguments]
        points = [shape for shape in shapes if isinstance(shape, Point)]
        if len(points) != n or len(shapes) != n:
            raise VoError(f"{name} takes {n} POINT{'' if n == 1 else 's'}")
        return points

    def _asked(self, node: exp.Expr) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
        """CONTAINS or INTERSECTS: whether it is so, and whether nobody knows for want of a position."""
        name = _called(node)
        if len(node.expressions) != 2:
            raise VoError(f"{name} takes two shapes")
        a, b = (self._shape(part) for part in node.expressions)
        yes = geometry.contains(a, b) if name == "CONTAINS" else geometry.intersects(a, b)
        points = [shape.centre if isinstance(shape, Circle) else shape for shape in (a, b)]
        return yes, sa.or_(*(term.sql.is_(None) for point in points for term in (point.ra, point.dec)))


def same(name: str, identifier: exp.Identifier) -> bool:
    """Whether an identifier means this name: quoted to the letter, otherwise whatever the case."""
    return (
        name == identifier.name if identifier.args.get("quoted") else name.lower() == identifier.name.lower()
    )


def dotted(node: exp.Column | exp.Table) -> str:
    """The name as it was written, for a message."""
    return ".".join(part.name for part in node.parts)[:120]


def written(node: exp.Expr) -> str:
    """A piece of a query for a message."""
    try:
        return repr(node.sql()[:60])
    except (ValueError, RecursionError):
        return type(node).__name__


def _is(source: Source, node: exp.Column) -> bool:
    """Whether the column is of this source as far as its qualifier tells."""
    table, schema = node.args.get("table"), node.args.get("db")
    if table is None:
        return True
    if schema is None:
        return same(source.alias, table) or source.alias == table.name.lower()
    return source.table == f"{schema.name}.{table.name}".lower()


def _named(terms: dict[str, Term], identifier: exp.Identifier) -> Term | None:
    return next((term for name, term in terms.items() if same(name, identifier)), None)


def _called(node: exp.Expr) -> str:
    """The name of a function call in upper case; empty for anything else."""
    return str(node.this).upper() if isinstance(node, exp.Anonymous) and isinstance(node.this, str) else ""


def _number(written: str) -> Term:
    try:
        whole = written.isascii() and written.isdigit()
        value = int(written) if whole and len(written) < 20 else float(written)
    except ValueError:
        raise VoError(f"{written[:40]!r} is not a number") from None
    if not math.isfinite(value):
        raise VoError(f"the number {written[:40]} is too large")
    return number(value if abs(value) <= BIGGEST else float(value))
