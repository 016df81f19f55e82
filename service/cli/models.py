"""`peculiar models`: the trained models, and which of them is in force."""

from __future__ import annotations

from typing import Any

import click

from service.cli import console
from service.cli.score import report

COLUMNS = ("model", "kind", "trained", "objects", "χ² by S/N third", "smallest p", "in force")


@click.group(invoke_without_command=True)
@console.as_json
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the models, or promote one, or roll back.

    In force is the model that scores when none is named: the first one trained of its kind, until another is
    promoted. Scores stay with the model that made them.
    """
    from service.catalog.registry import list_models, list_promotions

    if ctx.invoked_subcommand is not None:
        return
    engine = _open()
    listed, history = list_models(engine), list_promotions(engine)
    if as_json:
        console.write_json({"models": listed, "history": history})
        return
    if not listed:
        console.note("there is no model yet: `peculiar train KIND INPUT… --name NAME` makes one")
        return
    console.write_table(COLUMNS, map(_cells, listed))
    changes = ("kind", "model", "promoted", "by", "rolled back", "rolled back by")
    console.write_table(changes, map(_change, history), title="what was in force, the newest first")


@command.command
@click.argument("model")
@console.as_json
def promote(model: str, as_json: bool) -> None:
    """Put MODEL, an id or a name, in force for its kind from the next run on."""
    from service.catalog.registry import promote as put_in_force

    found = put_in_force(_open(), model, console.login_name())
    text = f"{found['id']} is in force for every {found['kind']}"
    report({"kind": found["kind"], "in_force": found["id"]}, as_json, text)


@command.command
@click.argument("kind", type=click.Choice(["spectrum", "cutout"]))
@console.as_json
def rollback(kind: str, as_json: bool) -> None:
    """Put in force again what was before the last promotion of KIND."""
    from service.catalog.registry import roll_back

    withdrawn, held = roll_back(_open(), kind, console.login_name())
    text = f"{held} is in force again for every {kind}; {withdrawn} no longer is"
    report({"kind": kind, "in_force": held, "withdrawn": withdrawn}, as_json, text)


def _open() -> Any:
    from service.catalog.engine import open_catalog

    return open_catalog(console.load_settings().database_url)


def _cells(model: dict[str, Any]) -> list[Any]:
    thirds = " ".join(f"{value:.2f}" for value in model["held_out"].get("chi2_by_snr_third", []))
    smallest = None if model["smallest_p"] is None else f"{model['smallest_p']:.2g}"
    return [
        model["id"], model["kind"], f"{model['created_at']:%F %T}", model["n_training"], thirds, smallest,
        "yes" if model["in_force"] else "",
    ]  # fmt: skip


def _change(row: dict[str, Any]) -> list[Any]:
    withdrawn = f"{row['withdrawn_at']:%F %T}" if row["withdrawn_at"] else ""
    return [
        row["kind"],
        row["model_id"],
        f"{row['at']:%F %T}",
        row["by"],
        withdrawn,
        row["withdrawn_by"] or "",
    ]
