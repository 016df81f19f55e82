"""The networks of the VAE: fully connected for spectra (as in Portillo et al. 2020), convolutional for cutouts.

All end in a layer that starts at zero, so that an untrained network changes nothing of the linear model.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

HIDDEN = 64
"""Width of the fully connected layers."""
CHANNELS = (8, 16, 32)
"""Of the convolutions, from the fine grid to the coarse; each layer halves the side."""


def make_networks(shape: tuple[int, ...], n_latent: int) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder for a grid (1, n_bins) or (n_bands, side, side)."""
    if len(shape) == 2:
        return SpectrumEncoder(shape[1], n_latent), SpectrumDecoder(shape[1], n_latent)
    return CutoutEncoder(shape, n_latent), CutoutDecoder(shape, n_latent)


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


class SpectrumDecoder(nn.Module):
    """What the linear basis cannot say, (n, n_values), from the latent (n, L)."""

    def __init__(self, n_values: int, n_latent: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_latent, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(),
            _zeroed(nn.Linear(HIDDEN, n_values)),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        rest: Tensor = self.layers(z)
        return rest


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


class CutoutDecoder(nn.Module):
    """The decoder of cutouts; see SpectrumDecoder."""

    def __init__(self, shape: tuple[int, ...], n_latent: int) -> None:
        super().__init__()
        self.shape = shape
        widths = CHANNELS[::-1]
        # start from the coarsest grid that the up-sampling layers turn into at least the full size
        coarse = tuple(math.ceil(side / 2 ** len(widths)) for side in shape[1:])
        layers: list[nn.Module] = [
            nn.Linear(n_latent, HIDDEN), nn.GELU(),
            nn.Linear(HIDDEN, widths[0] * math.prod(coarse)), nn.GELU(), nn.Unflatten(1, (widths[0], *coarse)),
        ]  # fmt: skip
        for a, b in pairwise(widths):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1), nn.GELU()]
        self.layers = nn.Sequential(*layers, _zeroed(nn.ConvTranspose2d(widths[-1], shape[0], 4, 2, 1)))

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.layers(z)
        for axis, side in enumerate(self.shape[1:], start=2):
            image = image.narrow(axis, 0, side)
        return image.flatten(1)


def _zeroed(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
