"""The separate anomaly scores of one object: how badly it is reconstructed, where, and how rare its latent is.

Every part is larger for a more anomalous object. Nothing here is calibrated: models.calibration turns the parts
into p-values and joins them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.fitted import Fitted
from models.prepared import Prepared
from models.vae import LOG_2PI, VAE, Posterior

PARTS = (
    "misfit", "window", "quiet", "surprise", "rarity", "remoteness", "divergence", "domain", "flow", "appearance",
)  # fmt: skip
"""All there are; spectra have no appearance, and small training sets no flow."""
N_DRAWS = 8
"""Samples of the importance-weighted bound."""
WINDOWS = {1: (1, 2, 4, 8, 16, 32, 64), 2: (1, 3, 5, 9, 15)}
"""Window lengths by the number of axes: bins of a spectrum, pixels on a side of a cutout."""
QUIET = {1: 64, 2: 8}
"""Window in which too little scatter is looked for."""


@dataclass(slots=True)
class Evidence:
    """What the model says of n objects, before calibration; tensors of n rows."""

    elbo: Tensor
    log_px: Tensor
    log_density: Tensor
    chi2: Tensor
    latent: Tensor
    latent_var: Tensor
    responsibilities: Tensor
    residual: Tensor
    """(n, n_values) in σ; 0 where unmeasured."""
    parts: dict[str, np.ndarray]


def weigh(fitted: Fitted, data: Prepared) -> Evidence:
    """Every part for n prepared objects, each independent of the others in the batch."""
    model, shape = fitted.model, fitted.shape
    q = model.encode(data)
    variance, weight = model.variance(data)
    measured = (weight > 0).sum(1)
    residual = torch.where(weight > 0, data.x - model.decode(q.mean), 0.0) * weight.sqrt()
    chi2 = (residual**2).sum(1) / (measured - model.n_latent).clamp(min=1)
    elbo, log_px = _bounds(model, data, q)
    covariance = q.covariance
    latent = q.mean.double()
    log_density = fitted.density.log_prob(latent, covariance.double())
    # log p(x) relative to a perfect reconstruction, so that the noise level and the coverage drop out
    best = -0.5 * (torch.where(weight > 0, variance.log() + LOG_2PI + 1, 0.0)).sum(1)
    near = fitted.neighbours
    distance = (q.mean**2).sum(1, keepdim=True) - 2 * q.mean @ near.T + (near**2).sum(1)
    nearest = distance.topk(min(10, len(near)), dim=1, largest=False).values.clamp(min=0)
    parts = {
        "misfit": chi2.clamp(min=1e-3).log(),
        "window": _worst_window(residual, weight, shape).log(),
        "quiet": -_quietest(residual, weight, shape),
        "surprise": (best - log_px) / measured.clamp(min=1).sqrt(),
        "rarity": -log_density,
        "remoteness": 0.5 * (nearest.mean(1) + 1e-6).log(),
        "divergence": q.kl(),
        "domain": torch.from_numpy(data.outside),
    }
    if fitted.flow is not None:
        parts["flow"] = -fitted.flow.log_prob(q.mean)
    if fitted.appearance is not None:
        parts["appearance"] = fitted.appearance.strangeness(data.x, data.ivar)
    return Evidence(
        elbo, log_px, log_density, chi2, q.mean, q.variance,
        fitted.clusters.responsibilities(latent),
        residual,
        {name: value.cpu().double().numpy() for name, value in parts.items()},
    )  # fmt: skip


def _bounds(model: VAE, data: Prepared, q: Posterior) -> tuple[Tensor, Tensor]:
    """ELBO and importance-weighted bound, (n,) nats, from the same draws for every object and every call."""
    log_likelihood, log_weight = [], []
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn((N_DRAWS, model.n_latent), generator=generator, dtype=torch.float64).to(q.mean)
    for eps in draws:
        z = q.sample(eps)
        likelihood = model.log_likelihood(data, z)
        prior = -0.5 * (z**2).sum(1) - 0.5 * model.n_latent * LOG_2PI
        log_likelihood.append(likelihood)
        log_weight.append(likelihood + prior - q.log_prob(eps))
    elbo = torch.stack(log_likelihood).mean(0) - q.kl()
    return elbo, torch.logsumexp(torch.stack(log_weight), 0) - math.log(len(draws))


def _worst_window(residual: Tensor, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Largest |Σ residual| / √(measured values) over windows of all sizes, (n,), at least 1e-3."""
    image = residual.reshape(-1, *shape)
    seen = (weight > 0).to(residual.dtype).reshape(-1, *shape)
    worst = torch.full((len(residual),), 1e-3, dtype=residual.dtype, device=residual.device)
    for length in WINDOWS[len(shape) - 1]:
        if length <= min(shape[1:]):
            total, count = _sums(image, length), _sums(seen, length)
            significance = total.abs() / count.clamp(min=1).sqrt()
            worst = torch.maximum(worst, significance.flatten(1).amax(1))
    return worst


def _quietest(residual: Tensor, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Smallest mean square of neighbouring differences over well-measured windows, (n,); 1 without any.

    Lost, copied or compressed data scatter less than their noise plane says.
    """
    length = min(QUIET[len(shape) - 1], *shape[1:])
    image = residual.reshape(-1, *shape)
    seen = (weight > 0).to(residual.dtype).reshape(-1, *shape)
    smallest = torch.ones(len(residual), dtype=residual.dtype, device=residual.device)
    for axis in range(2, image.dim()):
        near, far = image.narrow(axis, 0, image.shape[axis] - 1), image.narrow(axis, 1, image.shape[axis] - 1)
        both = seen.narrow(axis, 0, image.shape[axis] - 1) * seen.narrow(axis, 1, image.shape[axis] - 1)
        if length > min(near.shape[2:]):
            continue
        power, count = _sums(both * (near - far) ** 2 / 2, length), _sums(both, length)
        enough = count > 0.5 * length ** (image.dim() - 2)
        quiet = torch.where(enough, power / count.clamp(min=1), torch.ones_like(power))
        smallest = torch.minimum(smallest, quiet.flatten(1).amin(1))
    return smallest


def _sums(image: Tensor, length: int) -> Tensor:
    """Sums over every window of ``length`` on a side that fits, channel by channel."""
    if image.dim() == 3:
        return functional.avg_pool1d(image, length, 1) * length
    return functional.avg_pool2d(image, length, 1) * length**2
