"""Everything that training finds and that weighing an object needs, and its way into a bundle and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.appearance import Appearance
from models.flow import LatentFlow
from models.mixture import Mixture
from models.networks import Decoder, make_networks
from models.vae import VAE


@dataclass(slots=True)
class Fitted:
    """A fitted density model of one kind of input."""

    kind: str
    shape: tuple[int, ...]
    """(channels, …) of one object's grid."""
    model: VAE
    mixture: Mixture
    """The density of the latents; its components are the (lensing) clusters."""
    neighbours: Tensor
    """(m, L) latents of training objects."""
    flow: LatentFlow | None
    """None for small training sets."""
    appearance: Appearance | None
    """Of the training cutouts; None for spectra."""

    def for_scoring(self, device: torch.device) -> Fitted:
        """On a device, ready for ``weigh``."""
        return Fitted(
            self.kind,
            self.shape,
            self.model.to(device).freeze(),
            self.mixture.to(device),
            self.neighbours.double().to(device),
            self.flow.to(device) if self.flow else None,
            self.appearance.to(device) if self.appearance else None,
        )

    def describe(self) -> dict[str, Any]:
        """What ``from_arrays`` has to know beside the arrays, for the bundle's JSON."""
        return {
            "n_latent": self.model.n_latent,
            "n_noise": len(self.model.log_noise_scale),
            "has_networks": self.model.encoder is not None,
            "parameters": sum(p.numel() for p in self.model.parameters()),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by dotted name."""
        parts: dict[str, dict[str, np.ndarray]] = {
            "vae": {k: v.detach().numpy() for k, v in self.model.state_dict().items()},
            "mixture": self.mixture.arrays(),
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
        networks: tuple[nn.Module, Decoder] | tuple[None, None] = (None, None)
        if described["has_networks"]:
            networks = make_networks(shape, described["n_latent"])
        model = VAE(state["mean"], state["basis"], described["n_noise"], *networks)
        model.load_state_dict(state)
        flow, appearance = part("flow"), part("appearance")
        return cls(
            kind,
            shape,
            model,
            Mixture(**part("mixture")),
            torch.from_numpy(arrays["neighbours"]),
            LatentFlow.from_arrays(flow) if flow else None,
            Appearance.from_arrays(appearance) if appearance else None,
        )
