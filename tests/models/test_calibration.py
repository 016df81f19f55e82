"""p-values that keep their promise on objects drawn like the calibration set, however small it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control, genpareto, kstest

from models.calibration import COMBINED, Calibration, _pareto, benjamini_hochberg, calibration_size
from models.parts import PARTS

COMBINATION = ("misfit", "window", "rarity", "domain")


def world(n: int, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Parts of n normal objects that depend on S/N and redshift, with light, heavy and mostly-zero distributions."""
    covariates = np.stack([rng.normal(2, 1, n), rng.uniform(0, 0.5, n)], 1)
    snr, redshift = covariates.T
    parts = {
        "misfit": 0.1 * snr + np.exp(-0.3 * snr) * rng.gumbel(size=n),
        "window": rng.standard_t(4, n) + redshift,
        "rarity": rng.chisquare(6, n),
        "domain": np.where(rng.random(n) < 0.01, rng.exponential(size=n), 0.0),
    }
    return parts, covariates


def p_values(calibration: Calibration, parts: dict[str, np.ndarray], covariates: np.ndarray) -> np.ndarray:
    return calibration.p_value(calibration.combine(calibration.surprisals(parts, covariates)))


def fitted(n: int, seed: int) -> Calibration:
    return Calibration.fit(*world(n, np.random.default_rng([n, seed])), COMBINATION)


@pytest.mark.parametrize(("n", "repetitions"), [(18, 40), (60, 30), (300, 15)])
def test_false_positive_rates_are_the_promised_ones(n: int, repetitions: int) -> None:
    """Averaged over calibration sets: never above α (but for chance), and below it by less than one binomial error.

    p-values are multiples of 1 / (n + 1), so the rate to expect is α rounded down to one.
    """
    rng = np.random.default_rng([7, n])
    p = np.array([p_values(fitted(n, seed), *world(500, rng)) for seed in range(repetitions)])
    for alpha in (0.05, 0.1, 0.2):
        expected = np.floor(alpha * (n + 1) + 1e-9) / (n + 1)
        rates = (p <= alpha).mean(1)
        chance = np.sqrt(expected * (1 - expected) * (1 / n + 1 / 500) / repetitions)
        assert rates.mean() <= expected + 3 * chance
        assert rates.mean() >= expected - np.sqrt(alpha * (1 - alpha) / n) - 3 * chance


def test_p_values_are_uniform() -> None:
    """Kolmogorov and Smirnov: no distance that a calibration set of 1000 would not have by chance."""
    p = p_values(fitted(1000, 1), *world(1000, np.random.default_rng(8)))
    assert kstest(p, "uniform").statistic < 1.63 * np.sqrt(2 / 1000)  # 1 % level of two samples of 1000


def test_false_positive_rates_hold_for_faint_and_bright() -> None:
    parts, covariates = world(3000, np.random.default_rng(9))
    p = p_values(fitted(1000, 2), parts, covariates)
    for third in np.array_split(np.argsort(covariates[:, 0]), 3):
        assert (p[third] <= 0.1).mean() == pytest.approx(0.1, abs=3.5 * np.sqrt(0.09 * (1 / 1000 + 1 / 333)))


@pytest.mark.parametrize("n", [5, 18, 300])
def test_p_values_are_in_range(n: int) -> None:
    calibration = fitted(n, 3)
    assert calibration.smallest_p == 1 / (n + 1)
    parts, covariates = world(50, np.random.default_rng(1))
    for extreme in (1e300, 1e6, 0.0, -1e6, -1e300):
        parts["window"][:] = extreme
        surprisals = calibration.surprisals(parts, covariates)
        p = calibration.p_value(calibration.combine(surprisals))
        each = calibration.part_p_values(surprisals).values()
        for value in (p, *each):
            assert (value >= calibration.smallest_p).all() and (value <= 1).all()
        if extreme >= 1e6:
            assert (p == calibration.smallest_p).all()


def test_scores_keep_their_order_beyond_the_calibration_set() -> None:
    """Where all p-values are the smallest one, a more extreme object still has a larger score."""
    calibration = fitted(300, 4)
    parts, covariates = world(20, np.random.default_rng(2))
    parts["misfit"] = np.geomspace(1e2, 1e8, 20)
    covariates[:] = covariates[0]
    assert (np.diff(calibration.combine(calibration.surprisals(parts, covariates))) > 0).all()


def test_surprisal_is_monotone_and_continuous() -> None:
    calibration = fitted(300, 5)
    parts, covariates = world(4001, np.random.default_rng(2))
    covariates[:] = [2, 0.2]
    parts = {name: np.linspace(value.min(), value.max() + 1, 4001) for name, value in parts.items()}
    for name in ("misfit", "window", "rarity"):
        steps = np.diff(calibration.surprisals(parts, covariates)[name])
        assert (steps >= 0).all() and steps.max() < 0.1


def test_ties_are_no_surprise() -> None:
    """A part that is zero for nearly all objects says nothing of those, and much of the others."""
    calibration = fitted(300, 6)
    parts, covariates = world(2, np.random.default_rng(3))
    parts["domain"] = np.array([0.0, 0.5])
    surprisal = calibration.surprisals(parts, covariates)["domain"]
    assert surprisal[0] < 0.1 and surprisal[1] > 1


def test_a_constant_part_is_harmless() -> None:
    parts, covariates = world(40, np.random.default_rng(4))
    for value in parts.values():
        value[:] = 3.0
    covariates[:] = 1.0
    p = p_values(Calibration.fit(parts, covariates, COMBINATION), parts, covariates)
    assert (p == 1).all()


def test_anomalies_in_the_calibration_set_do_not_hide_others() -> None:
    parts, covariates = world(500, np.random.default_rng(5))
    parts["misfit"][:10] += 100
    calibration = Calibration.fit(parts, covariates, COMBINATION)
    test, where = world(200, np.random.default_rng(6))
    test["misfit"] += 100
    assert (p_values(calibration, test, where) <= 11 / 501 + 5 / 501).mean() > 0.95


def test_too_few_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5 held-out objects, got 4"):
        fitted(4, 0)


@pytest.mark.parametrize("shape", [0.0, 0.2, 0.5])
def test_the_tail_is_a_generalised_pareto(shape: float) -> None:
    excess = genpareto(shape, scale=2.0).rvs(20000, random_state=1)
    assert _pareto(excess) == pytest.approx((shape, 2.0), abs=0.08)


def test_benjamini_and_hochberg_1995() -> None:
    """Their own example (section 3.2): 15 p-values, of which 4 are discoveries at a rate of 0.05."""
    p = np.array([
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
        0.7590, 1.0,
    ])  # fmt: skip
    order = np.random.default_rng(0).permutation(len(p))
    q = benjamini_hochberg(p[order])
    assert sorted(p[order][q <= 0.05]) == [0.0001, 0.0004, 0.0019, 0.0095]
    np.testing.assert_allclose(q, false_discovery_control(p[order]))


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_q_values_are_scipys_ties_included(n: int) -> None:
    p = np.ceil(50 * np.random.default_rng(1).random(n)) / 50
    q = benjamini_hochberg(p)
    np.testing.assert_allclose(q, false_discovery_control(p) if n else np.zeros(0))
    assert (q >= p).all() and (q <= 1).all()


@pytest.mark.parametrize(
    ("discoveries", "n", "fdr"), [(1, 1000, 0.1), (10, 1000, 0.1), (3, 12345, 0.05), (5, 100, 0.2)]
)
def test_calibration_size_is_just_enough(discoveries: int, n: int, fdr: float) -> None:
    """k objects at the smallest p among n ordinary ones pass with so many calibration objects, not with one fewer."""
    size = calibration_size(discoveries, n, fdr)
    for m, enough in ((size, True), (size - 1, False)):
        p = np.concatenate([np.full(discoveries, 1 / (m + 1)), np.full(n - discoveries, 0.9)])
        assert ((benjamini_hochberg(p) <= fdr).sum() == discoveries) == enough


def test_the_combination_is_made_of_parts() -> None:
    assert all(set(names) <= set(PARTS) for names in COMBINED.values())
