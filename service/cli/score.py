"""`peculiar score`: files in, rows in the catalog out, through the queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import click

from service.cli import console

POLL_S = 0.2
SILENCE_S = 5


@click.command
@click.argument("inputs", metavar="INPUT…", nargs=-1, required=True)
@click.option("--model", help="Name or id of the model; those in force unless given.")
@click.option(
    "--night",
    metavar="YYYY-MM-DD",
    callback=console.parse_night,
    help="Join this night's run; else a run of their own.",
)
@click.option(
    "--readers",
    type=click.IntRange(0, 64),
    help="Processes that read the files, without a broker; 0: one does all.",
)
@click.option("--no-wait", is_flag=True, help="Print the run and return; needs a broker.")
@console.as_json
def command(
    inputs: tuple[str, ...],
    model: str | None,
    night: date | None,
    readers: int | None,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Score files and write them to the catalog.

    INPUT is a file, a folder (searched recursively), a pack, or @list.txt, a text file of paths.
    """
    from service.catalog.engine import open_catalog
    from service.submission import models_in_force, start_run
    from workers.readers import find_inputs

    settings = console.load_settings()
    if readers is not None:
        settings.readers = readers
    if no_wait:
        console.require_broker(settings, "--no-wait")
    found = find_inputs(list(inputs))
    for path in found.missing:
        if path.startswith("@"):
            raise console.fail(f"no such list of paths: {path[1:]}")
        console.note(f"no such file or folder: {path}")
    if found.ignored:
        console.note(f"left out {found.ignored} in the folders that are not named like FITS files")
    if not found.paths:
        raise console.fail("nothing to score: no FITS file among the inputs")
    engine = open_catalog(settings.database_url, create=True)
    models = models_in_force(engine, model)
    # What was named and is not there is an input like any other: it ends as a failure row.
    paths = [*found.paths, *(str(Path(path).absolute()) for path in found.missing)]
    with queue(settings) as (app, check):
        submission = start_run(settings, engine, app, paths, models, night)
        if no_wait:
            queued = {"run": submission.run, "queued": len(submission.queued)}
            report(queued, as_json, f"run {submission.run}: {len(submission.queued)} inputs queued")
            return
        own = None if night is None else paths
        counts = wait(engine, app, submission.run, own, check)
    result = {
        "run": submission.run,
        "read": counts["scored"] + counts["failed"],
        "scored": counts["scored"],
        "rejected": counts["failed"],
        "reasons": counts["reasons"],
    }
    text = (
        f"run {submission.run}: read {result['read']}, scored {counts['scored']}, rejected {counts['failed']}"
    )
    text += "".join(f"\n  {n} × {reason}" for reason, n in counts["reasons"].items())
    report(result, as_json, text)


def queue(settings: Any) -> Any:
    """Context manager for the queue: (Celery application, what to call to see that all is well).

    With a broker, workers are elsewhere; without one, this process runs a worker for as long as the block
    lasts.
    """
    from contextlib import contextmanager

    from service.queue import make_app

    @contextmanager
    def opened() -> Any:
        app = make_app(settings)
        if not settings.broker_url.startswith("memory://"):
            yield app, lambda: None
            return
        from workers.embedded import embedded_worker

        with embedded_worker(app, settings) as worker:
            yield app, worker.check

    return opened()


def wait(
    engine: Any, app: Any, run: int, paths: list[str] | None, check: Callable[[], None]
) -> dict[str, Any]:
    """Wait until none of a run's inputs is queued, of ``paths`` only where given; the run's counts."""
    from service.catalog.runs import counts as count
    from service.catalog.runs import finish_if_complete
    from service.queue import live_workers

    counts = count(engine, run, paths)
    in_memory = app.conf.broker_url.startswith("memory://")
    warned, changed, pause = in_memory, time.monotonic(), POLL_S
    with console.progress(counts["found"], "scoring") as update:
        while counts["queued"]:
            time.sleep(pause)
            check()
            started, queued = time.monotonic(), counts["queued"]
            counts = count(engine, run, paths)
            # Counting must not become the catalog's main load where there are very many inputs.
            pause = max(POLL_S, 10 * (time.monotonic() - started))
            update(counts["scored"] + counts["failed"])
            if counts["queued"] != queued:
                changed = time.monotonic()
            elif not warned and time.monotonic() - changed > SILENCE_S:
                warned = not live_workers(app)
                changed = time.monotonic()
                if warned:
                    console.note("no worker answers: start one with `peculiar worker`; waiting for it")
    # The last batch is written a moment before its worker ends the run, which gives the q-values.
    finish_if_complete(engine, run)
    return counts


def report(result: dict[str, Any], as_json: bool, text: str) -> None:
    """Print a result as JSON or as text."""
    if as_json:
        console.write_json(result)
    else:
        click.echo(text)
