"""The `peculiar` command. Each subcommand is a module of this package, imported only when it is called."""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

from peculiar import __version__

# Name → one line of help. The module service.cli.<name> holds a click command or group called `command`.
COMMANDS = {
    "demo": "The whole job on simulated data, start to finish.",
    "simulate": "Write survey-like FITS files with planted anomalies, and the truth.",
    "pack": "Pack many small files into one that is read much faster.",
    "train": "Train a model on a set of files.",
    "score": "Score files and write them to the catalog.",
    "outliers": "List the most anomalous objects.",
    "explain": "Draw one object with what makes it an outlier.",
    "digest": "List what a night brought.",
    "neighbours": "List the objects most like one, or like a file.",
    "clusters": "List the latent clusters with their lens fractions.",
    "label": "Record human labels.",
    "export": "Write the catalog as parquet, FITS, VOTable or CSV.",
    "evaluate": "Measure how well known anomalies are found.",
    "nightly": "Score every new file under the configured folders, now.",
    "watch": "Score files as they arrive in landing folders.",
    "runs": "List the runs, or explain every file of one.",
    "status": "Show the queue, the workers, the last runs, failures by reason.",
    "settings": "Show the settings in force and where each came from.",
    "serve": "Serve the HTTP API and the page.",
    "worker": "Work on what the broker hands out.",
    "beat": "Start the nightly run every day.",
    "models": "List the models; promote one, or roll back.",
    "retrain": "Train on the last nights; promote where the result is no worse.",
    "rescore": "Put past nights through another model.",
    "keys": "Add, list and revoke keys of the HTTP API.",
    "db": "Upgrade or check the catalog's schema.",
}


class Peculiar(click.Group):
    """A group whose help needs none of its commands, and whose commands need none of each other."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"service.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; every error that it leaves becomes one line and exit code 1."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:  # the outermost frame: a user gets a sentence, --debug gets the traceback
            if ctx.params["debug"]:
                raise
            from service.cli.console import explain

            raise click.ClickException(explain(error)) from error


@click.command(
    cls=Peculiar, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="peculiar")
@click.option("--debug", is_flag=True, help="Show tracebacks and what goes on.")
def main(debug: bool) -> None:
    """Find what survey astronomers have never seen before, in spectra and image cutouts."""
    from service.cli.console import start_logging
    from workers.memory import keep_freed_memory

    keep_freed_memory()
    # Before torch and scikit-learn load OpenMP: threads that spin while they wait make a busy machine crawl.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    start_logging("info" if debug else None)
