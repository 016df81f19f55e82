"""One class of real spectra as normal, another as anomalous: AUROC of the score, its parts and the baselines.

    python benchmarks/real_spectra.py FOLDER [--folds 4]

FOLDER holds SDSS spectra and an index.csv with the columns file, label (GALAXY, QSO, STAR, SKY), spectrograph and
object_id. The normal class is split by object into folds: each is scored by a model trained on the others, with the
defaults of `peculiar train`, and the anomalous class by all of them. Nothing is chosen by what is printed here.
Figures are means over the folds; the interval is a bootstrap over the objects of all folds.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch

from models.baselines import baseline_scores
from models.batch import SpectrumBatch
from models.fit import fit_spectra
from models.metrics import RANKING
from models.scorer import Scorer
from workers.batching import Sample, make_batch
from workers.evaluation import prepared
from workers.training import read_samples

TASKS = (
    ("GALAXY", "QSO", "SDSS"),
    ("QSO", "GALAXY", "SDSS"),
    ("QSO", "STAR", "BOSS"),
    ("GALAXY", "SKY", "SDSS"),
    ("QSO", "SKY", "SDSS"),
)
N_BOOTSTRAP = 500


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--folds", type=int, default=4)
    options = parser.parse_args()
    with (options.folder / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    samples, _ = read_samples("spectrum", [str(options.folder / row["file"]) for row in rows])
    by_path = {sample.path: sample for sample in samples}
    known = [(row, by_path[p]) for row in rows if (p := str(options.folder / row["file"])) in by_path]
    for normal, anomalous, spectrograph in TASKS:
        chosen = [(row, s) for row, s in known if row["spectrograph"] == spectrograph]
        measure(
            [(row["object_id"], s) for row, s in chosen if row["label"] == normal],
            [s for row, s in chosen if row["label"] == anomalous],
            f"{spectrograph}: {normal} normal, {anomalous} anomalous",
            options.folds,
        )


def measure(normal: list[tuple[str, Sample]], anomalies: list[Sample], title: str, folds: int) -> None:
    """Print one task's figures."""
    objects = sorted({object_id for object_id, _ in normal})
    np.random.default_rng(0).shuffle(objects)
    results: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
    chi2: list[list[float]] = []
    for k in range(folds):
        held = set(objects[k::folds])
        train = [s for object_id, s in normal if object_id not in held]
        test = [s for object_id, s in normal if object_id in held]
        batch = make_batch(train)
        if not isinstance(batch, SpectrumBatch):
            raise TypeError("spectra give a spectrum batch")
        bundle = fit_spectra(batch, "fold", fingerprint="", seed=k)
        scorer = Scorer.from_parts(bundle, torch.device("cpu"))
        scores = scorer.score(make_batch(test + anomalies))
        order = np.argsort(scores.snr[: len(test)])
        chi2.append([float(np.median(third)) for third in np.array_split(scores.chi2[: len(test)][order], 3)])
        parts = {name: v for name, v in scores.parts.items() if not name.endswith("_p")}
        base = baseline_scores(prepared(scorer, train), prepared(scorer, test + anomalies))
        y = np.array([0] * len(test) + [1] * len(anomalies))
        results.append((y, {"score": scores.score, **parts, **base}))
    print(f"\n{title}: {len(normal)} and {len(anomalies)} spectra, {len(objects)} normal objects")
    print("  held-out χ²/dof by third of S/N:", *(f"{value:.2f}" for value in np.mean(chi2, axis=0)))
    for name in results[0][1]:
        value = np.mean([RANKING["auroc"](y, found[name]) for y, found in results])
        low, high = np.quantile(
            [_resampled(results, name, seed) for seed in range(N_BOOTSTRAP)], [0.025, 0.975]
        )
        print(f"  {name:18s} AUROC {value:.3f} ({low:.3f}–{high:.3f})")


def _resampled(results: list[tuple[np.ndarray, dict[str, np.ndarray]]], name: str, seed: int) -> float:
    rng = np.random.default_rng(seed)
    values = []
    for y, found in results:
        groups = (np.flatnonzero(y == 0), np.flatnonzero(y == 1))
        index = np.concatenate([rng.choice(group, len(group)) for group in groups])
        values.append(RANKING["auroc"](y[index], found[name][index]))
    return float(np.mean(values))


if __name__ == "__main__":
    main()
