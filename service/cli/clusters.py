"""`peculiar clusters`: the clusters of the latent space and what labels say about them."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import click

from service.cli import console

COLUMNS = ("cluster", "weight", "size", "labelled", "lenses", "lens fraction", "95 % interval")


@click.command
@click.option(
    "--model", help="Name or id of the model; the newest of each kind that has scores unless given."
)
@console.as_json
def command(model: str | None, as_json: bool) -> None:
    """List the latent clusters: weight in training, size in the catalog, lens fraction by the labels."""
    from service.catalog.engine import open_catalog
    from service.catalog.queries import list_clusters

    engine = open_catalog(console.load_settings().database_url)
    listed = list_clusters(engine, model)
    if not listed:
        console.note("the catalog holds no scores yet: `peculiar score INPUT…` makes some")
    if as_json:
        console.write_json(listed)
        return
    write_clusters(listed)
    if listed and not any(row["n_labelled"] for row in listed):
        console.note("no cluster has labels yet: `peculiar label OBJECT lens` or `not-lens` adds one")


def write_clusters(listed: list[dict[str, Any]]) -> None:
    """Print a table of clusters for each model."""
    for model_id, rows in groupby(listed, key=lambda row: row["model"]):
        mine = list(rows)
        console.write_table(COLUMNS, map(_cells, mine), title=f"{mine[0]['kind']}, model {model_id}")


def _cells(row: dict[str, Any]) -> list[Any]:
    known = row["lens_fraction"] is not None
    return [
        row["cluster"],
        row["weight"],
        row["size"],
        row["n_labelled"],
        row["n_lens"],
        f"{row['lens_fraction']:.3f}" if known else "no labels",
        f"{row['lens_fraction_low']:.3f} to {row['lens_fraction_high']:.3f}" if known else "",
    ]
