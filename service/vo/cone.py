"""Simple Cone Search 1.03 (https://www.ivoa.net/documents/latest/ConeSearch.html) over the current scores."""

from __future__ import annotations

import sqlalchemy as sa

from service.catalog.columns import ROW, Column
from service.catalog.healpix import Cone, in_cone
from service.vo.execute import Reader, Result
from service.vo.formats import Format, find_format
from service.vo.parameters import Parameters
from service.vo.tables import KEY, SCHEMA, public_tables
from service.vo.terms import Term
from service.vo.translate import Output, Query

MAXREC = 10_000
HARD_MAXREC = 100_000
SECONDS = 60
FEWEST = ("object_id", "ra", "dec", "kind", "model", "score", "p_value")
"""Columns for VERB=1."""


def cone_search(reader: Reader, parameters: Parameters) -> tuple[Result, Format]:
    """The rows within SR degrees of RA and DEC, the highest scores first. Raises VoError."""
    cone = Cone(
        parameters.degrees("RA", 0, 360), parameters.degrees("DEC", -90, 90), parameters.degrees("SR", 0, 180)
    )
    verbosity = parameters.count("VERB", 2, 3)
    maxrec = parameters.count("MAXREC", MAXREC, HARD_MAXREC)
    form = find_format(parameters.one("RESPONSEFORMAT") or "votable/td")

    def make(connection: sa.Connection) -> Query:
        table = public_tables(connection)[f"{SCHEMA}.scores"]
        columns = _columns(table.columns, verbosity)
        sub = table.select(connection, {column.name for column in columns}).subquery()
        sql = (
            sa.select(*(sub.c[column.name].label(f"c{i}") for i, column in enumerate(columns)))
            .where(in_cone(cone, sub.c[KEY]))
            .order_by(sub.c.score.desc(), sub.c.observation_key, sub.c.model)
        )
        return Query(sql, [Output(c.name, Term(sub.c[c.name], c.type, c)) for c in columns], None, False)

    return reader.query(make, maxrec, SECONDS), form


def _columns(every: tuple[Column, ...], verbosity: int) -> list[Column]:
    if verbosity >= 3:
        return list(every)
    names = [column.name for column in ROW] if verbosity == 2 else FEWEST
    return [column for column in every if column.name in names]
