"""`peculiar runs`: the runs, and what became of every file of one."""

from __future__ import annotations

from datetime import date
from typing import Any

import click

from service.cli import console

COLUMNS = ("run", "night", "models", "found", "queued", "scored", "failed", "started", "ended")
LIMIT = 50


@click.group(invoke_without_command=True)
@click.option(
    "--limit", metavar="N", type=click.IntRange(1), default=20, show_default=True, help="Runs to list."
)
@console.as_json
@click.pass_context
def command(ctx: click.Context, limit: int, as_json: bool) -> None:
    """List the runs, the newest first.

    `peculiar runs show RUN` or `peculiar runs show YYYY-MM-DD` explains every file of one.
    """
    from service.catalog.queries import list_runs

    if ctx.invoked_subcommand is not None:
        return
    listed = list_runs(_catalog(), limit)
    if as_json:
        console.write_json(listed)
    else:
        console.write_table(COLUMNS, map(row, listed))


@command.command
@click.argument("which", metavar="RUN|NIGHT")
@click.option("--status", type=click.Choice(["queued", "scored", "failed"]), help="Only these files.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(0), default=LIMIT, show_default=True, help="Files; 0 for all."
)
@console.as_json
def show(which: str, status: str | None, limit: int, as_json: bool) -> None:
    """Explain every file of a run, or of all runs of a night: failed ones first, then queued, then scored."""
    from service.catalog.runs import list_inputs

    engine = _catalog()
    shown = []
    for run in find(engine, which):
        files = list_inputs(engine, run["id"], status, limit or None)
        shown.append(run | {"files": files})
    if as_json:
        console.write_json(shown)
        return
    for run in shown:
        console.write_table(COLUMNS, [row(run)])
        lines = [_line(file) for file in run["files"]]
        if lines:
            console.write_table(("status", "attempts", "path", "reason"), lines)
        left = run["found" if status is None else status] - len(lines)
        if left > 0:
            click.echo(f"… and {left} more: --limit 0 shows all, --status failed only those that failed")


def find(engine: Any, which: str) -> list[dict[str, Any]]:
    """The run with this number, or the runs of this night. Raises NotFoundError."""
    from service.catalog.engine import NotFoundError
    from service.catalog.queries import one_run
    from service.catalog.runs import runs_of_night

    if which.isdecimal():
        return [one_run(engine, int(which))]
    try:
        night = date.fromisoformat(which)
    except ValueError:
        msg = f"{which!r} is neither the number of a run nor a night as YYYY-MM-DD"
        raise click.UsageError(msg) from None
    found = [one_run(engine, number) for number in runs_of_night(engine, night)]
    if not found:
        raise NotFoundError(f"there is no run of the night {night} in the catalog")
    return found


def row(run: dict[str, Any]) -> list[Any]:
    """A run as a row of COLUMNS."""
    numbers = [run[name] for name in ("found", "queued", "scored", "failed")]
    started, ended = (f"{when:%F %T}" if when else None for when in (run["started_at"], run["ended_at"]))
    return [run["id"], run["night"], " ".join(run["models"].values()), *numbers, started, ended]


def _line(file: dict[str, Any]) -> list[Any]:
    status = "in hand" if file["in_hand"] else file["status"]
    return [status, file["attempts"], file["path"], file["reason"]]


def _catalog() -> Any:
    from service.catalog.engine import open_catalog

    return open_catalog(console.load_settings().database_url)
