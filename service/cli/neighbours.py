"""`peculiar neighbours`: the objects most like one of the catalog, or like a file."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from service.cli import console

COLUMNS = ("object", "kind", "distance", "score", "p", "RA, Dec", "cluster", "flags")


@click.command
@click.argument("what", metavar="OBJECT|FILE")
@click.option(
    "-k", "--limit", "k", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many."
)
@click.option(
    "--kind", type=click.Choice(["spectrum", "cutout"]), help="Where both have an object of this name."
)
@click.option("--model", help="Name or id of the model whose latent space is meant.")
@console.as_json
def command(what: str, k: int, kind: str | None, model: str | None, as_json: bool) -> None:
    """List the objects nearest in the latent space, the nearest first.

    A path of a file that exists is read and scored, and does not come into the catalog; anything else names an
    object.
    """
    from service.catalog.engine import open_catalog
    from service.catalog.queries import neighbours
    from service.catalog.ranking import flat

    settings = console.load_settings()
    engine = open_catalog(settings.database_url)
    if Path(what).is_file():
        found = _of_file(settings, engine, Path(what), k, kind, model)
    else:
        found = {"object_id": what, "neighbours": neighbours(engine, what, k, model, kind)}
    rows = [flat(row) | {"distance": row["distance"]} for row in found["neighbours"]]
    if as_json:
        console.write_json(found | {"neighbours": rows})
        return
    if "p_value" in found:
        click.echo(
            f"{found['object_id']}: {found['kind']}, score {found['score']:.2f}, p = {found['p_value']:.2g} "
            f"by {found['model']}"
        )
    if rows:
        console.write_table(COLUMNS, map(_cells, rows), title=f"nearest to {found['object_id']}")
    else:
        console.note("the model has scored no other object yet")


def _of_file(
    settings: Any, engine: Any, path: Path, k: int, kind: str | None, model: str | None
) -> dict[str, Any]:
    from service.catalog.queries import neighbours_of
    from service.catalog.registry import ranked_models
    from service.catalog.rows import RejectedRow, described
    from workers.examination import Examiner, ModelMissingError
    from workers.tasks import load_bundle

    with engine.connect() as connection:
        models = {entry["kind"]: entry["id"] for entry in ranked_models(connection, kind, model)}
    try:
        row = Examiner(functools.partial(load_bundle, settings))(path.read_bytes(), str(path), models)
    except ModelMissingError as error:
        raise console.fail(str(error)) from error
    if isinstance(row, RejectedRow):
        raise console.fail(f"{path}: {row.reason}" + (f" ({row.detail})" if row.detail else ""))
    return described(row) | {"neighbours": neighbours_of(engine, row.model, row.latent, k)}


def _cells(row: dict[str, Any]) -> list[Any]:
    numbers = [row[name] for name in ("distance", "score", "p_value")]
    where = console.position(row)
    return [row["object_id"], row["kind"], *numbers, where, row["cluster"], row["flags"].replace(",", ", ")]
