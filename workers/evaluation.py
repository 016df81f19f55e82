"""Measuring a model on files whose truth is known, beside the baselines on the same files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from models.baselines import baseline_scores
from models.batch import CutoutBatch, SpectrumBatch
from models.calibration import calibration_size
from models.metrics import (
    RANKING,
    FalsePositives,
    Figure,
    false_discovery_proportion,
    false_positive_rates,
    ranking_figures,
)
from models.prepared import Prepared
from models.scorer import Scorer
from service.catalog.engine import open_catalog
from service.catalog.registry import find_models, list_models
from service.catalog.schema import observations, scores
from service.catalog.statements import chunks
from service.settings import Settings
from workers.batching import Sample, make_batch
from workers.tasks import load_bundle
from workers.training import Report, cutout_batches, read_samples

FDR = 0.1


@dataclass(slots=True)
class Evaluation:
    """Everything that ``peculiar evaluate`` prints."""

    model: str
    kind: str
    n_normal: int
    n_anomalous: int
    n_unscored: int
    """Files of the truth that have no score: rejected, or never scored. They count as never found."""
    methods: dict[str, dict[str, Figure]]
    """Figures by method: the model's score first, its parts, then the baselines."""
    classes: dict[str, dict[str, float]]
    """AUROC against the normal objects by class of anomaly, for each method."""
    false_positives: dict[str, list[FalsePositives]]
    """False-positive rates of the p-value by third of S/N, and of redshift for spectra."""
    false_discovery: Figure
    n_discoveries: int
    smallest_p: float | None
    """That the model's calibration set resolves."""
    calibration_needed: int
    """Calibration objects that ten discoveries among as many files need at this false-discovery rate."""
    baselines_fitted_on: str


def read_truth(path: Path) -> list[dict[str, str]]:
    """The rows of a truth table, with absolute paths.

    :raises ValueError: when a column or a path is missing or a value is not 0 or 1.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = ("path", "is_anomaly")
    if not rows or any(column not in rows[0] for column in wanted):
        raise ValueError(f"{path} needs the columns path, is_anomaly (0 or 1) and, for a breakdown, class")
    for line, row in enumerate(rows, start=2):
        if row["is_anomaly"] not in ("0", "1"):
            raise ValueError(f"{path}, line {line}: is_anomaly must be 0 or 1, it is {row['is_anomaly']!r}")
        if not row["path"]:
            raise ValueError(f"{path}, line {line}: there is no path")
        row["path"] = str((path.parent / row["path"]).absolute())
    return rows


def evaluate(
    settings: Settings, truth: Path, model: str | None = None, train_paths: Sequence[str] = (),
    report: Report = lambda *_: None,
) -> Evaluation:  # fmt: skip
    """Measure the scores in the catalog against a truth table.

    :param train_paths: what the baselines are fitted on; the evaluated files themselves unless given.
    :raises ValueError: when none of the files has been scored, or only one class is there.
    """
    rows = read_truth(truth)
    engine = open_catalog(settings.database_url)
    with engine.connect() as connection:
        model_row, found = _scored(connection, engine, [r["path"] for r in rows], model)
    n_unscored = sum(r["path"] not in found for r in rows)
    y = np.array([int(r["is_anomaly"]) for r in rows])
    scored = np.array([r["path"] in found for r in rows])

    def column(name: str) -> np.ndarray:
        lowest = -np.inf if name != "p_value" and name != "q_value" else 1.0
        return np.array([_value(found.get(r["path"]), name, lowest) for r in rows], float)

    score = column("score")
    score[~scored] = score[scored].min() - 1
    methods = {"peculiar": score}
    names = [name for name in next(iter(found.values())).parts if not name.endswith("_p")]
    for name in names:
        value = np.array([found[r["path"]].parts[name] if r["path"] in found else np.nan for r in rows])
        methods[f"· {name}"] = np.where(scored, value, np.nanmin(value) - 1)
    methods |= _baselines(settings, model_row, [r["path"] for r in rows], train_paths, report)
    normal = (y == 0) & scored
    p_value, q_value, snr = column("p_value"), column("q_value"), column("snr")
    thirds = {"S/N": false_positive_rates(p_value[normal], snr[normal])}
    if model_row["kind"] == "spectrum":
        thirds["redshift"] = false_positive_rates(p_value[normal], column("redshift")[normal])
    figures = {name: ranking_figures(y, value) for name, value in methods.items()}
    classes = np.array([r.get("class", "") for r in rows])
    breakdown = {
        str(kind): {
            name: ranking_auroc(y[(y == 0) | (classes == kind)], value[(y == 0) | (classes == kind)])
            for name, value in methods.items()
        }
        for kind in sorted(set(classes[y == 1]))
    }
    return Evaluation(
        model=model_row["id"],
        kind=model_row["kind"],
        n_normal=int((y == 0).sum()),
        n_anomalous=int(y.sum()),
        n_unscored=n_unscored,
        methods=figures,
        classes=breakdown,
        false_positives=thirds,
        false_discovery=false_discovery_proportion(y, q_value, FDR),
        n_discoveries=int((q_value <= FDR).sum()),
        smallest_p=model_row["smallest_p"],
        calibration_needed=calibration_size(10, len(rows), FDR),
        baselines_fitted_on=f"{len(train_paths)} training files" if train_paths else "the evaluated files",
    )


def ranking_auroc(y: np.ndarray, score: np.ndarray) -> float:
    """AUROC alone, for a breakdown."""
    return RANKING["auroc"](y, score)


def prepared(scorer: Scorer, samples: list[Sample]) -> Prepared:
    """All samples through a model's preprocessing, in their order.

    :raises ValueError: when there are none.
    """
    if not samples:
        raise ValueError(f"none of the files for the baselines holds a {scorer.kind} that the model takes")
    batches: list[SpectrumBatch | CutoutBatch] = (
        [make_batch(samples[k : k + 256]) for k in range(0, len(samples), 256)]
        if scorer.kind == "spectrum"
        else list(cutout_batches(samples))
    )
    return Prepared.join([scorer.preprocessing(b) for b in batches])  # type: ignore[arg-type]  # kinds match


def _scored(
    connection: sa.Connection, engine: sa.Engine, paths: list[str], name: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model and its current score rows by path."""
    candidates = find_models(engine, name) if name else list_models(engine)
    for candidate in candidates:
        found: dict[str, Any] = {}
        for some in chunks(sorted(set(paths))):
            wanted = (
                sa.select(scores, observations.c.path, observations.c.redshift)
                .join(observations, observations.c.id == scores.c.observation_id)
                .where(scores.c.model_id == candidate["id"], observations.c.path.in_(some))
                .where(observations.c.superseded.is_(False))
            )
            found |= {row.path: row for row in connection.execute(wanted)}
        if found:
            return dict(candidate), found
    whose = f"the model {name}" if name else "any model"
    raise ValueError(f"no file of the truth table has a score by {whose}: run `peculiar score` on them first")


def _value(row: Any, name: str, missing: float) -> float:
    value = None if row is None else getattr(row, name)
    return missing if value is None else float(value)


def _baselines(
    settings: Settings, model: dict[str, Any], paths: list[str], train_paths: Sequence[str], report: Report
) -> dict[str, np.ndarray]:
    scorer = load_bundle(settings, model["id"])
    samples, _ = read_samples(model["kind"], paths, report)
    samples = _fitting(scorer, samples)
    test = prepared(scorer, samples)
    train = (
        prepared(scorer, _fitting(scorer, read_samples(model["kind"], list(train_paths), report)[0]))
        if train_paths
        else test
    )
    position = {s.path: i for i, s in enumerate(samples)}
    out = {}
    for name, value in baseline_scores(train, test).items():
        lowest = value.min() - 1
        out[name] = np.array([value[position[p]] if p in position else lowest for p in paths])
    return out


def _fitting(scorer: Scorer, samples: list[Sample]) -> list[Sample]:
    """The samples that the model takes: those with its number of bands, sorted so that equal shapes are together."""
    if scorer.kind == "spectrum":
        return samples
    n_bands = scorer.preprocessing.shape[0]
    return sorted((s for s in samples if s.flux.shape[0] == n_bands), key=lambda s: s.flux.shape)
