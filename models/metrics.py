"""How well scores find known anomalies, each figure with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

FALSE_POSITIVE_RATE = 0.01
N_BOOTSTRAP = 200


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured figure and its central 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FalsePositives:
    """Share of normal objects with p ≤ alpha in one third of them, and its binomial standard error."""

    third: str
    n: int
    alpha: float
    rate: float
    standard_error: float


def precision_at(k: int) -> Callable[[np.ndarray, np.ndarray], float]:
    """Share of anomalies among the k highest scores (all of them where there are fewer)."""

    def precision(y: np.ndarray, score: np.ndarray) -> float:
        return float(y[np.argsort(-score, kind="stable")[:k]].mean())

    return precision


def recall_at_false_positives(y: np.ndarray, score: np.ndarray) -> float:
    """Share of anomalies that score above all but 1 % of the normal objects."""
    normal = np.sort(score[y == 0])
    threshold = normal[len(normal) - 1 - int(FALSE_POSITIVE_RATE * len(normal))]
    return float((score[y == 1] > threshold).mean())


RANKING: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "auroc": lambda y, score: float(roc_auc_score(y, score)),
    "auprc": lambda y, score: float(average_precision_score(y, score)),
    "precision_at_10": precision_at(10),
    "precision_at_100": precision_at(100),
    "recall_at_1pc_fpr": recall_at_false_positives,
}
"""Figures of a ranking, by name: each takes y (n,) of 0 and 1, and scores (n,)."""


def ranking_figures(y: np.ndarray, score: np.ndarray, seed: int = 0) -> dict[str, Figure]:
    """Every figure of RANKING for y (n,) of 0 and 1 and scores (n,), larger meaning more anomalous.

    Raises ValueError unless both normal and anomalous objects are there.
    """
    if len(np.unique(y)) < 2:
        raise ValueError("a ranking is measured on normal and anomalous objects, only one of them is here")
    return {name: _bootstrapped(figure, y, score, seed) for name, figure in RANKING.items()}


def false_discovery_proportion(y: np.ndarray, q_value: np.ndarray, fdr: float, seed: int = 0) -> Figure:
    """Share of normal objects among those with q-values up to ``fdr``; 0 when there are none."""

    def proportion(index: np.ndarray) -> float:
        found = q_value[index] <= fdr
        return float((found & (y[index] == 0)).sum() / max(1, found.sum()))

    return bootstrap(proportion, y, seed)


def false_positive_rates(
    p_value: np.ndarray, by: np.ndarray, alphas: tuple[float, ...] = (0.01, 0.05, 0.1)
) -> list[FalsePositives]:
    """Share of normal objects with p ≤ α in each third of ``by``, with the binomial standard error.

    ``p_value`` and ``by`` are (n,) over normal objects; the thirds are from low to high.
    """
    rows = []
    for third, index in zip(
        ("low", "middle", "high"), np.array_split(np.argsort(by, kind="stable"), 3), strict=True
    ):
        for alpha in alphas:
            n = len(index)
            rate = float((p_value[index] <= alpha).mean()) if n else float("nan")
            error = float(np.sqrt(alpha * (1 - alpha) / n)) if n else float("nan")
            rows.append(FalsePositives(third, n, alpha, rate, error))
    return rows


def _bootstrapped(
    figure: Callable[[np.ndarray, np.ndarray], float], y: np.ndarray, score: np.ndarray, seed: int
) -> Figure:
    return bootstrap(lambda index: figure(y[index], score[index]), y, seed)


def bootstrap(figure: Callable[[np.ndarray], float], y: np.ndarray, seed: int) -> Figure:
    """A figure of row indices, resampled within the normal and within the anomalous objects."""
    rng = np.random.default_rng(seed)
    normal, anomalous = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
    values = [
        figure(np.concatenate([rng.choice(group, len(group)) for group in (normal, anomalous) if len(group)]))
        for _ in range(N_BOOTSTRAP)
    ]
    low, high = np.quantile(values, [0.025, 0.975])
    return Figure(figure(np.arange(len(y))), float(low), float(high))
