"""`peculiar clusters`: the clusters of the latent space and what labels say about them."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import click

from service.cli import console

COLUMNS = ("cluster", "weight", "size", "labelled", "lenses", "lens fraction", "95 % interval")

MEMBER = ("object", "RA, Dec", "probability", "score", "p", "labels")
SORTS = {"typical": "most typical", "anomalous": "most anomalous", "lenses": "labelled as lenses"}


@click.command
@click.option(
    "--model", help="Name or id of the model; the newest of each kind that has scores unless given."
)
@click.option("--cluster", type=click.IntRange(0), metavar="K", help="Only this one, with its members.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="With --cluster: members of each sort.",
)
@console.as_json
def command(model: str | None, cluster: int | None, limit: int, as_json: bool) -> None:
    """List the latent clusters: weight in training, size in the catalog, lens fraction by the labels.

    With --cluster: that one's most typical and most anomalous members, and those that are labelled as lenses.
    """
    from service.catalog.engine import open_catalog
    from service.catalog.queries import cluster_card, list_clusters

    engine = open_catalog(console.load_settings().database_url)
    if cluster is not None:
        card = cluster_card(engine, cluster, model, limit)
        if as_json:
            console.write_json(card)
        else:
            write_card(card)
        return
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


def write_card(card: dict[str, Any]) -> None:
    """Print one cluster's figures and a table for each sort of its members."""
    write_clusters([card])
    for name, title in SORTS.items():
        if card[name]:
            console.write_table(MEMBER, map(_member, card[name]), title=title)
        else:
            click.echo(f"{title}: none")


def _member(row: dict[str, Any]) -> list[Any]:
    numbers = [row[name] for name in ("cluster_probability", "score", "p_value")]
    return [row["object_id"], console.position(row), *numbers, ", ".join(row["labels"])]


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
