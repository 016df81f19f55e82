"""The VAE without networks against dense linear algebra, and with them against torch.distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from models.networks import make_networks
from models.prepared import LARGEST, Prepared
from models.vae import VAE, Posterior, normaliser

N, N_VALUES, L = 6, 40, 3


def some_data() -> Prepared:
    """Uneven noise, a third of the values missing, one object with none and one with a single value."""
    g = torch.Generator().manual_seed(0)
    ivar = torch.rand((N, N_VALUES), generator=g) * 50
    ivar[torch.rand((N, N_VALUES), generator=g) < 0.3] = 0
    ivar[1] = 0
    ivar[2, 1:] = 0
    ivar[2, 0] = 10
    x = 1 + torch.randn((N, N_VALUES), generator=g)
    noise_index = torch.randint(0, 5, (N, N_VALUES), generator=g)
    return Prepared(x, ivar, noise_index, torch.ones(N), torch.ones((N, 2)), torch.zeros(N))


def linear_model() -> VAE:
    g = torch.Generator().manual_seed(1)
    model = VAE(torch.ones(N_VALUES), torch.randn((N_VALUES, L), generator=g), 5)
    with torch.no_grad():
        model.log_noise_scale.copy_(0.3 * torch.randn(5, generator=g))
        model.log_jitter.copy_(-1 + 0.2 * torch.randn(N_VALUES, generator=g))
    return model


def full_model(shape: tuple[int, ...] = (1, N_VALUES)) -> VAE:
    """With networks, whose last layers are moved from their zeros."""
    torch.manual_seed(2)
    n_values = math.prod(shape)
    networks = make_networks(shape, L)
    model = VAE(torch.ones(n_values), torch.randn((n_values, L)), 5, *networks)
    for network in networks:
        *_, last = (layer for layer in network.modules() if hasattr(layer, "weight"))
        torch.nn.init.normal_(last.weight, std=0.1)
    return model


def dense_log_pdf(model: VAE, data: Prepared, row: int) -> float:
    """log N(x; mean, W Wᵀ + Ψ) over the measured values of one object."""
    good = (data.ivar[row] > 0).numpy()
    if not good.any():
        return 0.0
    mean, basis, weight = (
        a.detach().double().numpy()[good] for a in (model.mean, model.basis, model.weight(data)[row])
    )
    normal = multivariate_normal(mean, basis @ basis.T + np.diag(1 / weight))
    return float(normal.logpdf(data.x[row].double().numpy()[good]))


def test_the_weight_is_the_inverse_of_the_documented_variance() -> None:
    model, data = linear_model(), some_data()
    weight = model.weight(data)
    good = data.ivar > 0
    scale = model.log_noise_scale.exp()[data.noise_index] ** 2
    expected = scale / data.ivar + model.log_jitter.exp() ** 2
    torch.testing.assert_close(weight[good], 1 / expected[good])
    assert (weight[~good] == 0).all()


def test_misfit_and_normaliser_make_the_normal_density_of_the_measured_values() -> None:
    model, data = linear_model(), some_data()
    weight = model.weight(data)
    z = torch.randn((N, L), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = Normal(model.decode(z), weight.clamp(min=1e-9) ** -0.5).log_prob(data.x)
    expected = torch.where(weight > 0, expected, 0.0).sum(1, dtype=torch.float64)
    torch.testing.assert_close(-0.5 * (model.misfit(data, weight, z) + normaliser(weight)), expected)


def test_a_frozen_model_says_the_same() -> None:
    model, data = full_model(), some_data()
    weight = model.weight(data)
    before = model.encode(data, weight), model.linear_log_px(data)
    model.freeze()
    after = model.encode(data, model.weight(data)), model.linear_log_px(data)
    assert torch.equal(before[0].mean, after[0].mean) and torch.equal(before[1], after[1])
    assert not after[1].requires_grad


def test_the_linear_evidence_is_the_dense_normal_density() -> None:
    model, data = linear_model(), some_data()
    expected = [dense_log_pdf(model, data, row) for row in range(N)]
    np.testing.assert_allclose(model.linear_log_px(data).detach(), expected, rtol=1e-5, atol=1e-4)


def test_the_linear_posterior_is_the_conditional_normal() -> None:
    """Of the joint normal of z and the measured x, by the textbook's Schur complement."""
    model, data = linear_model(), some_data()
    weight = model.weight(data)
    q = model.encode(data, weight)
    for row in range(N):
        good = data.ivar[row] > 0
        basis = model.basis[good].double()
        gain = torch.linalg.solve(basis @ basis.T + torch.diag(1 / weight[row, good].double()), basis).T
        expected = torch.eye(L, dtype=torch.float64) - gain @ basis
        torch.testing.assert_close(q.covariance[row], expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(q.mean[row], gain @ (data.x[row, good].double() - 1), rtol=1e-5, atol=1e-6)


def test_bright_objects_have_the_posterior_of_least_squares() -> None:
    """Weights of 10⁸, solved by orthogonal factors in double precision: within a hundredth of its own error."""
    model, data = linear_model(), some_data()
    with torch.no_grad():
        data.ivar *= 1e8
        model.log_jitter.fill_(-20)
        weight = model.weight(data)
        q = model.encode(data, weight)
        for row in range(N):
            root = weight[row].double().sqrt()[:, None]
            design = torch.cat([root * model.basis, torch.eye(L, dtype=torch.float64)])
            right = torch.cat([root * (data.x[row].double() - 1)[:, None], torch.zeros(L, 1)])
            expected = torch.linalg.lstsq(design, right, driver="gelsd").solution[:, 0]
            assert float(((q.mean[row] - expected) / q.variance[row].sqrt()).abs().max()) < 0.01
            factor = torch.linalg.qr(design).R
            covariance = torch.linalg.inv(factor.T @ factor)
            torch.testing.assert_close(q.covariance[row], covariance, rtol=1e-4, atol=1e-8)


def test_every_importance_weight_of_the_exact_posterior_is_the_evidence() -> None:
    """p(x, z) / q(z|x) = p(x) at any z, so one draw of the importance-weighted bound is exact."""
    model, data = linear_model(), some_data()
    weight = model.weight(data)
    q = model.encode(data, weight)
    for seed in range(3):
        eps = 3 * torch.randn((N, L), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        z = q.sample(eps)
        prior = -0.5 * (z**2).sum(1) - 0.5 * L * math.log(2 * math.pi)
        likelihood = -0.5 * (model.misfit(data, weight, z) + normaliser(weight))
        torch.testing.assert_close(
            likelihood + prior - q.log_prob(eps), model.linear_log_px(data), rtol=1e-5, atol=1e-3
        )


def test_the_elbo_of_the_exact_posterior_is_the_evidence() -> None:
    """±√L along each axis has the normal's mean and covariance, so that its average of a quadratic is exact."""
    model, data = linear_model(), some_data()
    axes = math.sqrt(L) * torch.eye(L, dtype=torch.float64)
    eps = torch.cat([axes, -axes])[:, None, :].expand(-1, N, -1)
    torch.testing.assert_close(model.elbo(data, eps), model.linear_log_px(data), rtol=1e-5, atol=1e-3)


def test_the_elbo_of_another_posterior_is_lower() -> None:
    model, data = full_model(), some_data()
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
    q = Posterior(mean, factor, torch.linalg.inv(factor), stretch.exp())
    theirs = MultivariateNormal(mean, q.covariance)
    prior = MultivariateNormal(torch.zeros(L, dtype=torch.float64), torch.eye(L, dtype=torch.float64))
    torch.testing.assert_close(q.kl(), kl_divergence(theirs, prior))
    torch.testing.assert_close(q.variance, theirs.variance)
    eps = torch.randn((N, L), generator=g, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(eps), theirs.log_prob(q.sample(eps)))


def test_samples_have_the_posteriors_covariance() -> None:
    model, data = full_model(), some_data()
    q = model.encode(data, model.weight(data))
    eps = torch.randn((20000, N, L), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = torch.stack([q.sample(e) for e in eps])
        torch.testing.assert_close(torch.cov(z[:, 0].T), q.covariance[0], rtol=0.1, atol=0.02)


@pytest.mark.parametrize("shape", [(1, N_VALUES), (2, 9, 9)])
def test_gradients_reach_every_parameter(shape: tuple[int, ...]) -> None:
    model = full_model(shape)
    n_values = math.prod(shape)
    g = torch.Generator().manual_seed(4)
    data = Prepared(
        torch.randn((8, n_values), generator=g), torch.rand((8, n_values), generator=g),
        (torch.arange(n_values) % 5)[None], torch.ones(8), torch.ones((8, 2)), torch.zeros(8),
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
    n_values = math.prod(shape)
    torch.manual_seed(0)
    encoder, decoder = make_networks(shape, L)
    correction = encoder(torch.randn((3, 2, n_values)), torch.randn((3, L)))
    assert correction.shape == (3, 2 * L) and not correction.any()
    values = decoder(torch.randn((3, L)))
    assert values.shape == (3, n_values) and not values.any()


def test_missing_values_do_not_matter() -> None:
    model, data, other = full_model(), some_data(), some_data()
    other.x[other.ivar == 0] = LARGEST
    eps = torch.randn((2, N, L), generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.elbo(data, eps), model.elbo(other, eps))
