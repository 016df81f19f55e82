"""`peculiar status`: queue, workers, the last runs, failures by reason."""

from __future__ import annotations

import time
from typing import Any

import click

from service.cli import console, runs

LIVE_S = 2


@click.command
@click.option("--live", is_flag=True, help="Show it anew every two seconds, until stopped.")
@console.as_json
def command(live: bool, as_json: bool) -> None:
    """Show the queue, the workers, the last runs, and failures by reason."""
    from service.catalog.engine import open_catalog

    settings = console.load_settings()
    engine = open_catalog(settings.database_url)
    while True:
        status = gather(settings, engine)
        if live and not as_json:
            click.clear()
        if as_json:
            console.write_json(status)
        else:
            show(settings, status)
        if not live:
            return
        time.sleep(LIVE_S)


def show(settings: Any, status: dict[str, Any]) -> None:
    """Print what ``gather`` found, for a person."""
    if settings.broker_url.startswith("memory://"):
        click.echo("queue    in each command's own process (PECULIAR_BROKER_URL is memory://)")
    elif status["queue"] is None:
        click.echo(f"queue    unknown: {status['broker_error']}")
    else:
        click.echo(f"queue    {status['queue']} messages wait")
        click.echo(
            f"workers  {', '.join(status['workers']) or 'none answers; start one with `peculiar worker`'}"
        )
    click.echo(f"scores   {status['scores']}")
    if status["runs"]:
        console.write_table(runs.COLUMNS, map(runs.row, status["runs"]), title="last runs")
    if status["failures"]:
        rows = [(n, reason) for reason, n in status["failures"].items()]
        console.write_table(("inputs", "reason"), rows, title="failures")


def gather(settings: Any, engine: Any) -> dict[str, Any]:
    """What the command prints as JSON. ``queue`` is None where the broker does not answer."""
    from service.catalog import queries
    from service.queue import BrokerError, live_workers, make_app, waiting_messages

    broker: dict[str, Any] = {"queue": 0, "workers": []}
    if not settings.broker_url.startswith("memory://"):
        app = make_app(settings)
        try:
            broker = {"queue": waiting_messages(app), "workers": live_workers(app)}
        except BrokerError as error:
            broker = {"queue": None, "workers": [], "broker_error": str(error)}
    return broker | queries.status(engine)
