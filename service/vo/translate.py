"""ADQL → a query that SQLAlchemy makes anew from what is known: public tables, their columns, listed functions.

No text of the query reaches the database. Names of users become c0, c1, … and literals become parameters, so that
whatever is not in `tables.py`, `functions.py` or a method of `expressions.Scope` cannot be said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlglot import exp

from service.catalog.columns import Column
from service.vo.adql import parse
from service.vo.errors import VoError
from service.vo.expressions import Scope, dotted, only, same, written
from service.vo.tables import KEY, POSITION, Table
from service.vo.terms import SQL_TYPES, Source, Term, alike

MOST_TABLES = 12
"""In one query: joins are what makes queries slow."""


@dataclass(frozen=True, slots=True)
class Output:
    """A column of a result."""

    name: str
    term: Term

    def column(self) -> Column:
        """Its description: that of the table's column where it is one."""
        known = self.term.column
        if known is not None:
            return replace(known, name=self.name)
        return Column(self.name, self.term.type if self.term.type != "null" else "text", "")


@dataclass(frozen=True, slots=True)
class Query:
    sql: sa.Select[Any]
    """With columns c0, c1, … as ``outputs`` has them"""
    outputs: list[Output]
    top: int | None
    one_row: bool
    """Whether it is certain to give exactly one"""


def translate(text: str, tables: dict[str, Table], connection: sa.Connection) -> Query:
    """The query that this ADQL asks for. Raises VoError, with what is not understood or not there."""
    tree = parse(text)
    try:
        return _Translator(tree, tables, connection).select(tree, None)
    except RecursionError:
        raise VoError("the query is nested too deeply") from None


class _Translator:
    def __init__(self, tree: exp.Select, tables: dict[str, Table], connection: sa.Connection) -> None:
        self.tables, self.connection = tables, connection
        self.n_tables = 0
        # Some columns cost more than others, so tables are told which are named at all.
        names = {node.name.lower() for node in tree.find_all(exp.Identifier)}
        stars = any(not isinstance(node.parent, exp.Anonymous) for node in tree.find_all(exp.Star))
        joined = any(join.args.get("method") for join in tree.find_all(exp.Join))
        self.wanted = None if stars or joined else names

    def select(self, tree: exp.Select, parent: Scope | None) -> Query:
        only(
            tree, "expressions", "distinct", "limit", "from_", "joins", "where", "group", "having", "order", "offset",
        )  # fmt: skip
        scope = Scope(self.select, parent)
        source = self._from(tree, scope)
        where = tree.args.get("where")
        conditions = []
        if where is not None:
            scope.may_aggregate = False
            conditions.append(scope.condition(where.this))
            scope.may_aggregate = True
        groups = self._groups(tree, scope)
        outputs = _outputs(tree, scope)
        having = tree.args.get("having")
        kept = scope.condition(having.this) if having is not None else None
        labels = [output.term.sql.label(f"c{i}") for i, output in enumerate(outputs)]
        order = self._order(tree, scope, outputs, labels)
        aggregated = bool(groups or scope.aggregates or having is not None)
        if aggregated:
            _check_groups(tree, scope)
        sql = sa.select(*labels).select_from(source).where(*conditions)
        if groups:
            sql = sql.group_by(*groups)
        if kept is not None:
            sql = sql.having(kept)
        if tree.args.get("distinct") is not None:
            only(tree.args["distinct"])
            sql = sql.distinct()
        top, offset = _count(tree, "limit", "TOP"), _count(tree, "offset", "OFFSET")
        if order:
            sql = sql.order_by(*order)
        if top is not None:
            sql = sql.limit(top)
        if offset is not None:
            sql = sql.offset(offset)
        above = parent
        while above is not None:
            sql = sql.correlate(*(outer.sql for outer in above.sources.values()))
            above = above.parent
        one_row = bool(scope.aggregates) and not groups and having is None and top != 0 and not offset
        return Query(sql, outputs, top, one_row)

    # FROM

    def _from(self, tree: exp.Select, scope: Scope) -> Any:
        start = tree.args.get("from_")
        if start is None:
            raise VoError("a query needs FROM with a table: TAP_SCHEMA.tables lists them")
        only(start, "this")
        source = self._source(start.this, scope)
        joined = source.sql
        for join in tree.args.get("joins") or []:
            joined = self._join(joined, join, scope)
        return joined

    def _source(self, node: exp.Expr, scope: Scope) -> Source:
        self.n_tables += 1
        if self.n_tables > MOST_TABLES:
            raise VoError(f"a query names at most {MOST_TABLES} tables")
        if isinstance(node, exp.Table):
            source = self._table(node)
        elif isinstance(node, exp.Subquery) and isinstance(node.this, exp.Select):
            source = self._subquery(node)
        else:
            raise VoError(f"FROM takes tables and SELECTs in brackets, not {written(node)}")
        if source.alias in scope.sources:
            raise VoError(f"two tables are called {source.alias[:60]}: give one another name with AS")
        scope.sources[source.alias] = source
        return source

    def _table(self, node: exp.Table) -> Source:
        only(node, "this", "db", "catalog", "alias", "joins")
        if node.args.get("joins"):
            raise VoError("joins in brackets are not supported")
        if not isinstance(node.this, exp.Identifier):
            raise VoError(f"there is no table {written(node)}")
        name = dotted(node).lower()
        table = self.tables.get(name)
        if table is None:
            known = ", ".join(one.name for one in self.tables.values())
            raise VoError(f"there is no table {dotted(node)}; there are {known}")
        sql = table.select(self.connection, self.wanted).subquery()
        hidden = (*POSITION, KEY) if table.positions else ()
        position: dict[str, sa.ColumnElement[Any]] = {key: sql.c[key] for key in hidden}
        columns: dict[str, Term] = {}
        source = Source(_alias(node) or name.rsplit(".", 1)[-1], name, columns, sql, position)
        for column in table.columns:
            value = sa.type_coerce(sql.c[column.name], SQL_TYPES[column.type])
            columns[column.name] = Term(value, column.type, column, source=source)
        return source

    def _subquery(self, node: exp.Subquery) -> Source:
        only(node, "this", "alias")
        alias = _alias(node)
        if not alias:
            raise VoError("a SELECT in FROM needs a name: (SELECT …) AS t")
        query = self.select(node.this, None)
        sql = query.sql.subquery()
        columns: dict[str, Term] = {}
        source = Source(alias, "", columns, sql)
        for i, output in enumerate(query.outputs):
            if output.name in columns:
                raise VoError(f"two columns of {alias[:60]} are called {output.name[:60]}")
            kind = output.term.type if output.term.type != "null" else "text"
            value = sa.type_coerce(sql.c[f"c{i}"], SQL_TYPES[kind])
            columns[output.name] = Term(value, kind, output.term.column, source=source)
        return source

    def _join(self, left: Any, node: exp.Join, scope: Scope) -> Any:
        only(node, "this", "side", "kind", "on", "using", "method")
        before = list(scope.sources.values())
        right = self._source(node.this, scope)
        side, kind, method = (str(node.args.get(name) or "").upper() for name in ("side", "kind", "method"))
        if kind not in ("", "INNER", "OUTER", "CROSS") or method not in ("", "NATURAL"):
            raise VoError(f"{method or kind} joins are not supported")
        shared = [identifier.name for identifier in node.args.get("using") or []]
        if method:
            shared = [name for name in right.columns if any(name in source.columns for source in before)]
        if node.args.get("on") is not None:
            scope.may_aggregate = False
            condition = scope.condition(node.args["on"])
            scope.may_aggregate = True
        elif shared:
            condition = sa.and_(*(_merge(scope, before, right, name, side) for name in shared))
        elif side or kind in ("INNER", "OUTER"):
            raise VoError("a JOIN needs ON or USING")
        else:
            condition = sa.true()
        if side == "RIGHT":
            return right.sql.outerjoin(left, condition)
        if side == "FULL":
            return left.outerjoin(right.sql, condition, full=True)
        return left.outerjoin(right.sql, condition) if side == "LEFT" else left.join(right.sql, condition)

    # The other clauses

    def _groups(self, tree: exp.Select, scope: Scope) -> list[sa.ColumnElement[Any]]:
        group = tree.args.get("group")
        if group is None:
            return []
        only(group, "expressions")
        scope.may_aggregate = False
        found = []
        for node in group.expressions:
            term = scope.value(node)
            if term.constant is not None or term.type == "null":
                raise VoError("GROUP BY takes columns and expressions of them")
            found.append(term.sql)
        scope.may_aggregate = True
        return found

    def _order(
        self, tree: exp.Select, scope: Scope, outputs: list[Output], labels: list[sa.Label[Any]]
    ) -> list[Any]:
        order = tree.args.get("order")
        if order is None:
            return []
        only(order, "expressions")
        found = []
        for node in order.expressions:
            if not isinstance(node, exp.Ordered):
                raise VoError(f"ORDER BY takes columns, not {written(node)}")
            only(node, "this", "desc", "nulls_first")
            i = _position(node.this, outputs)
            if i is None:
                term = scope.value(node.this)
                if term.constant is not None or term.type == "null":
                    raise VoError("ORDER BY takes columns, their numbers, and expressions of them")
                if tree.args.get("distinct") is not None and all(term != o.term for o in outputs):
                    raise VoError("with DISTINCT, ORDER BY takes selected columns only")
                key, sorted_by = term.sql, term
            else:
                key, sorted_by = labels[i], outputs[i].term
            directed = key.desc() if node.args.get("desc") else key.asc()
            # An index can serve only the database's own place of NULLs, and there are none in these.
            never_null = sorted_by.column is not None and sorted_by.column.name in NEVER_NULL
            found.append(directed if never_null else directed.nulls_last())
        return found


NEVER_NULL = {
    KEY,
    "observation_key",
    "object_id",
    "score",
    "p_value",
    "scored_at",
    "model",
    "cluster",
    "path",
    "night",
}


def _outputs(tree: exp.Select, scope: Scope) -> list[Output]:
    outputs: list[Output] = []
    for node in tree.expressions:
        if isinstance(node, exp.Star):
            only(node)
            outputs += _all_columns(scope)
        elif isinstance(node, exp.Column) and isinstance(node.this, exp.Star):
            outputs += _columns_of(scope, node)
        elif isinstance(node, exp.Alias):
            only(node, "this", "alias")
            outputs.append(Output(node.args["alias"].name[:200], scope.value(node.this)))
        else:
            term = scope.value(node)
            outputs.append(Output(_name(node, term, outputs), term))
    if not outputs:
        raise VoError("a query selects one column or more")
    return outputs


def _name(node: exp.Expr, term: Term, outputs: list[Output]) -> str:
    if isinstance(node, exp.Column):
        return (
            node.name
            if term.column is None or term.column.name.lower() != node.name.lower()
            else term.column.name
        )
    name = str(node.this).lower() if isinstance(node, exp.Anonymous) else "column"
    taken = {output.name for output in outputs}
    return name if name not in taken and name != "column" else f"{name}_{len(outputs) + 1}"


def _all_columns(scope: Scope) -> list[Output]:
    found = [Output(name, term) for name, term in scope.merged.items()]
    for source in scope.sources.values():
        found += [Output(name, term) for name, term in source.columns.items() if name not in scope.merged]
    return found


def _columns_of(scope: Scope, node: exp.Column) -> list[Output]:
    table, schema = node.args["table"].name.lower(), node.args.get("db")
    for source in scope.sources.values():
        if source.table == f"{schema.name}.{table}".lower() if schema else source.alias == table:
            return [Output(name, term) for name, term in source.columns.items()]
    raise VoError(f"there is no table {table[:60]} in FROM")


def _merge(scope: Scope, before: list[Source], right: Source, name: str, side: str) -> sa.ColumnElement[bool]:
    """The condition of one column of USING, which is one column from then on."""
    found = [source.columns[name] for source in before if name in source.columns]
    if name in scope.merged:
        found = [scope.merged[name]]
    if len(found) != 1 or name not in right.columns:
        raise VoError(f"USING takes columns that both tables have, and {name[:60]} is not one")
    a, b = alike([found[0], right.columns[name]], "USING")
    if side == "FULL":
        scope.merged[name] = Term(sa.func.coalesce(a.sql, b.sql), a.type, a.column)
    else:
        scope.merged[name] = b if side == "RIGHT" else found[0]
    return a.sql == b.sql


def _check_groups(tree: exp.Select, scope: Scope) -> None:
    """Refuses columns that are neither grouped by nor within an aggregate, as SQLite does not by itself."""
    group = tree.args.get("group")
    grouped = list(group.expressions) if group is not None else []
    columns = [scope.value(node) for node in grouped if isinstance(node, exp.Column)]
    having, order = tree.args.get("having"), tree.args.get("order")
    level: list[exp.Expr] = [*tree.expressions]
    level += [having.this] if having is not None else []
    names = {node.args["alias"].name.lower() for node in tree.expressions if isinstance(node, exp.Alias)}
    for ordered in order.expressions if order is not None else []:
        if not (isinstance(ordered.this, exp.Column) and ordered.this.name.lower() in names):
            level.append(ordered.this)
    while level:
        node = level.pop()
        if node in grouped or isinstance(node, exp.Select | exp.Subquery | exp.Exists):
            continue
        if isinstance(node, exp.Anonymous) and str(node.this).upper() in (
            "COUNT",
            "SUM",
            "AVG",
            "MIN",
            "MAX",
        ):
            continue
        if isinstance(node, exp.Star) or (isinstance(node, exp.Column) and isinstance(node.this, exp.Star)):
            raise VoError("* cannot be selected beside aggregates or with GROUP BY")
        if isinstance(node, exp.Column):
            if not any(scope.value(node) is column for column in columns):
                raise VoError(f"{node.name[:60]} has to stand in GROUP BY or within an aggregate such as MAX")
            continue
        level += list(node.iter_expressions())


def _position(node: exp.Expr, outputs: list[Output]) -> int | None:
    """Which selected column ORDER BY means: by its number or by its name."""
    if isinstance(node, exp.Literal) and not node.is_string:
        if not node.this.isdigit() or not 1 <= int(node.this[:9]) <= len(outputs):
            raise VoError(f"ORDER BY {node.this[:20]}: there are {len(outputs)} columns")
        return int(node.this) - 1
    if (
        isinstance(node, exp.Column)
        and node.args.get("table") is None
        and isinstance(node.this, exp.Identifier)
    ):
        found = [i for i, output in enumerate(outputs) if same(output.name, node.this)]
        if found and all(outputs[i].term == outputs[found[0]].term for i in found):
            return found[0]
    return None


def _count(tree: exp.Select, name: str, word: str) -> int | None:
    node = tree.args.get(name)
    if node is None:
        return None
    only(node, "expression")
    value = node.expression
    if (
        not isinstance(value, exp.Literal)
        or value.is_string
        or not value.this.isdigit()
        or len(value.this) > 15
    ):
        raise VoError(f"{word} is followed by a number of rows")
    return int(value.this)


def _alias(node: exp.Expr) -> str:
    alias = node.args.get("alias")
    if alias is None:
        return ""
    only(alias, "this")
    return str(alias.name).lower()
