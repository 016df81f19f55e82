"""`peculiar worker`: one worker process for one device."""

from __future__ import annotations

import click

from service.cli import console


@click.command
@click.option("--name", help="Name of this worker where several run on one host.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def command(name: str | None, log_level: str) -> None:
    """Work on what the broker hands out, until stopped.

    Start one for each device (PECULIAR_DEVICE). On SIGTERM it ends within ten seconds; what it could not
    finish, and what it held when it was killed, goes to another worker.
    """
    import os

    from service.catalog.engine import open_catalog
    from service.queue import make_app
    from workers.lease import RenewLease
    from workers.patience import Stop
    from workers.stopping import stop_in_time
    from workers.tasks import register

    console.start_logging(log_level)
    settings = console.load_settings()
    console.require_broker(settings, "a worker")
    # A schema that does not fit is better said now than with the first message. The pool is made after a
    # fork, which must not share connections with this process.
    open_catalog(settings.database_url).dispose()
    app = make_app(settings)
    stop = Stop()
    stop_in_time(stop)
    register(app, settings, stop=stop, deadline_s=settings.batch_deadline_s)
    app.steps["consumer"].add(RenewLease)
    name = name or f"peculiar-{os.getpid()}"
    options = ["--pool=prefork", "--concurrency=1", "--without-gossip", "--without-mingle"]
    app.worker_main(["--quiet", "worker", *options, f"--hostname={name}@%h", f"--loglevel={log_level}"])
