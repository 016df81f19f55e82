"""Searches that somebody keeps under a name, as the parameters that the API takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from service.catalog.engine import CatalogError, NotFoundError, writing
from service.catalog.schema import searches
from service.catalog.statements import insert_into


class TakenError(CatalogError):
    """The name belongs to another search."""


def save_search(engine: sa.Engine, name: str, by: str, query: dict[str, Any]) -> dict[str, Any]:
    """Keep a search; raises TakenError where one of that name is kept already."""
    row = {"name": name, "by": by, "query": query, "created_at": datetime.now(UTC)}
    with writing(engine) as connection:
        statement = insert_into(connection, searches).values(row)
        statement = statement.on_conflict_do_nothing(index_elements=["name"]).returning(searches.c.id)
        if connection.scalar(statement) is None:
            raise TakenError(f"a search called {name!r} is there already: delete it, or choose another name")
    return row


def list_searches(engine: sa.Engine) -> list[dict[str, Any]]:
    """All searches, by name, with ``name``, ``by``, ``query`` and ``created_at``."""
    with engine.connect() as connection:
        found = connection.execute(sa.select(searches).order_by(searches.c.name)).mappings()
        return [{name: value for name, value in row.items() if name != "id"} for row in found]


def find_search(engine: sa.Engine, name: str) -> dict[str, Any]:
    """Raises NotFoundError, naming those that there are."""
    listed = list_searches(engine)
    for row in listed:
        if row["name"] == name:
            return row
    known = ", ".join(row["name"] for row in listed[:20]) or "none yet"
    raise NotFoundError(f"no search is called {name!r}; there are {known}")


def delete_search(engine: sa.Engine, name: str) -> None:
    """Raises NotFoundError."""
    find_search(engine, name)
    with writing(engine) as connection:
        connection.execute(sa.delete(searches).where(searches.c.name == name))
