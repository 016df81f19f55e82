"""`peculiar simulate`: survey-like files with planted anomalies, and the truth."""

from __future__ import annotations

from pathlib import Path

import click

from service.cli import console


@click.command
@click.argument("kind", type=click.Choice(["spectrum", "cutout"]))
@click.option("--n", type=click.IntRange(min=1), required=True, help="How many objects.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write to."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--anomaly-rate", type=click.FloatRange(0, 1), default=0.02, show_default=True, help="Share of anomalies."
)
def command(kind: str, n: int, out: Path, seed: int, anomaly_rate: float) -> None:
    """Write N objects of KIND as FITS files in a survey's layout, and OUT/truth.csv."""
    from workers.simulate import simulate

    with console.progress(n, f"simulating {kind}") as update:
        truth = simulate(kind, n, out, seed, anomaly_rate=anomaly_rate, progress=update)
    click.echo(truth)
