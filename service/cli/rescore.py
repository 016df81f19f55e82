"""`peculiar rescore`: past nights through another model."""

from __future__ import annotations

from datetime import date

import click

from service.cli import console
from service.cli.score import queue, report, wait


@click.command
@click.option("--model", required=True, help="Name or id of the model that scores them.")
@click.option(
    "--since", metavar="YYYY-MM-DD", required=True, callback=console.parse_night, help="The first night."
)
@click.option("--no-wait", is_flag=True, help="Print the run and return; needs a broker.")
@console.as_json
def command(model: str, since: date, no_wait: bool, as_json: bool) -> None:
    """Put every observation since a night through a model, as a run of its own.

    The scores of other models stay. The run waits behind all other work on the queue, so a night that begins
    meanwhile is scored first.
    """
    from service.catalog.engine import open_catalog
    from service.catalog.nights import paths_since
    from service.submission import models_in_force, start_run

    settings = console.load_settings()
    if no_wait:
        console.require_broker(settings, "--no-wait")
    engine = open_catalog(settings.database_url)
    models = models_in_force(engine, model)
    paths = [path for kind in models for path in paths_since(engine, kind, since)]
    if not paths:
        raise console.fail(f"no {' or '.join(models)} was observed since {since}")
    with queue(settings) as (app, check):
        run = start_run(settings, engine, app, paths, models, backfill=True).run
        if no_wait:
            report({"run": run, "queued": len(paths)}, as_json, f"run {run}: {len(paths)} inputs queued")
            return
        counts = wait(engine, app, run, None, check)
    result = {"run": run} | {name: counts[name] for name in ("scored", "failed", "reasons")}
    report(result, as_json, f"run {run}: scored {counts['scored']}, failed {counts['failed']}")
