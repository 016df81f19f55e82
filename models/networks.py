"""The two convolutional networks of the VAE, for spectra (1-D) and cutouts (2-D) alike.

Both end in a layer that starts at zero, so that an untrained network changes nothing of the linear model.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """Corrections to the linear posterior, (n, 2 L), from whitened residuals and mask (n, 2, n_values)."""

    def __init__(self, shape: tuple[int, ...], n_latent: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        planar = len(shape) == 3
        conv = nn.Conv2d if planar else nn.Conv1d
        kernel, stride, pad = (4, 2, 1) if planar else (7, 4, 3)
        if planar:  # each layer halves the side, and an image of one pixel cannot be halved
            widths = widths[: min(shape[1:]).bit_length() - 1]
        channels = [2 * shape[0], *widths]
        layers: list[nn.Module] = []
        for a, b in pairwise(channels):
            layers += [conv(a, b, kernel, stride, pad), nn.GELU()]
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            flat = self.convolutions(torch.zeros(1, channels[0], *shape[1:])).shape[1]
        self.head = nn.Sequential(
            nn.Linear(flat + n_latent, 128), nn.GELU(), _zeroed(nn.Linear(128, 2 * n_latent))
        )

    def forward(self, seen: Tensor, linear_mean: Tensor) -> Tensor:
        image = seen.reshape(len(seen), -1, *self.shape[1:])
        return self.head(torch.cat([self.convolutions(image), linear_mean], 1))


class Decoder(nn.Module):
    """What the linear basis cannot say, (n, n_values), from the latent (n, L)."""

    def __init__(self, shape: tuple[int, ...], n_latent: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        planar = len(shape) == 3
        factor = 2 if planar else 4
        widths = widths[::-1]
        # start from the coarsest grid that the up-sampling layers turn into at least the full size
        self.coarse = tuple(math.ceil(s / factor ** len(widths)) for s in shape[1:])
        self.stem = nn.Sequential(
            nn.Linear(n_latent, 128), nn.GELU(), nn.Linear(128, widths[0] * math.prod(self.coarse)), nn.GELU()
        )
        up = nn.ConvTranspose2d if planar else nn.ConvTranspose1d
        kernel, stride, pad = (4, 2, 1) if planar else (8, 4, 2)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [up(a, b, kernel, stride, pad), nn.GELU()]
        self.deconvolutions = nn.Sequential(*layers, _zeroed(up(widths[-1], shape[0], kernel, stride, pad)))
        self.width = widths[0]

    def forward(self, z: Tensor) -> Tensor:
        image = self.deconvolutions(self.stem(z).reshape(len(z), self.width, *self.coarse))
        for axis, size in enumerate(self.shape[1:], start=2):
            image = image.narrow(axis, 0, size)
        return image.flatten(1)


def _zeroed(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


WIDTHS = {"spectrum": (16, 32, 48, 48), "cutout": (16, 32, 48, 64)}
