"""`peculiar status`: queue, workers, the last runs, failures by reason."""

from __future__ import annotations

from typing import Any

import click

from service.cli import console


@click.command
@console.as_json
def command(as_json: bool) -> None:
    """Show the queue, the workers, the last runs, and failures by reason."""
    from service.catalog.engine import open_catalog

    settings = console.load_settings()
    status = gather(settings, open_catalog(settings.database_url))
    if as_json:
        console.write_json(status)
        return
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
        console.write_table(
            ("run", "night", "models", "found", "queued", "scored", "failed", "started", "ended"),
            [_run_row(run) for run in status["runs"]],
            title="last runs",
        )
    if status["failures"]:
        rows = [(n, reason) for reason, n in status["failures"].items()]
        console.write_table(("inputs", "reason"), rows, title="failures")


def _run_row(run: dict[str, Any]) -> list[Any]:
    numbers = [run[name] for name in ("found", "queued", "scored", "failed")]
    started, ended = (f"{when:%F %T}" if when else None for when in (run["started_at"], run["ended_at"]))
    return [run["id"], run["night"], " ".join(run["models"].values()), *numbers, started, ended]


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
