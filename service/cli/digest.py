"""`peculiar digest`: what a night brought."""

from __future__ import annotations

from datetime import date
from typing import Any

import click

from service.cli import console

COLUMNS = ("object", "score", "p", "q", "S/N", "RA, Dec", "flags")


@click.command
@click.option(
    "--night",
    callback=console.parse_night,
    metavar="YYYY-MM-DD",
    help="Which; the last that has a run which ended unless given.",
)
@click.option(
    "--fdr",
    type=click.FloatRange(1e-6, 1),
    default=0.1,
    show_default=True,
    metavar="Q",
    help="The false-discovery rate of what is listed.",
)
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Of each model."
)
@click.option("--atom", "as_atom", is_flag=True, help="Print the last 14 nights as an Atom feed.")
@console.as_json
def command(night: date | None, fdr: float, limit: int, as_atom: bool, as_json: bool) -> None:
    """List a night's runs, their problems, and each model's discoveries."""
    from service.catalog.digest import digest
    from service.catalog.engine import open_catalog
    from service.feed import atom, title_of

    if as_atom and (night or as_json):
        raise click.UsageError("--atom is of the last nights, and neither of one --night nor --json")
    engine = open_catalog(console.load_settings().database_url)
    if as_atom:
        click.echo(atom(engine, fdr, 14))
        return
    found = digest(engine, night.isoformat() if night else None, fdr, limit)
    if as_json:
        console.write_json(found)
        return
    click.echo(title_of(found))
    for run in found["runs"]:
        state = f", {run['queued']} still queued" if run["ended_at"] is None else ""
        click.echo(
            f"run {run['id']}: {run['found']} files, {run['scored']} scored, {run['failed']} rejected{state}"
        )
        for model, problem in run["problems"].items():
            click.echo(f"  looks like an instrument problem to {model}: {problem}")
    for model in found["models"]:
        _write_model(model)


def _write_model(model: dict[str, Any]) -> None:
    withheld = f", {model['withheld']} withheld" if model["withheld"] else ""
    shown = len(model["discoveries"])
    first = f", the first {shown}" if shown < model["n_discoveries"] else ""
    title = f"{model['kind']}, model {model['model']}: {model['n_discoveries']} of {model['scored']}{withheld}{first}"
    if shown:
        console.write_table(COLUMNS, map(_cells, model["discoveries"]), title=title)
    else:
        click.echo(f"\n{title}")
    if model["smallest_p"] is not None:
        click.echo(
            f"Its calibration set resolves p-values down to {model['smallest_p']:.2g}: it takes {model['fewest']} "
            "at that p-value for any to be a discovery."
        )


def _cells(row: dict[str, Any]) -> list[Any]:
    numbers = [row[name] for name in ("score", "p_value", "q_value", "snr")]
    return [row["object_id"], *numbers, console.position(row), row["flags"].replace(",", ", ")]
