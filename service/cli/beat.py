"""`peculiar beat`: the scheduler of the nightly run."""

from __future__ import annotations

import click

from service.cli import console


@click.command
def command() -> None:
    """Hand the nightly run to the workers every day at PECULIAR_NIGHTLY_AT (UTC), until stopped.

    A second scheduler does no harm: both start the same run of that night.
    """
    from service.queue import make_app

    console.start_logging("info")
    settings = console.load_settings()
    console.require_broker(settings, "the scheduler")
    if not settings.data_roots:
        raise console.fail(
            "PECULIAR_DATA_ROOTS names no folder, so there is nothing to look through every night"
        )
    console.note(f"the nightly run starts every day at {settings.nightly_at} UTC")
    make_app(settings).Beat(loglevel="info", quiet=True).run()
