"""What the commands share: messages, progress bars, tables, JSON, and errors in one line."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from service.logs import JsonLines, TextLines, hide_passwords

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class OneLine(logging.Formatter):
    """Log records without their tracebacks, for a person who waits for a command."""

    def formatException(self, ei: Any) -> str:
        return ""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).rstrip()
        if record.exc_info and record.exc_info[1]:
            text += f": {record.exc_info[1]}"
        return hide_passwords(text)


def start_logging(level: str | None = None) -> None:
    """Log to standard error: only warnings, in a line each; with a ``level`` from there on, with tracebacks.

    The first is for a person who waits for a command, the second for what runs unattended; that one is in the
    form that PECULIAR_LOG_FORMAT asks for.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_unattended() if level else OneLine("%(levelname)s: %(message)s"))
    logging.basicConfig(level=(level or "warning").upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # What Celery's own loggers have to say, our own messages and the failure rows say better.
    logging.getLogger("celery").setLevel(logging.NOTSET if level else logging.CRITICAL)
    logging.getLogger("py.warnings").setLevel(logging.NOTSET if level else logging.ERROR)


def _unattended() -> logging.Formatter:
    from pydantic import ValidationError

    try:
        return JsonLines() if load_settings().log_format == "json" else TextLines()
    except ValidationError:  # the command itself will say which setting is wrong
        return TextLines()


def note(message: str) -> None:
    """A remark to the person, on standard error."""
    click.echo(message, err=True)


def fail(message: str) -> click.ClickException:
    """What to raise for exit code 1 with one line."""
    return click.ClickException(message)


def explain(error: Exception) -> str:
    """One line, or a few, that say what to do about an error."""
    return hide_passwords(_explained(error))


def _explained(error: Exception) -> str:
    module = type(error).__module__.split(".")[0]
    text = " ".join(str(error).split()) or type(error).__name__
    if module == "pydantic_core":
        return _explain_settings(error)
    if module == "sqlalchemy":
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        return f"the catalog does not answer or refuses: {reason} (PECULIAR_DATABASE_URL says where it is)"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror or text}"
    if isinstance(error, OSError | ValueError) or module in ("service", "workers", "models"):
        return text
    return (
        f"internal error, {type(error).__name__}: {text}. `peculiar --debug …` shows where; please report it"
    )


def _explain_settings(error: Any) -> str:
    if error.title != "Settings":
        return " ".join(str(error).split())
    problems = [
        f"PECULIAR_{str(e['loc'][0]).upper()}: {e['msg']} (it is {e['input']!r})" for e in error.errors()
    ]
    return "wrong settings: " + "; ".join(problems)


def write_json(value: Any) -> None:
    """Print ``value`` as JSON on standard output; dates and paths as text, non-finite numbers as null."""
    click.echo(json.dumps(_plain(value), default=str, allow_nan=False, indent=1, ensure_ascii=False))


def login_name() -> str:
    """Who runs the command."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return value


def write_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """Print a table made for reading: numbers to the right, nothing cut off when it is not a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    rows = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row))
    console = Console() if sys.stdout.isatty() else Console(width=400)
    console.print(table)


def position(row: Mapping[str, Any]) -> str | None:
    """Right ascension and declination of a row in degrees; None where it has none."""
    return None if row["ra"] is None else f"{row['ra']:.4f} {row['dec']:+.4f}"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def progress(total: int | None, label: str) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error, silent when that is no terminal.

    Yields a function to call with the number done so far and, where they are not known before or change, the
    total and the label.
    """
    if not sys.stderr.isatty():
        yield lambda done, total=None, label=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done, total=None, label=None: bar.update(
            task, completed=done, total=total, description=label
        )


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for work in stages; yields a function to call with stage, done and total."""
    with progress(None, "starting") as update:
        yield lambda stage, done, total: update(done, total, stage)


def load_settings() -> Any:
    """The settings in force, a ``service.settings.Settings``."""
    from service.settings import Settings

    return Settings()


def require_broker(settings: Any, who: str) -> None:
    """:raises click.ClickException: where the queue lives in one process only."""
    if settings.broker_url.startswith("memory://"):
        raise fail(
            f"{who} needs a broker to talk to: set PECULIAR_BROKER_URL, such as redis://127.0.0.1:6379/0. "
            "Without one, `peculiar score` and `peculiar nightly` work in their own process"
        )


def parse_night(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """click callback: YYYY-MM-DD to a date."""
    from datetime import date

    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        msg = f"{value!r} is not a date as YYYY-MM-DD"
        raise click.BadParameter(msg) from None


def short_path(path: str | Path) -> str:
    """A path relative to the working directory where it lies below it."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
