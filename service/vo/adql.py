"""ADQL text → syntax tree, with sqlglot's parser cut down to ADQL's own words.

Nothing of the text goes on from here but the tree, and `translate.py` takes from it only what it knows. The grammar
is that of ADQL 2.1 (https://www.ivoa.net/documents/ADQL/20231215/) as far as the service supports it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import sqlglot
from sqlglot import Dialect, Token, TokenType, exp
from sqlglot.errors import ErrorLevel, SqlglotError

from service.vo.errors import VoError

LONGEST = 100_000
"""Characters in a query."""
MAX_TOKENS = 20_000
MAX_DEPTH = 100
"""Levels of a syntax tree; a chain such as a + b + c has one for each link, one of ANDs or ORs a single one."""
MAX_NESTING = 30
"""Brackets within brackets, and signs or NOTs in a row."""

WORDS = {
    "SELECT": TokenType.SELECT, "DISTINCT": TokenType.DISTINCT, "ALL": TokenType.ALL, "TOP": TokenType.TOP,
    "FROM": TokenType.FROM, "WHERE": TokenType.WHERE, "GROUP BY": TokenType.GROUP_BY, "HAVING": TokenType.HAVING,
    "ORDER BY": TokenType.ORDER_BY, "ASC": TokenType.ASC, "DESC": TokenType.DESC, "OFFSET": TokenType.OFFSET,
    "AS": TokenType.ALIAS, "AND": TokenType.AND, "OR": TokenType.OR, "NOT": TokenType.NOT, "IN": TokenType.IN,
    "BETWEEN": TokenType.BETWEEN, "LIKE": TokenType.LIKE, "ILIKE": TokenType.ILIKE, "IS": TokenType.IS,
    "NULL": TokenType.NULL, "EXISTS": TokenType.EXISTS, "JOIN": TokenType.JOIN, "INNER": TokenType.INNER,
    "CROSS": TokenType.CROSS, "LEFT": TokenType.LEFT, "RIGHT": TokenType.RIGHT, "FULL": TokenType.FULL,
    "OUTER": TokenType.OUTER, "NATURAL": TokenType.NATURAL, "ON": TokenType.ON, "USING": TokenType.USING,
    "<=": TokenType.LTE, ">=": TokenType.GTE, "<>": TokenType.NEQ, "!=": TokenType.NEQ, "||": TokenType.DPIPE,
    # Refused later, but by their name and not as a mistake in the grammar.
    "WITH": TokenType.WITH, "UNION": TokenType.UNION, "EXCEPT": TokenType.EXCEPT, "INTERSECT": TokenType.INTERSECT,
}  # fmt: skip


class Adql(Dialect):
    """ADQL for sqlglot: few words, and every function call left as a name with arguments."""

    class Tokenizer(sqlglot.Tokenizer):
        KEYWORDS: ClassVar = WORDS
        COMMENTS: ClassVar = ["--"]
        IDENTIFIERS: ClassVar = ['"']
        QUOTES: ClassVar = ["'"]

    class Parser(sqlglot.Parser):
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {}
        NO_PAREN_FUNCTIONS: ClassVar[dict[Any, Any]] = {}
        NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {}
        # A letter that one of these would make a type, a set or a hint of is a name in ADQL.
        STATEMENT_PARSERS: ClassVar[dict[Any, Any]] = {}
        STRING_PARSERS: ClassVar = {
            key: value for key, value in sqlglot.Parser.STRING_PARSERS.items() if key == TokenType.STRING
        }


def parse(text: str) -> exp.Select:
    """The tree of one SELECT. Raises VoError, with what is wrong and where."""
    if len(text) > LONGEST:
        raise VoError(f"a query has at most {LONGEST:,} characters, and this one {len(text):,}")
    if not text.strip():
        raise VoError("the query is empty")
    try:
        tokens = Adql().tokenize(text)
        while tokens and tokens[-1].token_type == TokenType.SEMICOLON:
            tokens.pop()
        _check_tokens(tokens)
        trees = Adql().parser(error_level=ErrorLevel.IMMEDIATE).parse(tokens, text)
    except SqlglotError as error:
        raise VoError(f"this is not ADQL: {_where(error)}") from None
    except RecursionError:
        raise VoError("the query is nested too deeply") from None
    if len(trees) != 1 or not isinstance(trees[0], exp.Select):
        raise VoError(f"a query is one SELECT, and {_kind(trees[0] if trees else None)} is not supported")
    _check_depth(trees[0])
    return trees[0]


def _check_tokens(tokens: list[Token]) -> None:
    """Bounds what the parser, which calls itself, is given."""
    if len(tokens) > MAX_TOKENS:
        raise VoError(f"a query has at most {MAX_TOKENS:,} words and signs, and this one {len(tokens):,}")
    nesting = in_a_row = 0
    for token in tokens:
        kind = token.token_type
        if kind == TokenType.SEMICOLON:
            raise VoError("one query at a time: there is a semicolon within this one")
        nesting += (kind == TokenType.L_PAREN) - (kind == TokenType.R_PAREN)
        prefix = kind in (TokenType.NOT, TokenType.DASH, TokenType.PLUS, TokenType.TILDE)
        in_a_row = in_a_row + 1 if prefix else 0
        if nesting > MAX_NESTING or in_a_row > MAX_NESTING:
            raise VoError(
                f"the query is nested too deeply: {MAX_NESTING} brackets or signs in a row are allowed"
            )


def _check_depth(tree: exp.Select) -> None:
    """Bounds what the translation, which calls itself, is given."""
    level: list[exp.Expr] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise VoError("the query is nested too deeply")


def _children(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, exp.And | exp.Or):
        return [child for part in node.flatten(unnest=False) for child in part.iter_expressions()]
    return list(node.iter_expressions())


def _where(error: SqlglotError) -> str:
    found = getattr(error, "errors", None)
    if not found:
        return str(error).splitlines()[0]
    first = found[0]
    what = str(first.get("description") or "a mistake").rstrip(". ")
    what = "something is missing" if what.startswith("Required keyword") else what
    near = str(first.get("highlight") or "").strip()
    at = f"line {first.get('line')}, column {first.get('col')}"
    return f"{what}, at {at}" + (f", near {near[:60]!r}" if near else "")


def _kind(tree: exp.Expr | None) -> str:
    return "nothing" if tree is None else type(tree).__name__.upper()
