"""Everything that training finds and that weighing an object needs, and its way into a bundle and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.appearance import Appearance
from models.flow import LatentFlow
from models.mixture import Mixture
from models.networks import WIDTHS, Decoder, Encoder
from models.vae import NETWORK_DTYPE, VAE


@dataclass(slots=True)
class Fitted:
    """A fitted density model of one kind of input."""

    kind: str
    shape: tuple[int, ...]
    """(channels, …) of one object's grid."""
    model: VAE
    density: Mixture
    """Of the latents, with their uncertainties."""
    clusters: Mixture
    """The lensing clusters."""
    neighbours: Tensor
    """(m, L) latents of training objects."""
    flow: LatentFlow | None
    """None for small training sets."""
    appearance: Appearance | None
    """Of the training cutouts; None for spectra."""

    def for_scoring(self, device: torch.device) -> Fitted:
        """On a device, with sums in double precision, so that a row does not depend on the rows beside it."""
        model = self.model.double().to(device).eval()
        for network in (model.encoder, model.decoder):
            if network is not None:
                network.to(NETWORK_DTYPE)
        return Fitted(
            self.kind,
            self.shape,
            model,
            self.density.to(device),
            self.clusters.to(device),
            self.neighbours.double().to(device),
            self.flow.to(device, torch.float64) if self.flow else None,
            self.appearance.to(device) if self.appearance else None,
        )

    def describe(self) -> dict[str, Any]:
        """What ``from_arrays`` has to know beside the arrays, for the bundle's JSON."""
        return {
            "n_latent": self.model.n_latent,
            "n_noise": len(self.model.log_noise_scale),
            "convolutional": self.model.encoder is not None,
            "parameters": sum(p.numel() for p in self.model.parameters()),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by dotted name."""
        parts: dict[str, dict[str, np.ndarray]] = {
            "vae": {k: v.detach().numpy() for k, v in self.model.state_dict().items()},
            "density": self.density.arrays(),
            "clusters": self.clusters.arrays(),
            "flow": self.flow.arrays() if self.flow else {},
            "appearance": self.appearance.arrays() if self.appearance else {},
        }
        flat = {f"{part}.{name}": value for part, found in parts.items() for name, value in found.items()}
        return flat | {"neighbours": self.neighbours.numpy()}

    @classmethod
    def from_arrays(
        cls, kind: str, shape: tuple[int, ...], described: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> Fitted:
        """The inverse of ``describe`` and ``arrays``."""

        def part(name: str) -> dict[str, Tensor]:
            prefix = f"{name}."
            return {
                k.removeprefix(prefix): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(prefix)
            }

        state = part("vae")
        networks: tuple[Encoder, Decoder] | tuple[None, None] = (None, None)
        if described["convolutional"]:
            size = (shape, described["n_latent"], WIDTHS[kind])
            networks = (Encoder(*size), Decoder(*size))
        model = VAE(state["mean"], state["basis"], described["n_noise"], *networks)
        model.load_state_dict(state)
        flow, appearance = part("flow"), part("appearance")
        return cls(
            kind,
            shape,
            model,
            Mixture(**part("density")),
            Mixture(**part("clusters")),
            torch.from_numpy(arrays["neighbours"]),
            LatentFlow.from_arrays(flow) if flow else None,
            Appearance.from_arrays(appearance, shape) if appearance else None,
        )
