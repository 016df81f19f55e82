"""The networks of the VAE: encoders, fully connected for spectra (as in Portillo et al. 2020) and convolutional for
cutouts, and one fully connected decoder.

All end in a layer that starts at zero, so that an untrained network changes nothing of the linear model. A decoder of
transposed convolutions takes a CPU more than ten times as long and says less (docs/performance.md).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

HIDDEN = 64
"""Width of the fully connected layers."""
WIDE = 128
"""The same in the decoder of cutouts, which have more to say."""
CHANNELS = (8, 16, 32)
"""Of the convolutions; each halves the side."""


def make_networks(shape: tuple[int, ...], n_latent: int) -> tuple[nn.Module, Decoder]:
    """Encoder and decoder for a grid (1, n_bins) or (n_bands, side, side)."""
    if len(shape) == 2:
        return SpectrumEncoder(shape[1], n_latent), Decoder(shape[1], n_latent, HIDDEN)
    return CutoutEncoder(shape, n_latent), Decoder(math.prod(shape), n_latent, WIDE)


class SpectrumEncoder(nn.Module):
    """Corrections to the linear posterior, (n, 2 L), from whitened residuals and mask (n, 2, n_values)."""

    def __init__(self, n_values: int, n_latent: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * n_values + n_latent, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(),
            _zeroed(nn.Linear(HIDDEN, 2 * n_latent)),
        )  # fmt: skip

    def forward(self, seen: Tensor, linear_mean: Tensor) -> Tensor:
        corrections: Tensor = self.layers(torch.cat([seen.flatten(1), linear_mean], 1))
        return corrections


class CutoutEncoder(nn.Module):
    """The encoder of cutouts; see SpectrumEncoder."""

    def __init__(self, shape: tuple[int, ...], n_latent: int) -> None:
        super().__init__()
        self.shape = shape
        # an image of one pixel cannot be halved
        widths = CHANNELS[: min(shape[1:]).bit_length() - 1]
        layers: list[nn.Module] = []
        for a, b in pairwise((2 * shape[0], *widths)):
            layers += [nn.Conv2d(a, b, 4, 2, 1), nn.GELU()]
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            flat = self.convolutions(torch.zeros(1, 2 * shape[0], *shape[1:])).shape[1]
        self.head = nn.Sequential(
            nn.Linear(flat + n_latent, HIDDEN), nn.GELU(), _zeroed(nn.Linear(HIDDEN, 2 * n_latent))
        )

    def forward(self, seen: Tensor, linear_mean: Tensor) -> Tensor:
        image = seen.reshape(len(seen), -1, *self.shape[1:])
        corrections: Tensor = self.head(torch.cat([self.convolutions(image), linear_mean], 1))
        return corrections


class Decoder(nn.Module):
    """What the linear basis cannot say, (n, n_values), from the latent (n, L)."""

    def __init__(self, n_values: int, n_latent: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(n_latent, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.last = _zeroed(nn.Linear(width, n_values))

    def forward(self, z: Tensor) -> Tensor:
        rest: Tensor = self.last(self.hidden(z))
        return rest


def _zeroed(layer: nn.Linear) -> nn.Linear:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
