"""`peculiar evaluate`: how well known anomalies are found, beside simple baselines on the same files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from service.cli import console

HEADINGS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "precision_at_10": "prec@10",
    "precision_at_100": "prec@100",
    "recall_at_1pc_fpr": "recall@1%FPR",
}


@click.command
@click.option(
    "--truth", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with path, is_anomaly (0 or 1) and class; paths relative to its folder.",
)  # fmt: skip
@click.option("--model", help="Name or id; the newest that scored these files unless given.")
@click.option(
    "--train", "train", multiple=True, metavar="INPUT",
    help="Files to fit the baselines on, such as the model's training set; the evaluated files unless given.",
)  # fmt: skip
@console.as_json
def command(truth: Path, model: str | None, train: tuple[str, ...], as_json: bool) -> None:
    """Measure scores against a truth table, with bootstrap intervals (95 %).

    The files must have been scored. Baselines (PCA reconstruction error, PCA and a mixture, isolation forest,
    nearest neighbours) are computed on the same files in the same run.
    """
    from workers.evaluation import FDR, evaluate
    from workers.readers import find_inputs

    settings = console.load_settings()
    train_paths = find_inputs(list(train)).paths if train else []
    with console.stages() as report:
        result = evaluate(settings, truth, model, train_paths, report)
    if as_json:
        console.write_json(asdict(result))
        return
    click.echo(
        f"model {result.model}: {result.n_anomalous} anomalies among {result.n_anomalous + result.n_normal} files",
        nl=False,
    )
    click.echo(f", {result.n_unscored} without a score count as never found" if result.n_unscored else "")
    click.echo(f"baselines fitted on {result.baselines_fitted_on}\n")
    console.write_table(
        ["method", *HEADINGS.values()],
        [
            [name, *(f"{f[k].value:.3f} ({f[k].low:.3f}–{f[k].high:.3f})" for k in HEADINGS)]
            for name, f in result.methods.items()
        ],
    )
    shown = [name for name in result.methods if not name.startswith("·")]
    console.write_table(
        ["AUROC by class", *shown],
        [[kind, *(f"{by[name]:.3f}" for name in shown)] for kind, by in result.classes.items()],
    )
    console.write_table(
        ["false positives", "third", "n", "p ≤ 0.01", "p ≤ 0.05", "p ≤ 0.10"],
        [
            [
                what,
                third,
                str(mine[0].n),
                *(f"{row.rate:.3f} ± {row.standard_error:.3f}" for row in mine),
            ]
            for what, rows in result.false_positives.items()
            for third in ("low", "middle", "high")
            if (mine := [row for row in rows if row.third == third])
        ],
    )
    f = result.false_discovery
    click.echo(
        f"discoveries at q ≤ {FDR}: {result.n_discoveries}, of which false {f.value:.3f} ({f.low:.3f}–{f.high:.3f})"
    )
    resolved = "no p-value" if result.smallest_p is None else f"p-values down to {result.smallest_p:.2g}"
    click.echo(
        f"the calibration set resolves {resolved}; ten discoveries among so many files need "
        f"{result.calibration_needed:,} calibration objects"
    )
