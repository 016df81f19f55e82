"""`peculiar demo`: the whole job on simulated data, start to finish."""

from __future__ import annotations

import time
from pathlib import Path

import click

from service.cli import console


@click.command
@click.option(
    "--dir", "folder", default="demo", show_default=True, type=click.Path(file_okay=False, path_type=Path),
    help="Where the files, the models, the catalog and the picture go.",
)  # fmt: skip
def command(folder: Path) -> None:
    """Simulate a night of spectra and cutouts, train, score through the queue, and compare with the truth."""
    from service.catalog.engine import open_catalog
    from service.catalog.queries import list_clusters
    from service.catalog.ranking import Filters, outliers
    from service.cli.clusters import write_clusters
    from service.cli.score import queue, wait
    from service.settings import Settings
    from service.submission import models_in_force, start_run
    from workers import demonstration as demo

    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    catalog = folder / "peculiar.db"
    for old in folder.glob("peculiar.db*"):
        old.unlink()
    settings = Settings(
        database_url=f"sqlite:///{catalog}", model_dir=folder / "models", broker_url="memory://"
    )
    with console.stages() as report:
        click.echo(
            "1. Simulating a training set and a night, spectra and cutouts, 5 % of the night anomalous …"
        )
        truths = demo.simulate_all(folder, report)
        click.echo("2. Training a model of each kind …")
        for trained in demo.train_all(settings, truths, report):
            n, figures = trained.bundle.spec["training"]["n_train"], trained.bundle.spec["held_out"]
            thirds = ", ".join(f"{value:.2f}" for value in figures["chi2_by_snr_third"])
            click.echo(f"   {trained.bundle.id}: {n} objects, held-out χ²/dof by third of S/N {thirds}")
    click.echo("3. Scoring the night through the queue …")
    engine = open_catalog(settings.database_url)
    paths = [path for kind in truths.values() for path in demo.files_of(kind["night"])]
    with queue(settings) as (app, check):
        run = start_run(settings, engine, app, paths, models_in_force(engine), demo.NIGHT).run
        counts = wait(engine, app, run, None, check)
    click.echo(f"   found {counts['found']} = scored {counts['scored']} + failed {counts['failed']}\n")
    classes = demo.true_classes(kind["night"] for kind in truths.values())
    for kind in truths:
        rows = outliers(engine, Filters(kind=kind), 15).rows
        console.write_table(
            ["object", "score", "p", "q", "S/N", "planted"],
            [
                [r["object_id"], r["score"], r["p_value"], r["q_value"], r["snr"], _truth(classes[r["path"]])]
                for r in rows
            ],
            title=f"The 15 most anomalous of {demo.SIZES[kind][1]} ({kind})",
        )
        right = sum(classes[r["path"]][0] for r in rows)
        click.echo(f"{right} of these 15 were planted; by chance it would be {15 * 0.05:.1f}.\n")
    n_labels = demo.label_some(settings, truths["cutout"]["night"])
    click.echo(
        f"4. {n_labels} cutouts labelled lens or not-lens, as a person would; the clusters then say:\n"
    )
    lensy = sorted(list_clusters(engine, "demo-cutout"), key=lambda c: -(c["lens_fraction"] or 0))[:6]
    write_clusters(lensy)
    picture = demo.draw_night(settings, classes, folder / "night.png")
    click.echo(f"\n5. The most anomalous, drawn: {picture}")
    click.echo(f"\nDone in {time.monotonic() - started:.0f} s. What to try next, in this folder:\n")
    click.echo(f"  export PECULIAR_DATABASE_URL=sqlite:///{catalog} PECULIAR_MODEL_DIR={folder / 'models'}")
    for kind in truths:
        click.echo(f"  peculiar evaluate --truth {truths[kind]['night']} --model demo-{kind}")
    best = outliers(engine, Filters(kind="spectrum"), 1).rows[0]["object_id"]
    click.echo(f"  peculiar explain {best}")
    click.echo("  peculiar outliers --fdr 0.1          the discoveries, one in ten of them false")
    click.echo("  peculiar export --out night.parquet")
    click.echo(
        "  peculiar serve                       a page to look at it, http://127.0.0.1:8000, and the HTTP API"
    )


def _truth(found: tuple[bool, str]) -> str:
    anomalous, kind = found
    return kind if anomalous else f"– ({kind})"
