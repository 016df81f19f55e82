"""The VAE without networks against dense linear algebra, and with them against torch.distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.distributions import MultivariateNormal, kl_divergence

from models.networks import WIDTHS, Decoder, Encoder
from models.prepared import Prepared
from models.vae import VAE, Posterior

N, N_VALUES, L = 6, 40, 3


def some_data(dtype: torch.dtype = torch.float64) -> Prepared:
    """Uneven noise, a third of the values missing, one object with none and one with a single value."""
    g = torch.Generator().manual_seed(0)
    ivar = torch.rand((N, N_VALUES), generator=g, dtype=dtype) * 50
    ivar[torch.rand((N, N_VALUES), generator=g) < 0.3] = 0
    ivar[1] = 0
    ivar[2, 1:] = 0
    ivar[2, 0] = 10
    x = 1 + torch.randn((N, N_VALUES), generator=g, dtype=dtype)
    noise_index = torch.randint(0, 5, (N, N_VALUES), generator=g)
    return Prepared(x, ivar, noise_index, np.ones(N), np.ones((N, 2)), np.zeros(N))


def linear_model(dtype: torch.dtype = torch.float64) -> VAE:
    g = torch.Generator().manual_seed(1)
    model = VAE(
        torch.ones(N_VALUES, dtype=dtype), torch.randn((N_VALUES, L), generator=g, dtype=dtype), 5
    ).to(dtype)
    with torch.no_grad():
        model.log_noise_scale.copy_(0.3 * torch.randn(5, generator=g))
        model.log_jitter.copy_(-1 + 0.2 * torch.randn(N_VALUES, generator=g))
    return model


def full_model(shape: tuple[int, ...] = (1, N_VALUES), kind: str = "spectrum") -> VAE:
    """With networks, whose last layers are moved from their zeros."""
    torch.manual_seed(2)
    n_values = math.prod(shape)
    networks = (Encoder(shape, L, WIDTHS[kind]), Decoder(shape, L, WIDTHS[kind]))
    model = VAE(torch.ones(n_values), torch.randn((n_values, L)), 5, *networks)
    for last in (networks[0].head[-1], networks[1].deconvolutions[-1]):
        torch.nn.init.normal_(last.weight, std=0.1)
    return model


def dense_log_pdf(model: VAE, data: Prepared, row: int) -> float:
    """log N(x; mean, W Wᵀ + Ψ) over the measured values of one object."""
    good = (data.ivar[row] > 0).numpy()
    if not good.any():
        return 0.0
    basis = model.basis.detach().numpy()[good]
    variance = model.variance(data)[0][row].detach().numpy()[good]
    normal = multivariate_normal(model.mean.detach().numpy()[good], basis @ basis.T + np.diag(variance))
    return float(normal.logpdf(data.x[row].numpy()[good]))


def test_the_variance_is_the_documented_one() -> None:
    model, data = linear_model(), some_data()
    variance, weight = model.variance(data)
    good = data.ivar > 0
    scale = model.log_noise_scale.exp()[data.noise_index] ** 2
    expected = scale / data.ivar + model.log_jitter.exp() ** 2
    torch.testing.assert_close(variance[good], expected[good])
    torch.testing.assert_close(weight[good], 1 / expected[good])
    assert (weight[~good] == 0).all()


def test_the_linear_evidence_is_the_dense_normal_density() -> None:
    model, data = linear_model(), some_data()
    expected = [dense_log_pdf(model, data, row) for row in range(N)]
    np.testing.assert_allclose(model.linear_log_px(data).detach(), expected, rtol=1e-10, atol=1e-10)


def test_the_linear_posterior_is_the_conditional_normal() -> None:
    """Of the joint normal of z and the measured x, by the textbook's Schur complement."""
    model, data = linear_model(), some_data()
    q = model.encode(data)
    for row in range(N):
        good = data.ivar[row] > 0
        basis = model.basis[good]
        gain = torch.linalg.solve(basis @ basis.T + torch.diag(model.variance(data)[0][row, good]), basis).T
        torch.testing.assert_close(q.mean[row], gain @ (data.x[row, good] - 1))
        torch.testing.assert_close(q.covariance[row], torch.eye(L, dtype=torch.float64) - gain @ basis)


def test_every_importance_weight_of_the_exact_posterior_is_the_evidence() -> None:
    """p(x, z) / q(z|x) = p(x) at any z, so one draw of the importance-weighted bound is exact."""
    model, data = linear_model(), some_data()
    q = model.encode(data)
    for seed in range(3):
        eps = 3 * torch.randn((N, L), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        z = q.sample(eps)
        prior = -0.5 * (z**2).sum(1) - 0.5 * L * math.log(2 * math.pi)
        weight = model.log_likelihood(data, z) + prior - q.log_prob(eps)
        torch.testing.assert_close(weight, model.linear_log_px(data))


def test_the_elbo_of_the_exact_posterior_is_the_evidence() -> None:
    """±√L along each axis has the normal's mean and covariance, so that its average of a quadratic is exact."""
    model, data = linear_model(), some_data()
    axes = math.sqrt(L) * torch.eye(L, dtype=torch.float64)
    eps = torch.cat([axes, -axes])[:, None, :].expand(-1, N, -1)
    torch.testing.assert_close(model.elbo(data, eps), model.linear_log_px(data))


def test_the_elbo_of_another_posterior_is_lower() -> None:
    model = full_model()
    data = some_data(torch.float32)
    model.decoder = None  # the posterior is then wrong for a model whose evidence is known
    eps = torch.randn((4000, 1, L), generator=torch.Generator().manual_seed(0)).expand(-1, N, -1)
    with torch.no_grad():
        gap = model.linear_log_px(data) - model.elbo(data, eps)
    assert (gap > -0.1).all() and (gap > 0.5).any()


def test_kl_and_log_prob_are_those_of_torch_distributions() -> None:
    g = torch.Generator().manual_seed(3)
    factor = torch.randn((N, L, L), generator=g, dtype=torch.float64).tril()
    factor.diagonal(dim1=1, dim2=2).abs_().add_(0.2)
    mean, stretch = (torch.randn((N, L), generator=g, dtype=torch.float64) for _ in range(2))
    q = Posterior(mean, factor, stretch.exp())
    theirs = MultivariateNormal(mean, q.covariance)
    prior = MultivariateNormal(torch.zeros(L, dtype=torch.float64), torch.eye(L, dtype=torch.float64))
    torch.testing.assert_close(q.kl(), kl_divergence(theirs, prior))
    torch.testing.assert_close(q.variance, theirs.variance)
    eps = torch.randn((N, L), generator=g, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(eps), theirs.log_prob(q.sample(eps)))


def test_samples_have_the_posteriors_covariance() -> None:
    q = full_model().encode(some_data(torch.float32))
    eps = torch.randn((20000, N, L), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = torch.stack([q.sample(e) for e in eps])
        torch.testing.assert_close(torch.cov(z[:, 0].T), q.covariance[0], rtol=0.1, atol=0.02)


@pytest.mark.parametrize(("shape", "kind"), [((1, N_VALUES), "spectrum"), ((2, 9, 9), "cutout")])
def test_gradients_reach_every_parameter(shape: tuple[int, ...], kind: str) -> None:
    model = full_model(shape, kind)
    n_values = math.prod(shape)
    g = torch.Generator().manual_seed(4)
    data = Prepared(
        torch.randn((8, n_values), generator=g), torch.rand((8, n_values), generator=g),
        (torch.arange(n_values) % 5)[None], np.ones(8), np.ones((8, 2)), np.zeros(8),
    )  # fmt: skip
    model.elbo(data, torch.randn((1, 8, L), generator=g)).mean().backward()
    silent = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert silent == []


@pytest.mark.parametrize(
    "shape", [(1, 7), (1, 64), (1, 1000), (1, 3), (2, 24, 24), (1, 1, 1), (3, 5, 5), (2, 31, 31)]
)
def test_networks_fit_any_grid_and_start_as_nothing(shape: tuple[int, ...]) -> None:
    widths = WIDTHS["spectrum" if len(shape) == 2 else "cutout"]
    n_values = math.prod(shape)
    torch.manual_seed(0)
    encoder, decoder = Encoder(shape, L, widths), Decoder(shape, L, widths)
    correction = encoder(torch.randn((3, 2, n_values)), torch.randn((3, L)))
    assert correction.shape == (3, 2 * L) and not correction.any()
    values = decoder(torch.randn((3, L)))
    assert values.shape == (3, n_values) and not values.any()


def test_missing_values_do_not_matter() -> None:
    model, data = full_model(), some_data(torch.float32)
    other = some_data(torch.float32)
    other.x[other.ivar == 0] = 1e6
    eps = torch.randn((2, N, L), generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.elbo(data, eps), model.elbo(other, eps))
