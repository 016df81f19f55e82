"""Mixtures against scikit-learn and scipy, and what they add: noise, priors, dropped components."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from models.mixture import Mixture, cholesky, choose_mixture, fit_mixture

RNG = np.random.default_rng(1)
CENTRES = np.array([[0, 0, 0], [4, 1, 0], [-2, 3, 2.0]])
POINTS = np.concatenate([RNG.normal(size=(200, 3)) @ RNG.normal(size=(3, 3)) + c for c in CENTRES])


def some_mixture() -> Mixture:
    factors = torch.from_numpy(RNG.normal(size=(4, 3, 3)))
    covariances = factors @ factors.transpose(1, 2) + 0.1 * torch.eye(3, dtype=torch.float64)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    return Mixture(weights, torch.from_numpy(RNG.normal(size=(4, 3))), covariances)


def test_em_is_scikit_learns() -> None:
    """From the same start, one E step apart, and to the same stop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = GaussianMixture(3, max_iter=1, random_state=0, init_params="random_from_data").fit(POINTS)
    theirs = GaussianMixture(
        3, weights_init=first.weights_, means_init=first.means_, precisions_init=first.precisions_,
        tol=1e-5, max_iter=500,
    ).fit(POINTS)  # fmt: skip
    x = torch.from_numpy(POINTS)
    ours = fit_mixture(x, torch.from_numpy(first.predict_proba(POINTS)), tol=1e-5, max_iter=500)
    np.testing.assert_allclose(ours.weights, theirs.weights_, atol=1e-6)
    np.testing.assert_allclose(ours.means, theirs.means_, atol=1e-6)
    np.testing.assert_allclose(ours.covariances, theirs.covariances_, atol=1e-6)
    np.testing.assert_allclose(ours.log_prob(x), theirs.score_samples(POINTS), atol=1e-6)
    np.testing.assert_allclose(ours.responsibilities(x), theirs.predict_proba(POINTS), atol=1e-6)


def test_the_matrix_product_is_the_normal_density() -> None:
    mixture = some_mixture()
    expected = np.stack(
        [
            np.log(w) + multivariate_normal(m, c).logpdf(POINTS)
            for w, m, c in zip(
                *(t.numpy() for t in (mixture.weights, mixture.means, mixture.covariances)), strict=True
            )
        ],
        axis=1,
    )
    np.testing.assert_allclose(mixture.log_joint(torch.from_numpy(POINTS)), expected, rtol=1e-12)


def test_noise_widens_each_component() -> None:
    mixture, x = some_mixture(), torch.from_numpy(POINTS[:20])
    factor = torch.from_numpy(RNG.normal(size=(20, 3, 3)))
    noise = factor @ factor.transpose(1, 2)
    joint = mixture.log_joint(x, noise)
    for i, k in ((0, 0), (7, 3), (19, 1)):
        normal = multivariate_normal(mixture.means[k], mixture.covariances[k] + noise[i])
        assert float(joint[i, k]) == pytest.approx(float(mixture.weights[k].log()) + normal.logpdf(POINTS[i]))
    np.testing.assert_allclose(mixture.log_joint(x, 0 * noise), mixture.log_joint(x), rtol=1e-12)


def test_the_density_integrates_to_one() -> None:
    weights, means = torch.tensor([0.3, 0.7]).double(), torch.tensor([[-1.0], [2.0]]).double()
    mixture = Mixture(weights / weights.sum(), means, torch.ones((2, 1, 1), dtype=torch.float64))
    grid = torch.linspace(-10, 12, 20001, dtype=torch.float64)[:, None]
    assert float(torch.trapezoid(mixture.log_prob(grid).exp(), grid[:, 0])) == pytest.approx(1, abs=1e-9)


def test_extreme_deconvolution_finds_the_noise_free_covariance() -> None:
    """Points with noise of their own, larger than their spread in one direction for half of them."""
    rng = np.random.default_rng(2)
    n, truth = 4000, np.array([[1.0, 0.6], [0.6, 0.8]])
    noise = np.zeros((n, 2, 2))
    noise[:, 0, 0], noise[:, 1, 1] = rng.uniform(0.1, 3, n), rng.uniform(0.05, 0.5, n)
    clean = rng.multivariate_normal([1, -1], truth, n)
    x = torch.from_numpy(clean + rng.normal(size=(n, 2)) * np.sqrt(noise[:, [0, 1], [0, 1]]))
    one = torch.ones((n, 1), dtype=torch.float64)
    fitted = fit_mixture(x, one, torch.from_numpy(noise), tol=1e-7, max_iter=500)
    np.testing.assert_allclose(fitted.covariances[0], truth, atol=0.12)  # 3 σ of the estimate
    np.testing.assert_allclose(fitted.means[0], [1, -1], atol=0.08)
    naive = fit_mixture(x, one, tol=1e-7)
    assert float(naive.covariances[0, 0, 0]) > 2  # what ignoring the noise would say


def test_a_prior_keeps_a_component_of_few_points_open() -> None:
    lone = np.concatenate([POINTS[:200], [[30.0, 30, 30], [30.1, 30, 30]]])
    start = torch.zeros((202, 2), dtype=torch.float64)
    start[:200, 0], start[200:, 1] = 1, 1
    x = torch.from_numpy(lone)
    collapsed = fit_mixture(x, start).covariances[1]
    kept = fit_mixture(x, start, prior_strength=6.0).covariances[1]
    assert float(torch.linalg.det(collapsed)) < 1e-8
    scatter = np.linalg.det(np.cov(lone.T))
    assert float(torch.linalg.det(kept)) > 0.3 * scatter
    assert np.linalg.eigvalsh(kept).min() > 0.1


def round_clusters(n: int, seed: int) -> torch.Tensor:
    """n points each of three round clusters, so that the prior at the overall scatter costs little."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.concatenate([rng.normal(size=(n, 3)) + 1.5 * c for c in CENTRES]))


def little_noise(x: torch.Tensor, scale: float = 0.01) -> torch.Tensor:
    return scale * torch.eye(3, dtype=torch.float64).expand(len(x), 3, 3)


def test_the_number_of_clusters_is_found() -> None:
    """Of however many components are allowed, three hold what was drawn from three."""
    x, held_out = round_clusters(200, 1), round_clusters(50, 2)
    chosen = choose_mixture(x, little_noise(x), held_out, seed=0)
    assert list(chosen.held_out) == [1, 2, 4, 8, 16, 24]
    assert chosen.held_out[4] > max(chosen.held_out[1], chosen.held_out[2]) + 0.3
    assert len(chosen.dirichlet_weights) in chosen.held_out
    assert sum(chosen.dirichlet_weights) == pytest.approx(1)
    assert chosen.dirichlet_weights == sorted(chosen.dirichlet_weights, reverse=True)
    large = chosen.mixture.weights > 0.05
    assert int(large.sum()) == 3 and float(chosen.mixture.weights.sum()) == pytest.approx(1)
    found = chosen.mixture.responsibilities(held_out).argmax(1).reshape(3, 50)
    majority = found.mode(1).values
    assert len(set(majority.tolist())) == 3
    assert float((found == majority[:, None]).double().mean()) > 0.97


def test_one_cluster_is_enough_for_a_normal_distribution() -> None:
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(500, 3)))
    assert len(choose_mixture(x[:400], little_noise(x[:400]), x[400:], seed=0).mixture.weights) == 1


def test_anomalies_among_the_held_out_do_not_choose() -> None:
    x, held_out = round_clusters(200, 1), round_clusters(50, 2)
    expected = choose_mixture(x, little_noise(x), held_out, seed=0)
    held_out[:7] += 1e3
    found = choose_mixture(x, little_noise(x), held_out, seed=0)
    assert torch.equal(found.mixture.means, expected.mixture.means)
    assert found.held_out[4] == pytest.approx(expected.held_out[4], abs=0.3)


@pytest.mark.parametrize("n", [10, 25, 60])
def test_few_objects_give_few_clusters(n: int) -> None:
    x = torch.from_numpy(np.random.default_rng(2).permutation(POINTS)[:n])
    chosen = choose_mixture(x, little_noise(x), x[:8], seed=0)
    assert max(chosen.held_out) <= max(1, n // 25)
    assert 1 <= len(chosen.mixture.weights) <= max(1, n // 25)
    assert chosen.mixture.log_prob(x).isfinite().all()


def test_the_density_is_reproducible_and_fits_its_points() -> None:
    x, held_out = round_clusters(200, 3), round_clusters(50, 4)
    a, b = (choose_mixture(x, little_noise(x), held_out, seed=5).mixture for _ in range(2))
    assert torch.equal(a.means, b.means) and torch.equal(a.covariances, b.covariances)
    likelihood = GaussianMixture(3, random_state=0).fit(x.numpy()).score(x.numpy())
    assert float(a.log_prob(x, little_noise(x)).mean()) == pytest.approx(likelihood, abs=0.05)


def test_impossible_mixtures_are_refused() -> None:
    x = torch.zeros((2, 3), dtype=torch.float64)
    with pytest.raises(ValueError, match="3 components needs at least as many points, got 2"):
        fit_mixture(x, torch.ones((2, 3), dtype=torch.float64))
    with pytest.raises(ValueError, match="finite"):
        fit_mixture(x * np.nan, torch.ones((2, 1), dtype=torch.float64))
    with pytest.raises(ValueError, match="not positive definite: raise reg_covar"):
        fit_mixture(x, torch.ones((2, 1), dtype=torch.float64), reg_covar=0.0)


def test_a_matrix_without_a_factor_is_no_number() -> None:
    """Rather than the half of a factor that looks like one; its neighbours keep theirs."""
    good, bad = (
        torch.eye(3, dtype=torch.float64),
        torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)),
    )
    factors = cholesky(torch.stack([good, bad, good]))
    assert factors[1].isnan().all() and torch.equal(factors[0], good) and torch.equal(factors[2], good)


def test_an_em_that_stops_early_says_so() -> None:
    start = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(3), len(POINTS)))
    with pytest.warns(UserWarning, match="did not converge in 2 iterations"):
        fit_mixture(torch.from_numpy(POINTS), start, tol=1e-12, max_iter=2)
