"""Fitting a VAE: the linear part by its exact marginal likelihood, then the network by the ELBO.

The network is kept only when it raises the ELBO of objects held out from training, so that a model of few objects
is factor analysis and never worse.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.networks import make_networks
from models.prepared import Prepared
from models.vae import VAE

Vary = Callable[[Prepared, np.random.Generator], Prepared]
"""Other objects as likely as those given: what training makes of each batch."""
Progress = Callable[[str, int, int, float], None]
"""Called with the stage's name, epochs done, epochs planned and the held-out figure in nats per value."""

MIN_FOR_NETWORK = 500
"""Training objects below which the network is not tried: its held-out gain could not be measured."""
LINEAR_EPOCHS = 30


class Resume:
    """A checkpoint file that lets an interrupted training go on; without a path it does nothing."""

    def __init__(self, path: Path | None, fingerprint: str) -> None:
        self.path = path
        self.fingerprint = fingerprint

    def load(self) -> dict[str, Any]:
        """The saved state of the same training (same inputs, same options), or an empty dict."""
        if self.path is None or not self.path.exists():
            return {}
        state = torch.load(self.path, weights_only=True)
        return state if state.get("fingerprint") == self.fingerprint else {}

    def save(self, **state: Any) -> None:
        if self.path is None:
            return
        partial = self.path.with_suffix(".part")
        torch.save({"fingerprint": self.fingerprint, **state}, partial)
        partial.replace(self.path)

    def done(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def choose_n_latent(n_train: int) -> int:
    """Latent dimensions that n training objects can carry: 2 to 24, one for every six objects."""
    return int(np.clip(n_train // 6, 2, 24))


def fit_linear(
    train: Prepared,
    held_out: Prepared,
    n_noise: int,
    n_latent: int,
    seed: int,
    progress: Progress,
    resume: Resume,
) -> VAE:
    """Maximise Σ log p(x) of the linear-Gaussian model by Adam from a weighted-PCA start, then refit its noise.

    The priors on basis and scales regularise it, so it needs no early stopping, and held-out objects set two numbers
    only.
    """
    mean, basis = _weighted_pca(train, n_latent, seed)
    model = VAE(mean, basis, n_noise)

    def loss(data: Prepared, share: float) -> Tensor:
        # the priors keep what few objects determine near zero (basis) and near the pipeline's own noise (scales)
        prior = 0.5 * (model.basis**2).sum() + 0.5 * (model.log_noise_scale**2).sum() / 0.3**2
        return -model.linear_log_px(data).mean() + prior * share

    groups = [
        {"params": [model.mean, model.basis], "lr": 3e-3},
        {"params": [model.log_noise_scale, model.log_jitter], "lr": 3e-2},
    ]
    # small sets take more passes, so that the number of steps stays reasonable
    epochs = int(np.clip(LINEAR_EPOCHS * 1500 / len(train), LINEAR_EPOCHS, 300))
    _descend(
        model,
        groups,
        loss,
        model.linear_log_px,
        train,
        held_out,
        epochs,
        seed,
        "linear",
        progress,
        resume,
    )
    refit_noise(model, held_out)
    return model


def refit_noise(model: VAE, held_out: Prepared) -> None:
    """Scale the jitter so that the median held-out object has a χ² of 1 per degree of freedom.

    Residuals of new objects are larger than those of training objects, the more so the fewer were trained on. The
    median does not see anomalies among the held-out objects.
    """
    some = held_out.rows(slice(0, 400))
    start = model.log_jitter.detach().clone()
    low, high = -3.0, 3.0
    with torch.no_grad():
        for _ in range(12):
            middle = (low + high) / 2
            model.log_jitter.copy_(start + middle)
            low, high = (middle, high) if float(_chi2(model, some).median()) > 1 else (low, middle)


def _chi2(model: VAE, data: Prepared) -> Tensor:
    """χ² per degree of freedom of the reconstruction, (n,)."""
    weight = model.weight(data)
    misfit = model.misfit(data, weight, model.encode(data, weight).mean)
    return misfit / ((weight > 0).sum(1) - model.n_latent).clamp(min=1)


def fit_network(
    linear: VAE, train: Prepared, held_out: Prepared, shape: tuple[int, ...], epochs: int, seed: int,
    progress: Progress, resume: Resume, vary: Vary | None = None,
) -> tuple[VAE, dict[str, float]]:  # fmt: skip
    """Add the networks and maximise the ELBO; the linear model comes back unless that helps held-out objects.

    It helps when the mean gain is over twice its standard error.

    Also returns the held-out log p(x) of the linear model and the held-out ELBO of the network, nats per object.
    """
    with torch.no_grad():
        before = float(_typical(_evaluate(linear.linear_log_px, held_out)))
    figures = {"held_out_linear_log_px": before}
    if len(train) < MIN_FOR_NETWORK or epochs == 0:
        return linear, figures
    torch.manual_seed(seed)
    model = VAE(
        linear.mean.detach().clone(), linear.basis.detach().clone(), len(linear.log_noise_scale),
        *make_networks(shape, linear.n_latent),
    )  # fmt: skip
    model.load_state_dict(linear.state_dict(), strict=False)
    generator = torch.Generator().manual_seed(seed)

    def loss(data: Prepared, share: float) -> Tensor:
        eps = torch.randn((1, len(data), model.n_latent), generator=generator, dtype=torch.float64)
        return -model.elbo(data, eps).mean() + 0.5 * share * (model.basis**2).sum()

    # the same points for every object and epoch; signs have the unit variance that a few normal draws would miss
    coins = torch.randint(0, 2, (2, 1, model.n_latent), generator=torch.Generator().manual_seed(0))
    signs = 2.0 * coins - 1.0
    points = torch.cat([signs, -signs])
    networks = [*model.encoder.parameters(), *model.decoder.parameters()]  # type: ignore[union-attr]  # just built
    core = [model.mean, model.basis, model.log_noise_scale, model.log_jitter]
    groups = [{"params": networks, "lr": 2e-3}, {"params": core, "lr": 1e-3}]

    def figure(data: Prepared) -> Tensor:
        return model.elbo(data, points.expand(-1, len(data), -1))

    # untrained, the network says what the linear model says: judged by the same points, their error cancels
    with torch.no_grad():
        untrained = _evaluate(figure, held_out)
    _descend(
        model,
        groups,
        loss,
        figure,
        train,
        held_out,
        epochs,
        seed,
        "network",
        progress,
        resume,
        vary,
        best=True,
    )
    with torch.no_grad():
        # without what was worst before, which may be anomalies; chosen by the gain itself it would bias the mean
        usual = untrained.argsort()[len(untrained) // 20 :]
        gain = (_evaluate(figure, held_out) - untrained)[usual]
    figures["held_out_network_elbo"] = before + float(gain.mean())
    convincing = float(gain.mean()) > 2 * float(gain.std()) / math.sqrt(len(gain))
    if not convincing:
        return linear, figures
    refit_noise(model, held_out)
    return model, figures


def _descend(
    model: VAE, groups: list[dict[str, Any]], loss: Callable[[Prepared, float], Tensor],
    figure: Callable[[Prepared], Tensor], train: Prepared, held_out: Prepared, epochs: int, seed: int, stage: str,
    progress: Progress, resume: Resume, vary: Vary | None = None, best: bool = False,
) -> None:  # fmt: skip
    """Adam with one learning-rate cycle; ``best`` leaves the best held-out state in the model instead of the last."""
    batch = min(128, max(16, len(train) // 4))
    steps = math.ceil(len(train) / batch)
    optimizer = torch.optim.Adam(groups)
    total = epochs * steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [g["lr"] for g in groups], total_steps=total, pct_start=max(0.2, 2 / total)
    )
    highest, best_state, first = -math.inf, copy.deepcopy(model.state_dict()), 0
    if saved := resume.load().get(stage):
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        highest, best_state, first = saved["highest"], saved["best_state"], saved["epoch"]
    for epoch in range(first, epochs):
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(train))
        for k in range(0, len(train), batch):
            rows = train.rows(order[k : k + batch])
            rows = rows if vary is None else vary(rows, random)
            optimizer.zero_grad()
            loss(rows, 1 / len(train)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1e3)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            now = float(_typical(_evaluate(figure, held_out)))
        if now > highest:
            highest, best_state = now, copy.deepcopy(model.state_dict())
        progress(stage, epoch + 1, epochs, now)
        resume.save(**{
            **{k: v for k, v in resume.load().items() if k != "fingerprint"},
            stage: {
                "model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
                "highest": highest, "best_state": best_state, "epoch": epoch + 1,
            },
        })  # fmt: skip
    if best:
        model.load_state_dict(best_state)


def _evaluate(figure: Callable[[Prepared], Tensor], data: Prepared, size: int = 512) -> Tensor:
    return torch.cat([figure(data.rows(slice(k, k + size))) for k in range(0, len(data), size)])


def _typical(figures: Tensor) -> Tensor:
    """Mean without the lowest 5 %: anomalies hidden among the objects must not steer what is chosen by it."""
    return figures.sort().values[len(figures) // 20 :].mean()


def _weighted_pca(data: Prepared, n_latent: int, seed: int) -> tuple[Tensor, Tensor]:
    """Mean (n_values,) and basis (n_values, L) of unit-variance latents by alternating weighted least squares.

    The model is x ≈ mean + W z with weights 1 / (1/ivar + 0.1²) (Bailey 2012, PASP 124, 1015).
    """
    weight = torch.where(data.ivar > 0, 1 / (1 / data.ivar.clamp(min=1e-12) + 0.01), 0.0)
    total = weight.sum(0)
    mean = (weight * data.x).sum(0) / total.clamp(min=1e-12)
    residual = torch.where(weight > 0, data.x - mean, 0.0)
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn((len(data), n_latent), generator=generator)
    basis = torch.zeros((data.x.shape[1], n_latent))
    for _ in range(12):
        basis = _regress(weight.T, (weight * residual).T @ z, z, float(total.median()) * 1e-2 + 1e-3)
        # 1e-6: half of the objects may have nothing measured
        z = _regress(weight, (weight * residual) @ basis, basis, float(weight.sum(1).median()) * 1e-4 + 1e-6)
        # keep the latents uncorrelated with unit variance, which is the prior they are about to meet
        z = z - z.mean(0)
        values, vectors = torch.linalg.eigh(z.T @ z / len(z))
        z = (z @ vectors / values.clamp(min=1e-8).sqrt()).clamp(-5, 5)
    basis = _regress(weight.T, (weight * residual).T @ z, z, float(total.median()) * 1e-2 + 1e-3)
    return mean, basis


def _regress(weight: Tensor, right: Tensor, design: Tensor, ridge: float) -> Tensor:
    """Rows b minimising Σ_j weight_ij (y_ij − design_j·b)² + ridge |b|², given right = (weight·y) @ design."""
    n_latent = design.shape[1]
    outer = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    normal = (weight @ outer).reshape(-1, n_latent, n_latent) + ridge * torch.eye(n_latent)
    return torch.linalg.solve(normal, right.unsqueeze(2)).squeeze(2)
