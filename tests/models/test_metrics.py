"""Figures against scikit-learn and against numbers counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from models.metrics import (
    RANKING,
    bootstrap,
    false_discovery_proportion,
    false_positive_rates,
    precision_at,
    ranking_figures,
    recall_at_false_positives,
)

RNG = np.random.default_rng(0)


def ranking(n: int = 1000, n_anomalous: int = 50) -> tuple[np.ndarray, np.ndarray]:
    y = np.zeros(n, int)
    y[:n_anomalous] = 1
    return y, RNG.normal(size=n) + 2 * y


def test_figures_are_scikit_learns() -> None:
    y, score = ranking()
    figures = ranking_figures(y, score)
    assert figures["auroc"].value == roc_auc_score(y, score)
    assert figures["auprc"].value == average_precision_score(y, score)
    assert set(figures) == set(RANKING)
    for figure in figures.values():
        assert figure.low <= figure.value <= figure.high


@pytest.mark.parametrize("n", [51, 100, 149, 150, 250, 1050])
@pytest.mark.parametrize("digits", [1, 9])
def test_recall_is_the_roc_curve_at_1_percent(n: int, digits: int) -> None:
    """The best true-positive rate with at most 1 % false positives; ties count against it."""
    y, score = ranking(n)
    score = score.round(digits)
    false, true, _ = roc_curve(y, score, drop_intermediate=False)
    assert recall_at_false_positives(y, score) == pytest.approx(true[false <= 0.01].max())


def test_precision_by_hand() -> None:
    y = np.array([1, 0, 1, 0, 0])
    score = np.array([5.0, 4, 3, 2, 1])
    assert precision_at(1)(y, score) == 1
    assert precision_at(3)(y, score) == pytest.approx(2 / 3)
    assert precision_at(10)(y, score) == 0.4


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """The mean of 40 anomalies about 2: of 60 intervals of 95 %, fewer than 51 hold it once in a thousand times."""
    held = 0
    for _ in range(60):
        y, score = ranking(80, 40)
        figure = bootstrap(lambda index, x=y * score: float(x[index].sum() / 40), y, seed=1)
        held += figure.low <= 2 <= figure.high
    assert held >= 51


def test_one_class_cannot_be_ranked() -> None:
    with pytest.raises(ValueError, match="normal and anomalous"):
        ranking_figures(np.zeros(5), np.arange(5.0))


def test_false_discovery_proportion_by_hand() -> None:
    y = np.array([1, 1, 0, 0, 0])
    assert false_discovery_proportion(y, np.array([0.01, 0.05, 0.1, 0.5, 1]), 0.1).value == pytest.approx(
        1 / 3
    )
    assert false_discovery_proportion(y, np.ones(5), 0.1).value == 0


def test_false_positive_rates_by_thirds() -> None:
    by = np.arange(30)[::-1]
    p = np.where(by < 10, 0.04, 0.5)  # all of the lowest third
    rows = {(r.third, r.alpha): r for r in false_positive_rates(p, by)}
    assert rows["low", 0.05].rate == 1 and rows["low", 0.01].rate == 0
    assert rows["middle", 0.05].rate == rows["high", 0.1].rate == 0
    assert rows["low", 0.05].n == 10
    assert rows["low", 0.05].standard_error == pytest.approx(np.sqrt(0.05 * 0.95 / 10))


def test_false_positive_rates_of_nothing_are_nan() -> None:
    assert all(np.isnan(r.rate) and r.n == 0 for r in false_positive_rates(np.zeros(0), np.zeros(0)))
