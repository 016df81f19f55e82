"""Why an object is an outlier: where it departs from its reconstruction, and which parts make its score."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from models.batch import Batch
from models.explanation import Explanation
from models.prepared import Prepared
from models.scorer import Scorer
from models.vae import VAE, Posterior, normaliser

STEPS = 50
LARGEST_STEP = 0.5
"""Of the posterior's mean along its whitened axes, in σ, and of its log variances; falls to 0 over the steps."""


def explain(scorer: Scorer, batch: Batch) -> Explanation:
    """Explain one object, a batch of length 1, just as the catalog keeps it for outliers.

    Raises ValueError for a batch of another length.
    """
    if len(batch) != 1:
        raise ValueError(f"an explanation is of one object, this batch has {len(batch)}")
    (data,) = scorer.score(batch, explained_p=1.0).explanations
    return Explanation.from_bytes(data or b"")


def likelihood_regret(scorer: Scorer, batch: Batch) -> float:
    """How far the encoder's answer for one object, a batch of length 1, is from the best, in nats; ≥ 0.

    The gain of the ELBO over the posterior's mean and stretch (Xiao, Yan & Amit 2020, eq. 5, with the decoder kept as
    it is), by Adam from the encoder's answer. Large for an object that the decoder can draw and the encoder did not
    recognise. A model without networks has the exact posterior, and nothing to regret.

    Raises ValueError for a batch of another length.
    """
    if len(batch) != 1:
        raise ValueError(f"the regret is of one object, this batch has {len(batch)}")
    data, model = scorer.prepare(batch), scorer.fitted.model
    with torch.no_grad():
        weight = model.weight(data)
        q = model.encode(data, weight)
    seek, judge = (_points(model.n_latent, seed).to(q.mean.device) for seed in (0, 1))
    # whitened, since the widths of a bright object's posterior span four decades
    shift = torch.zeros_like(q.mean, requires_grad=True)
    stretch = torch.zeros_like(q.mean, requires_grad=True)
    adam = torch.optim.Adam([shift, stretch], lr=LARGEST_STEP)
    cooling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 1 / STEPS, STEPS)
    bounds = []
    for _ in range(STEPS):
        adam.zero_grad()
        moved = _moved(q, shift, stretch)
        with torch.no_grad():
            bounds.append(float(_elbo(model, data, weight, moved, judge)))
        (-_elbo(model, data, weight, moved, seek)).backward()
        adam.step()
        cooling.step()
    with torch.no_grad():
        bounds.append(float(_elbo(model, data, weight, _moved(q, shift, stretch), judge)))
    return max(bounds) - bounds[0]


def _points(n_latent: int, seed: int) -> Tensor:
    """(2 L, L) draws of a standard normal whose mean is 0 and whose covariance is the identity exactly.

    ±√L along the axes of a random frame (the cubature rule of Arasaratnam & Haykin 2009): what is linear in the
    latent is then averaged without error, so that chance draws hold no gain.
    """
    generator = torch.Generator().manual_seed(seed)
    frame = torch.linalg.qr(torch.randn((n_latent, n_latent), generator=generator, dtype=torch.float64)).Q
    return math.sqrt(n_latent) * torch.cat([frame, -frame])


def _moved(q: Posterior, shift: Tensor, stretch: Tensor) -> Posterior:
    """The posterior moved by ``shift`` (1, L) of its σ, with ``stretch`` (1, L) added to its log variances."""
    mean = q.mean + torch.einsum("nki,nk->ni", q.whitener, shift)
    return replace(q, mean=mean, stretch=q.stretch * stretch.exp())


def _elbo(model: VAE, data: Prepared, weight: Tensor, q: Posterior, eps: Tensor) -> Tensor:
    """E_q[log p(x|z)] − KL(q ‖ p) of one object, nats, over draws ``eps`` (k, L)."""
    misfit = model.misfit(data, weight, q.sample(eps)).mean()
    return (-0.5 * (misfit + normaliser(weight)) - q.kl()).sum()
