"""The whole job on simulated data: simulate, train, score through the queue, compare with the truth, draw."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from sqlalchemy import Engine

from models.explanation import Explanation
from models.scorer import EXPLAINED_P
from service.catalog.engine import open_catalog
from service.catalog.labels import Label, record_labels
from service.catalog.queries import explained
from service.catalog.ranking import Filters, outliers
from service.drawing import bare, colour_image, draw_spectrum, ranked
from service.settings import Settings
from workers.evaluation import read_truth
from workers.simulate import simulate
from workers.training import Report, train

SIZES = {"spectrum": (1500, 600), "cutout": (1200, 500)}
"""Training objects and objects of the night, by kind."""
EPOCHS = {"spectrum": 6, "cutout": 10}
NIGHT = date(2026, 1, 1)


def simulate_all(folder: Path, report: Report) -> dict[str, dict[str, Path]]:
    """Truth tables of a training set and of a night, for both kinds: {kind: {"train": …, "night": …}}."""
    truths: dict[str, dict[str, Path]] = {}
    for kind, sizes in SIZES.items():
        truths[kind] = {}
        for seed, (what, n) in enumerate(zip(("train", "night"), sizes, strict=True), start=1):
            step = _step(report, f"simulating {kind} {what}")
            # the night has more anomalies than a real one, so that a short list shows several kinds
            rate = 0.02 if what == "train" else 0.05
            truths[kind][what] = simulate(
                kind, n, folder / what / kind, seed, anomaly_rate=rate, progress=step
            )
    return truths


def train_all(settings: Settings, truths: dict[str, dict[str, Path]], report: Report) -> list[Any]:
    """One model of each kind; returns ``Trained`` of each."""
    return [
        train(settings, kind, files_of(paths["train"]), f"demo-{kind}", EPOCHS[kind], report=report)
        for kind, paths in truths.items()
    ]


def files_of(truth: Path) -> list[str]:
    """Absolute paths of the files of a truth table."""
    return [row["path"] for row in read_truth(truth)]


def true_classes(truths: Iterable[Path]) -> dict[str, tuple[bool, str]]:
    """(is anomalous, class) by path."""
    return {
        row["path"]: (row["is_anomaly"] == "1", row["class"]) for truth in truths for row in read_truth(truth)
    }


def label_some(settings: Settings, truth: Path, by: str = "demo") -> int:
    """Label a third of the night's cutouts by their truth, as a person would who looked at them."""
    with truth.open(newline="") as file:
        rows = list(csv.DictReader(file))[::3]
    labels = [Label(row["object_id"], "lens" if row["class"] == "lens" else "not-lens", by) for row in rows]
    return record_labels(open_catalog(settings.database_url), labels)


def draw_night(
    settings: Settings,
    classes: dict[str, tuple[bool, str]],
    out: Path,
    n_spectra: int = 3,
    n_cutouts: int = 7,
) -> Path:
    """The night's most anomalous spectra and cutouts, as one picture, with what was planted in each.

    Spectra without enough light to be judged (flag ``outside-domain``) lead the list but show nothing, so the
    picture leaves them out.
    """
    engine = open_catalog(settings.database_url)
    found = {
        kind: outliers(engine, Filters(kind=kind, p=EXPLAINED_P), 50).rows for kind in ("spectrum", "cutout")
    }
    bright = [row for row in found["spectrum"] if "outside-domain" not in row["flags"]]
    figure = Figure(figsize=(11, 2.5 * n_spectra + 2.3), layout="constrained")
    heights = [2.5] * n_spectra + [2.3]
    parts: Any = figure.subfigures(n_spectra + 1, 1, height_ratios=heights)
    for part, row in zip(parts[:-1], bright, strict=False):
        explanation = _explanation(engine, row)
        draw_spectrum(part.subplots(2, 1, sharex=True, height_ratios=(2, 1)), explanation)
        lead = ranked(explanation.shares)[0][0]
        part.suptitle(
            f"{row['object_id']}   score {row['score']:.1f}, mostly {lead}, p = {row['p_value']:.2g}   "
            f"truth: {_planted(classes, row)}",
            fontsize=9,
        )
    axes = parts[-1].subplots(1, n_cutouts, squeeze=False)[0]
    for axis, row in zip(axes, found["cutout"], strict=False):
        explanation = _explanation(engine, row)
        axis.imshow(colour_image(explanation), origin="lower")
        bare(axis)
        lead = ranked(explanation.shares)[0][0]
        axis.set_title(f"score {row['score']:.1f}, {lead}\ntruth: {_planted(classes, row)}", fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    return out


def _explanation(engine: Engine, row: dict[str, Any]) -> Explanation:
    return Explanation.from_bytes(explained(engine, row["object_id"], row["model"], row["kind"])["data"])


def _planted(classes: dict[str, tuple[bool, str]], row: dict[str, Any]) -> str:
    anomalous, kind = classes[row["path"]]
    return kind.replace("_", " ") if anomalous else f"ordinary {kind.lower()}"


def _step(report: Report, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: report(stage, done, total)
