"""`peculiar db`: the catalog's schema."""

from __future__ import annotations

import click

from service.cli import console


@click.group
def command() -> None:
    """Upgrade or check the catalog's schema."""


@command.command
def upgrade() -> None:
    """Bring the catalog to this program's schema, or make one. Run it after installing a new version."""
    from service.catalog import engine as catalog
    from service.catalog import vectors

    engine = catalog.make_engine(console.load_settings().database_url)
    before = catalog.revision(engine)
    if before is not None and before not in catalog.known_revisions():
        catalog.open_catalog(console.load_settings().database_url)  # says what is wrong
    catalog.upgrade(engine)
    with catalog.reachable(engine):
        remark = vectors.prepare(engine)
    if remark:
        console.note(remark)
    click.echo(f"{catalog.display_name(engine)}: schema {before or 'none'} → {catalog.head_revision()}")


@command.command
def check() -> None:
    """Say whether the catalog has this program's schema; exit code 1 where it does not."""
    from service.catalog import engine as catalog

    engine = catalog.open_catalog(console.load_settings().database_url)
    click.echo(f"{catalog.display_name(engine)}: schema {catalog.head_revision()}, up to date")
