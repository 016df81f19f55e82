"""Gaussian mixtures over the latent space: EM with full covariances, and with every object's own uncertainty.

With the posterior covariances given as noise this is extreme deconvolution (Bovy, Hogg & Roweis 2011, AnApS 5,
1657, eqs. 8-15): what is fitted is the distribution that the noisy latents were drawn from, so that a noisy
spectrum, whose latent is uncertain, is not called strange for it.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from sklearn.mixture import BayesianGaussianMixture

LOG_2PI = math.log(2 * math.pi)
TRUNCATIONS = (1, 2, 4, 8, 16, 24)
N_STARTS = 5


@dataclass(slots=True)
class Mixture:
    """Σ_k weight_k N(mean_k, covariance_k) over L dimensions."""

    weights: Tensor
    """(K,) float64, sum 1."""
    means: Tensor
    """(K, L) float64."""
    covariances: Tensor
    """(K, L, L) float64."""

    def to(self, device: torch.device) -> Mixture:
        """The same elsewhere."""
        return Mixture(self.weights.to(device), self.means.to(device), self.covariances.to(device))

    def arrays(self) -> dict[str, np.ndarray]:
        """What a bundle keeps."""
        return {k: getattr(self, k).numpy() for k in ("weights", "means", "covariances")}

    def log_joint(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """log weight_k + log N(x_i; mean_k, covariance_k + noise_i), (n, K) nats.

        ``x`` is (n, L) float64, ``noise`` (n, L, L) or None for none.
        """
        log_weights = self.weights.clamp(min=1e-300).log()
        n_latent = self.means.shape[1]
        if noise is None:
            # (x − m)ᵀ Σ⁻¹ (x − m) for all k as one matrix product with the stacked whitening matrices
            factor = cholesky(self.covariances)
            eye = torch.eye(n_latent, dtype=x.dtype, device=x.device).expand_as(factor)
            whitener = torch.linalg.solve_triangular(factor, eye, upper=False)
            stacked = whitener.reshape(-1, n_latent)
            offset = torch.einsum("kij,kj->ki", whitener, self.means).reshape(-1)
            white = (x @ stacked.T - offset).reshape(len(x), -1, n_latent)
            log_det = torch.diagonal(factor, dim1=1, dim2=2).log().sum(1)
            return log_weights - 0.5 * (white**2).sum(2) - log_det - 0.5 * n_latent * LOG_2PI
        out = []
        for k in range(len(self.weights)):
            factor = cholesky(self.covariances[k] + noise)
            white = torch.linalg.solve_triangular(factor, (x - self.means[k]).unsqueeze(2), upper=False)
            log_det = torch.diagonal(factor, dim1=1, dim2=2).log().sum(1)
            out.append(log_weights[k] - 0.5 * (white**2).sum((1, 2)) - log_det - 0.5 * n_latent * LOG_2PI)
        return torch.stack(out, 1)

    def log_prob(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """log density of each row of ``x``, convolved with its noise, (n,) nats."""
        return torch.logsumexp(self.log_joint(x, noise), 1)

    def responsibilities(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Probability of each component for each row, (n, K)."""
        return torch.softmax(self.log_joint(x, noise), 1)


def cholesky(matrices: Tensor) -> Tensor:
    """Lower factors of positive definite matrices (…, L, L), NaN of others: a device is not waited for to ask which."""
    factors, failed = torch.linalg.cholesky_ex(matrices)
    return torch.where(failed[..., None, None] > 0, torch.nan, factors)


def fit_mixture(
    x: Tensor,
    start: Tensor,
    noise: Tensor | None = None,
    *,
    prior_strength: float = 0.0,
    reg_covar: float = 1e-6,
    tol: float = 1e-3,
    max_iter: int = 100,
) -> Mixture:
    """Fit a mixture by EM from starting responsibilities.

    Args:
        x: (n, L) float64 points.
        start: (n, K) responsibilities of the first M step.
        noise: (n, L, L) covariance of each point's own uncertainty, or None.
        prior_strength: pseudo-count of an inverse-Wishart prior at the points' overall scatter. A component of few
            points then cannot shrink around them (Fraley & Raftery 2007). 0 is maximum likelihood.
        reg_covar: added to the diagonal of every covariance.
        tol: EM stops when the mean log likelihood changes by less; a warning says when it did not.

    With neither noise nor prior this is scikit-learn's ``GaussianMixture`` to rounding.

    Raises:
        ValueError: fewer points than components, non-finite points, or a covariance that is not positive definite.
    """
    n, n_latent = x.shape
    n_components = start.shape[1]
    if n < n_components:
        raise ValueError(f"a mixture of {n_components} components needs at least as many points, got {n}")
    if not torch.isfinite(x).all():
        raise ValueError("the points of a mixture must be finite")
    scatter = torch.cov(x.T, correction=0).reshape(n_latent, n_latent) if prior_strength else None
    mixture = _m_step(x, start, x.expand(n_components, n, n_latent), None, scatter, prior_strength, reg_covar)
    last = -math.inf
    for _ in range(max_iter):
        joint = mixture.log_joint(x, noise)
        log_prob = torch.logsumexp(joint, 1, keepdim=True)
        responsibility = (joint - log_prob).exp()
        expected, spread = _e_step_moments(mixture, x, noise)
        mixture = _m_step(x, responsibility, expected, spread, scatter, prior_strength, reg_covar)
        now = float(log_prob.mean())
        if not math.isfinite(now):
            raise ValueError("a covariance of the mixture is not positive definite: raise reg_covar")
        if abs(now - last) < tol:
            return mixture
        last = now
    warnings.warn(f"the mixture's EM did not converge in {max_iter} iterations", stacklevel=2)
    return mixture


def _e_step_moments(mixture: Mixture, x: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Mean (K, n, L) and covariance (K, n, L, L) of the noise-free point, given each component."""
    n_components = len(mixture.weights)
    if noise is None:
        return x.expand(n_components, *x.shape), None
    means, spreads = [], []
    for k in range(n_components):
        covariance = mixture.covariances[k]
        gain = torch.linalg.solve(covariance + noise, covariance.expand_as(noise)).transpose(1, 2)
        means.append(mixture.means[k] + (gain @ (x - mixture.means[k]).unsqueeze(2)).squeeze(2))
        spreads.append(covariance - gain @ covariance)
    return torch.stack(means), torch.stack(spreads)


def _m_step(
    x: Tensor, responsibility: Tensor, expected: Tensor, spread: Tensor | None, scatter: Tensor | None,
    prior_strength: float, reg_covar: float,
) -> Mixture:  # fmt: skip
    n_latent = x.shape[1]
    count = responsibility.sum(0) + 10 * torch.finfo(x.dtype).eps
    means = torch.einsum("nk,knl->kl", responsibility, expected) / count[:, None]
    covariances = []
    for k in range(len(count)):
        centred = expected[k] - means[k]
        total = (responsibility[:, k, None] * centred).T @ centred
        if spread is not None:
            total = total + torch.einsum("n,nij->ij", responsibility[:, k], spread[k])
        if scatter is not None:
            total = total + prior_strength * scatter
        covariances.append(total / (count[k] + (prior_strength if scatter is not None else 0.0)))
    covariance = torch.stack(covariances) + reg_covar * torch.eye(n_latent, dtype=x.dtype)
    return Mixture(count / count.sum(), means, covariance)


@dataclass(slots=True)
class Chosen:
    """A latent mixture, and what its number of components was chosen by."""

    mixture: Mixture
    held_out: dict[int, float]
    """Mean log density of held-out latents, nats, by the most components allowed."""
    dirichlet_weights: list[float]
    """Of the Dirichlet process at the chosen truncation, the largest first."""


def choose_mixture(x: Tensor, noise: Tensor, held_out: Tensor, seed: int) -> Chosen:
    """The density of latents x (n, L) with posterior covariances ``noise`` (n, L, L), all float64.

    Truncated Dirichlet-process mixtures (Blei & Jordan 2006, through scikit-learn) of ever more components are compared
    on held-out latents: the smallest truncation within a standard error of the best is chosen. Such a process does not
    choose by itself, as it uses most of what it is given. The best of five starts, which keeps the clusters the same
    from seed to seed, then becomes the start of an extreme deconvolution.
    """
    points, test = x.numpy(), held_out.numpy()
    most = max(1, len(x) // 25)
    found = {k: _dirichlet_process(points, k, seed) for k in TRUNCATIONS if k <= most}
    # the lowest 5 % may be anomalies, and must not choose
    log_density = {k: fitted.score_samples(test) for k, fitted in found.items()}
    usual = np.argsort(np.mean(list(log_density.values()), axis=0))[len(test) // 20 :]
    means = {k: float(value[usual].mean()) for k, value in log_density.items()}
    best = max(means, key=lambda k: means[k])
    behind = {k: (log_density[best] - log_density[k])[usual] for k in found}
    chosen = min(k for k in found if behind[k].mean() <= behind[k].std() / math.sqrt(len(usual)))
    fitted = _dirichlet_process(points, chosen, seed, n_init=N_STARTS)
    keep = np.argsort(-fitted.weights_)
    keep = keep[fitted.weights_[keep] * len(x) >= 1]
    start = torch.from_numpy(fitted.predict_proba(points)[:, keep])
    start = start / start.sum(1, keepdim=True).clamp(min=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # slow convergence in the last digits does not matter
        mixture = fit_mixture(
            x, start, noise, prior_strength=2.0 * x.shape[1], reg_covar=1e-4, max_iter=20, tol=1e-2
        )
    return Chosen(mixture, means, sorted(fitted.weights_.tolist(), reverse=True))


def _dirichlet_process(x: np.ndarray, truncation: int, seed: int, n_init: int = 1) -> BayesianGaussianMixture:
    from sklearn.mixture import BayesianGaussianMixture  # seconds to import, and scoring needs none of it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        return BayesianGaussianMixture(
            n_components=truncation, weight_concentration_prior_type="dirichlet_process", reg_covar=1e-3,
            random_state=seed, max_iter=200, n_init=n_init, init_params="k-means++",
        ).fit(x)  # fmt: skip
