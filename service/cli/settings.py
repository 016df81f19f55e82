"""`peculiar settings`: what is in force and where each value came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from service.cli import console
from service.logs import hide_passwords


@click.command
@console.as_json
def command(as_json: bool) -> None:
    """Show the settings in force and where each came from."""
    rows = in_force()
    if as_json:
        console.write_json({row["name"]: row for row in rows})
    else:
        console.write_table(
            ("setting", "value", "from", "meaning"),
            [(row["name"], row["value"], row["source"], row["meaning"]) for row in rows],
        )


def in_force() -> list[dict[str, Any]]:
    """Name, value, source (environment, .env or default) and meaning of each setting, without passwords."""
    from dotenv import dotenv_values

    settings = console.load_settings()
    environment = {name.upper() for name in os.environ}
    file = {name.upper() for name in dotenv_values(".env")} if Path(".env").is_file() else set()
    rows = []
    for field, about in type(settings).model_fields.items():
        name = f"PECULIAR_{field.upper()}"
        source = "environment" if name in environment else ".env" if name in file else "default"
        meaning = about.description or ""
        rows.append(
            {"name": name, "value": _shown(getattr(settings, field)), "source": source, "meaning": meaning}
        )
    return rows


def _shown(value: Any) -> Any:
    """The value as a person may see it."""
    if isinstance(value, list):
        return ":".join(map(str, value))
    if isinstance(value, str) and "://" in value:
        return hide_passwords(value)
    return value if isinstance(value, int | float) else str(value)
