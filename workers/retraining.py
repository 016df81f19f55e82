"""Training on the last nights, and whether what came of it may replace the model in force."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.scorer import Scorer
from service.catalog.drift import largest_gap, widest_gap
from service.catalog.engine import CatalogError, open_catalog
from service.catalog.labels import not_ordinary
from service.catalog.nights import recent_paths
from service.catalog.registry import models_in_force, promote
from service.catalog.schema import clean
from service.settings import Settings
from workers.batching import Sample
from workers.tasks import load_bundle
from workers.training import Report, Trained, batches, read_samples, train

HELD_OUT_SHARE = 0.1
MAX_HELD_OUT = 500
SMALLEST = 40
"""Files that retraining needs: 20 to train on, and 20 to judge by."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The candidate beside the model in force, on the same files, which the candidate has not seen."""

    n: int
    """Objects that both scored."""
    misfit: float
    """Mean of |ln χ²|: how far χ² per degree of freedom is from 1."""
    misfit_in_force: float
    difference: float
    """Mean over the objects of the candidate's |ln χ²| less the other's; negative is better."""
    standard_error: float
    """Of ``difference``."""
    p_value_gap: float
    """Largest distance of the candidate's p-values from uniform (Kolmogorov–Smirnov)."""
    p_value_limit: float

    @property
    def no_worse(self) -> bool:
        """χ² is as near to 1, within one standard error, and the p-values are as uniform as chance allows."""
        return self.difference <= self.standard_error and self.p_value_gap <= self.p_value_limit


@dataclass(frozen=True, slots=True)
class Retrained:
    trained: Trained
    in_force: str
    """Id of the model that is in force now."""
    verdict: Verdict | None
    """None where there was no model to compare with."""


def retrain(
    settings: Settings, kind: str, nights: int, limit: int, epochs: int | None = None, seed: int = 0,
    report: Report = lambda *_: None, by: str = "retrain",
) -> Retrained:  # fmt: skip
    """Train on at most ``limit`` files of the kind's last nights; promote the result where it is no worse.

    :raises CatalogError: when there are too few files.
    :raises ValueError: when too few of them are usable, or the model in force takes none of the held-out ones.
    """
    engine = open_catalog(settings.database_url)
    paths = recent_paths(engine, kind, nights)
    if len(paths) < SMALLEST:
        raise CatalogError(
            f"the last {nights} nights hold {len(paths)} usable files of kind {kind}, retraining needs {SMALLEST}"
        )
    held_out, rest = divide(paths, limit, seed)
    current = models_in_force(engine).get(kind)
    name = current.split("@")[0] if current else kind
    trained = train(settings, kind, rest, name, epochs, seed, report, by=by)
    if current is None or current == trained.bundle.id:
        return Retrained(trained, trained.bundle.id, None)
    labelled = not_ordinary(engine, kind)
    samples = [
        s
        for s in read_samples(kind, held_out, report)[0]
        if (clean(s.survey), clean(s.object_id)) not in labelled
    ]
    verdict = compare(load_bundle(settings, trained.bundle.id), load_bundle(settings, current), samples)
    if verdict.no_worse:
        current = promote(engine, trained.bundle.id, by)["id"]
    return Retrained(trained, current, verdict)


def divide(paths: list[str], limit: int, seed: int) -> tuple[list[str], list[str]]:
    """(held out, to train on), drawn at random."""
    order = np.random.default_rng([seed, 3]).permutation(len(paths))
    n_held_out = int(np.clip(HELD_OUT_SHARE * len(paths), SMALLEST // 2, MAX_HELD_OUT))
    chosen = order[n_held_out : n_held_out + limit]
    return [paths[i] for i in order[:n_held_out]], [paths[i] for i in chosen]


def compare(candidate: Scorer, in_force: Scorer, samples: list[Sample]) -> Verdict:
    """The two models on the same objects.

    χ² per degree of freedom is what two models have in common: their grids and stretches, and so their likelihoods,
    differ. One object in twenty may be an anomaly, and counts as much as the 95th percentile at most.

    :raises ValueError: when there is no object that both take.
    """
    misfits, others, p_values = [], [], []
    for batch in batches(candidate.kind, sorted(samples, key=lambda s: s.flux.shape)):
        try:
            new, old = candidate.score(batch), in_force.score(batch)
        except ValueError:  # not for this model: another number of bands
            continue
        misfits.append(np.abs(np.log(np.maximum(new.chi2, 1e-9))))
        others.append(np.abs(np.log(np.maximum(old.chi2, 1e-9))))
        p_values.append(new.p_value)
    if not misfits:
        raise ValueError(
            f"{in_force.id} takes none of the held-out files: promote {candidate.id} by hand, or not"
        )
    a, b = np.concatenate(misfits), np.concatenate(others)
    a, b = (np.minimum(x, np.quantile(np.concatenate([a, b]), 0.95)) for x in (a, b))
    difference = a - b
    error = float(difference.std(ddof=1) / np.sqrt(len(a))) if len(a) > 1 else 0.0
    n_calibration = round(1 / candidate.calibration.smallest_p) - 1
    return Verdict(
        n=len(a),
        misfit=float(a.mean()),
        misfit_in_force=float(b.mean()),
        difference=float(difference.mean()),
        standard_error=error,
        p_value_gap=largest_gap(np.concatenate(p_values)),
        p_value_limit=widest_gap(len(a), n_calibration),
    )
