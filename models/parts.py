"""The separate anomaly scores of one object: how badly it is reconstructed, where, and how rare its latent is.

Every part is larger for a more anomalous object. Nothing here is calibrated: models.calibration turns the parts
into p-values and joins them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from models.fitted import Fitted
from models.prepared import Prepared
from models.vae import LOG_2PI, VAE, Posterior, normaliser

PARTS = (
    "misfit", "window", "quiet", "surprise", "rarity", "remoteness", "divergence", "domain", "flow", "appearance",
)  # fmt: skip
"""All there are; spectra have no appearance, and small training sets no flow."""
N_DRAWS = 4
"""Samples of the importance-weighted bound, in pairs on either side of the posterior mean. 16 would raise it by 1 nat
for spectra and 4 for cutouts, at four times the cost."""
LONGEST_WINDOW = {1: 64, 2: 8}
"""By the number of axes: bins of a spectrum, pixels on a side of a cutout. Windows double from 1 up to it, and in
the longest too little scatter is looked for."""


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
    parts: dict[str, Tensor]
    """By name, each (n,)."""


def weigh(fitted: Fitted, data: Prepared) -> Evidence:
    """Every part for n prepared objects, each independent of the others in the batch."""
    model, shape = fitted.model, fitted.shape
    weight = model.weight(data)
    # sign: 1 where measured, 0 elsewhere, and several times as fast as a comparison on a CPU
    seen = weight.sign()
    measured = seen.sum(1).double()
    q = model.encode(data, weight)
    residual = model.left_over(data.x, q.mean).mul_(weight.sqrt())
    chi2 = (residual**2).sum(1, dtype=torch.float64) / (measured - model.n_latent).clamp(min=1)
    # relative to a perfect reconstruction, so that the noise level and the coverage drop out
    relative_elbo, relative_log_px = _bounds(model, data, weight, q, measured)
    best = -0.5 * (normaliser(weight) + measured)
    joint = fitted.mixture.log_joint(q.mean, q.covariance)
    log_density = torch.logsumexp(joint, 1)
    # the mixture is where latents really lie, and so the better prior
    relative_log_px = relative_log_px + q.log_evidence_gain(fitted.mixture, joint)
    parts = {
        "misfit": chi2.clamp(min=1e-3).log(),
        "window": _worst_window(residual, seen, shape).log(),
        "quiet": -_quietest(residual, seen, shape),
        "surprise": -relative_log_px / measured.clamp(min=1).sqrt(),
        "rarity": -log_density,
        "remoteness": _remoteness(q.mean, fitted.neighbours),
        "divergence": q.kl(),
        "domain": data.outside,
    }
    if fitted.flow is not None:
        parts["flow"] = -fitted.flow.log_prob(q.mean.float())
    if fitted.appearance is not None and data.image is not None and data.seen is not None:
        parts["appearance"] = fitted.appearance.strangeness(data.image, data.seen)
    return Evidence(
        best + relative_elbo, best + relative_log_px, log_density, chi2, q.mean, q.variance,
        torch.softmax(joint, 1), residual, parts,
    )  # fmt: skip


def _bounds(
    model: VAE, data: Prepared, weight: Tensor, q: Posterior, measured: Tensor
) -> tuple[Tensor, Tensor]:
    """ELBO and importance-weighted bound over ``best``, (n,) nats, under the prior N(0, I).

    The draws are the same for every object and call.
    """
    generator = torch.Generator().manual_seed(0)
    half = torch.randn((N_DRAWS // 2, model.n_latent), generator=generator, dtype=torch.float64)
    log_likelihood, log_weight = [], []
    for eps in torch.cat([half, -half]).to(q.mean.device, non_blocking=True):
        z = q.sample(eps)
        likelihood = 0.5 * (measured - model.misfit(data, weight, z))
        log_likelihood.append(likelihood)
        prior = -0.5 * (z**2).sum(1) - 0.5 * model.n_latent * LOG_2PI
        log_weight.append(likelihood + prior - q.log_prob(eps))
    elbo = torch.stack(log_likelihood).mean(0) - q.kl()
    return elbo, torch.logsumexp(torch.stack(log_weight), 0) - math.log(N_DRAWS)


def _remoteness(latent: Tensor, near: Tensor) -> Tensor:
    """Log of the root mean square distance to the ten nearest of ``near``, (n,)."""
    squared = (latent**2).sum(1, keepdim=True) - 2 * latent @ near.T + (near**2).sum(1)
    nearest = squared.topk(min(10, len(near)), dim=1, largest=False).values.clamp(min=0)
    return 0.5 * (nearest.mean(1) + 1e-6).log()


def _worst_window(residual: Tensor, seen: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Largest |Σ residual| / √(measured values) over windows of all sizes, (n,) float64, at least 1e-3."""
    image, seen = residual.reshape(-1, *shape), seen.reshape(-1, *shape)
    worst = [torch.full((len(residual),), 1e-6, device=residual.device)]
    for total, count in zip(window_sums(image), window_sums(seen), strict=True):
        worst.append((total * total).div_(count.clamp(min=1)).flatten(1).amax(1))
    return torch.stack(worst).amax(0).double().sqrt()


def _quietest(residual: Tensor, seen: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Smallest mean square of neighbouring differences over well-measured windows, (n,) float64; 1 without any.

    Lost, copied or compressed data scatter less than their noise plane says.
    """
    image, seen = residual.reshape(-1, *shape), seen.reshape(-1, *shape)
    smallest = torch.ones(len(residual), device=residual.device)
    for axis in range(2, image.dim()):
        rest = image.shape[axis] - 1
        if rest < 1:
            continue
        both = seen.narrow(axis, 1, rest) * seen.narrow(axis, 0, rest)
        step = (image.narrow(axis, 1, rest) - image.narrow(axis, 0, rest)).mul_(both)
        power, count = (list(window_sums(a))[-1] for a in (step.mul_(step), both))
        length = step.shape[2] - power.shape[2] + 1  # of the longest window that fits
        enough = count > 0.5 * length ** (image.dim() - 2)
        quiet = torch.where(enough, power / (2 * count).clamp(min=1), 1.0)
        smallest = torch.minimum(smallest, quiet.flatten(1).amin(1))
    return smallest.double()


def window_sums(image: Tensor) -> Iterator[Tensor]:
    """Sums of (n, channels, …) over every window that fits, of length (or side) 1, 2, 4 … up to LONGEST_WINDOW."""
    axes = range(2, image.dim())
    length = 1
    yield image
    while 2 * length <= min(LONGEST_WINDOW[len(axes)], *(image.shape[axis] + length - 1 for axis in axes)):
        for axis in axes:
            rest = image.shape[axis] - length
            image = image.narrow(axis, 0, rest) + image.narrow(axis, length, rest)
        length *= 2
        yield image
