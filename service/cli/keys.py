"""`peculiar keys`: who may use the HTTP API."""

from __future__ import annotations

from typing import Any

import click

from service.catalog.keys import ROLES
from service.cli import console


@click.group
def command() -> None:
    """Add, list and revoke keys of the HTTP API.

    Each role may do what the one before it may: read; label; submit files; admin, which puts models in force.
    """


@command.command
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What the key's owner may do.")
@console.as_json
def add(name: str, role: str, as_json: bool) -> None:
    """Make a key for NAME and print it, this once: the catalog keeps only its hash."""
    from service.catalog.keys import add_key

    key = add_key(_open(), name, role)
    if as_json:
        console.write_json({"name": name, "role": role, "key": key})
        return
    click.echo(key)
    console.note("keep it now, it is not shown again; clients send it as `Authorization: Bearer KEY`")


@command.command("list")
@console.as_json
def list_(as_json: bool) -> None:
    """List all keys, revoked ones too."""
    from service.catalog.keys import list_keys

    found = list_keys(_open())
    if as_json:
        console.write_json(found)
        return
    if not found:
        console.note("there are no keys: `peculiar keys add NAME --role read` makes one")
    rows = [(k["name"], k["role"], f"{k['created_at']:%F %T}", _when(k["revoked_at"])) for k in found]
    console.write_table(("name", "role", "made", "revoked"), rows)


@command.command
@click.argument("name")
def revoke(name: str) -> None:
    """End the key of NAME at once."""
    from service.catalog.keys import revoke_key

    revoke_key(_open(), name)
    click.echo(f"revoked {name}")


def _open() -> Any:
    from service.catalog.engine import open_catalog

    return open_catalog(console.load_settings().database_url, create=True)


def _when(instant: Any) -> str:
    return f"{instant:%F %T}" if instant else ""
