"""`peculiar watch`: score files as they arrive in landing folders."""

from __future__ import annotations

from typing import Any

import click

from service.cli import console


@click.command
@click.argument("folders", metavar="[FOLDER…]", nargs=-1, type=click.Path(exists=True, file_okay=False))
@click.option(
    "--every",
    metavar="SECONDS",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    help="Between two looks at the folders.",
)
@click.option(
    "--settle", metavar="SECONDS", type=click.FloatRange(0), default=30.0, show_default=True,
    help="How long size and mtime of a file must stay the same.",
)  # fmt: skip
def command(folders: tuple[str, ...], every: float, settle: float) -> None:
    """Score files under the folders (PECULIAR_DATA_ROOTS unless given) as they arrive, until stopped.

    Each joins the run of the night (today in UTC) on which it is complete: once its size and mtime have not
    changed for a while. A file that changes later is a new observation. The folders are looked through again
    and again, which works on network file systems too; on NFS let --settle be longer than its attribute cache
    (60 s unless mounted otherwise). After a restart only what the catalog does not know is queued.
    """
    import signal

    from service.catalog.engine import open_catalog
    from service.cli.score import queue
    from workers.landing import watch
    from workers.patience import Stop

    console.start_logging("info")
    settings = console.load_settings()
    where = folders or settings.data_roots
    if not where:
        raise console.fail("no folder to watch: set PECULIAR_DATA_ROOTS, or name one")
    stop = Stop()

    def note(*_: Any) -> None:
        stop.requested = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    engine = open_catalog(settings.database_url, create=True)
    with queue(settings) as (app, check):
        console.note(f"watching {', '.join(map(str, where))}, every {every:g} s")
        watch(settings, engine, app, where, every, settle, stop, check)
    console.note("stopped watching")
