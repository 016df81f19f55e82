"""`peculiar label`: what people say about objects."""

from __future__ import annotations

from pathlib import Path

import click

from service.cli import console


@click.command
@click.argument("object_id", metavar="[OBJECT", required=False)
@click.argument("label", metavar="LABEL]", required=False)
@click.option("--by", help="Who says so; your login name unless given.")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with the columns object_id,label and optionally by.",
)
def command(object_id: str | None, label: str | None, by: str | None, file: Path | None) -> None:
    """Record a human label for one object, or those of a file.

    LABEL is lens, not-lens, interesting, artefact, or a word of your own. The newest label by each person
    counts; earlier ones are kept. lens, not-lens and artefact make up the lens fractions. Training leaves out
    what is labelled as anything but ordinary, normal or not-lens.
    """
    from service.catalog.engine import open_catalog
    from service.catalog.labels import Label, read_labels, record_labels

    if file is None and (object_id is None or label is None):
        raise click.UsageError("give an OBJECT and a LABEL, or --file")
    if file is not None and object_id is not None:
        raise click.UsageError("give an OBJECT and a LABEL or --file, not both")
    author = by if by is not None else console.login_name()
    said = read_labels(file, author) if file else [Label(object_id or "", label or "", author)]
    n = record_labels(open_catalog(console.load_settings().database_url, create=True), said)
    click.echo(f"labelled {n} object{'' if n == 1 else 's'}")
