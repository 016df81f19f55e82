"""A normalising flow over the latent space: a density without the mixture's shape, as a score of its own."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
import zuko
from torch import Tensor

TRANSFORMS, HIDDEN = 4, (64, 64)
EPOCHS, PATIENCE, BATCH = 60, 6, 256
MIN_OBJECTS = 500
"""Training objects below which a flow of this size only memorises."""


class LatentFlow:
    """A masked autoregressive flow (Papamakarios et al. 2017) over standardised latents of n_latent dimensions."""

    def __init__(self, n_latent: int, location: Tensor, scale: Tensor) -> None:
        self.flow = zuko.flows.MAF(features=n_latent, transforms=TRANSFORMS, hidden_features=HIDDEN)
        self.location, self.scale = location, scale
        """(n_latent,) each: of the training latents."""

    @classmethod
    def fit(cls, mean: Tensor, covariance: Tensor, seed: int) -> LatentFlow:
        """Fit to latents drawn from their posteriors, so that it is the density of uncertain latents.

        ``mean`` is (n, n_latent), ``covariance`` (n, n_latent, n_latent), float32.
        """
        torch.manual_seed(seed)
        n, n_latent = mean.shape
        out = cls(n_latent, mean.mean(0), mean.std(0).clamp(min=1e-6))
        factor = torch.linalg.cholesky(covariance + 1e-6 * torch.eye(n_latent))
        order = torch.from_numpy(np.random.default_rng([seed, 3]).permutation(n))
        held_out, train = order[: n // 10], order[n // 10 :]
        optimizer = torch.optim.Adam(out.flow.parameters(), lr=2e-3, weight_decay=1e-5)
        best, best_state, since = -math.inf, copy.deepcopy(out.flow.state_dict()), 0
        for _ in range(EPOCHS):
            for rows in train[torch.randperm(len(train))].split(BATCH):
                drawn = mean[rows] + (factor[rows] @ torch.randn(len(rows), n_latent, 1)).squeeze(2)
                optimizer.zero_grad()
                (-out.log_prob(drawn).mean()).backward()
                torch.nn.utils.clip_grad_norm_(out.flow.parameters(), 10.0)
                optimizer.step()
            with torch.no_grad():
                # without the lowest 5 %, which may be anomalies
                now = float(out.log_prob(mean[held_out]).sort().values[len(held_out) // 20 :].mean())
            if now > best:
                best, best_state, since = now, copy.deepcopy(out.flow.state_dict()), 0
            else:
                since += 1
            if since >= PATIENCE:
                break
        out.flow.load_state_dict(best_state)
        out.flow.eval()
        return out

    def log_prob(self, z: Tensor) -> Tensor:
        """log density of latents (n, n_latent), (n,) nats."""
        log_prob: Tensor = self.flow().log_prob((z - self.location) / self.scale)
        return log_prob - self.scale.log().sum()

    def to(self, device: torch.device) -> LatentFlow:
        """Itself, elsewhere."""
        self.flow.to(device)
        self.location, self.scale = self.location.to(device), self.scale.to(device)
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """What a bundle keeps."""
        state = {f"net.{k}": v.numpy() for k, v in self.flow.state_dict().items()}
        return state | {"location": self.location.numpy(), "scale": self.scale.numpy()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Tensor]) -> LatentFlow:
        """The inverse of ``arrays``."""
        out = cls(len(arrays["location"]), arrays["location"], arrays["scale"])
        out.flow.load_state_dict({k[4:]: v for k, v in arrays.items() if k.startswith("net.")})
        out.flow.eval()
        return out
