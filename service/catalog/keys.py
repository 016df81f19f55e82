"""Keys of the HTTP API: made, listed, revoked, and recognised.

A key is 256 random bits, so nobody finds one by trying, and the catalog keeps its SHA-256 only. The slow hashes that
passwords need (bcrypt, Argon2) protect what people choose and others guess from lists; on a random key they would
protect nothing and cost every request a tenth of a second.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from service.catalog.engine import CatalogError, NotFoundError, writing
from service.catalog.schema import api_keys

ROLES = ("read", "label", "submit", "admin")
"""Each role may do what it says and all that the roles before it may."""
PREFIX = "peculiar_"
"""Lets people and secret scanners see what a key is."""
LONGEST = 100


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a key belongs to."""

    name: str
    role: str

    def may(self, role: str) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)


def add_key(engine: sa.Engine, name: str, role: str) -> str:
    """A new key, which is nowhere to be read again.

    Raises CatalogError where a good key has this name, or where name or role is none.
    """
    name = name.strip()
    if not name or len(name) > LONGEST or not name.isprintable():
        raise CatalogError(f"a key's name has 1 to {LONGEST} printable characters")
    if role not in ROLES:
        raise CatalogError(f"a key's role is one of {', '.join(ROLES)}")
    key = PREFIX + secrets.token_urlsafe(32)
    row = {"name": name, "role": role, "sha256": _hashed(key), "created_at": datetime.now(UTC)}
    with writing(engine) as connection:
        if connection.execute(_good(name)).first():
            raise CatalogError(f"there is a key called {name!r} already: revoke it, or choose another name")
        connection.execute(sa.insert(api_keys).values(row))
    return key


def revoke_key(engine: sa.Engine, name: str) -> None:
    """End the key of this name at once. Raises NotFoundError where no good key has it."""
    with writing(engine) as connection:
        good = sa.update(api_keys).where(api_keys.c.name == name, api_keys.c.revoked_at.is_(None))
        if not connection.execute(good.values(revoked_at=datetime.now(UTC))).rowcount:
            raise NotFoundError(f"no good key is called {name!r}; `peculiar keys list` shows them")


def list_keys(engine: sa.Engine) -> list[dict[str, Any]]:
    """All keys, revoked ones too, by name; no hashes."""
    k = api_keys.c
    wanted = sa.select(k.name, k.role, k.created_at, k.revoked_at).order_by(k.name, k.id)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(wanted).mappings()]


def find_caller(engine: sa.Engine, key: str) -> Caller | None:
    """Whose key this is; None for one that never was or is revoked.

    The hash is looked up by the database's index. How long that takes tells nothing of use: whoever could choose
    hashes that begin like a stored one would still not have its key.
    """
    k = api_keys.c
    wanted = sa.select(k.name, k.role).where(k.sha256 == _hashed(key), k.revoked_at.is_(None))
    with engine.connect() as connection:
        row = connection.execute(wanted).first()
    return None if row is None else Caller(row.name, row.role)


def _good(name: str) -> sa.Select[Any]:
    return sa.select(api_keys.c.id).where(api_keys.c.name == name, api_keys.c.revoked_at.is_(None))


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
