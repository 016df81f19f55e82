"""`peculiar nightly`: one nightly run, now."""

from __future__ import annotations

from datetime import date

import click

from service.cli import console


@click.command
@click.argument("folders", metavar="[FOLDER…]", nargs=-1, type=click.Path(exists=True))
@click.option(
    "--night",
    metavar="YYYY-MM-DD",
    callback=console.parse_night,
    help="Night to run; today in UTC unless given.",
)
@console.as_json
def command(folders: tuple[str, ...], night: date | None, as_json: bool) -> None:
    """Score every new file under the folders (PECULIAR_DATA_ROOTS unless given) once.

    Calling it again scores only what has come or changed since.
    """
    from service.catalog.engine import open_catalog
    from service.cli.score import queue, report, wait
    from workers.nightly import start_night

    settings = console.load_settings()
    engine = open_catalog(settings.database_url, create=True)
    with queue(settings) as (app, check):
        submission = start_night(settings, engine, app, folders or settings.data_roots, night)
        counts = wait(engine, app, submission.run, submission.queued, check)
    result = {"run": submission.run, "night": submission.night, "new": len(submission.queued)} | {
        name: counts[name] for name in ("scored", "failed", "reasons")
    }
    lines = [
        f"night {result['night']}, run {result['run']}: {result['new']} new, "
        f"scored {result['scored']}, failed {result['failed']}"
    ]
    lines += [f"  {n} × {reason}" for reason, n in counts["reasons"].items()]
    report(result, as_json, "\n".join(lines))
