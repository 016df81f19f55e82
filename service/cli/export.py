"""`peculiar export`: the catalog as a file."""

from __future__ import annotations

from pathlib import Path

import click

from service.cli import console


@click.command
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write; .parquet, .fits, .vot, .xml or .csv say how. A folder called .hats is for cross-matches.",
)
@click.option("--model", help="Only the scores of this model, by name or id.")
@click.option("--failures", is_flag=True, help="Write what could not be scored, and why, instead.")
def command(out: Path, model: str | None, failures: bool) -> None:
    """Write the catalog as parquet, FITS table, VOTable or CSV, or as a HATS folder."""
    from service.catalog.engine import CatalogError, open_catalog
    from service.catalog.export import check_ending, export_failures, export_rows

    if failures and model is not None:
        raise click.UsageError("--failures lists those of all models; leave out --model")
    try:
        check_ending(out)
    except CatalogError as error:
        raise click.BadParameter(str(error), param_hint="--out") from error
    engine = open_catalog(console.load_settings().database_url)
    n = export_failures(engine, out) if failures else export_rows(engine, out, model)
    click.echo(f"wrote {n} row{'' if n == 1 else 's'} to {out}")
