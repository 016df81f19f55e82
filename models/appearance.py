"""How unlike every training cutout an image looks: power by radius, scale and band, compared with its nearest likes.

The VAE's residuals of bright images are ruled by their brightest neighbours and their own cores. This looks at the
image itself instead, through numbers that a rotation or a mirror hardly changes: in rings around the centre, the mean
brightness, and the power at every level of a Laplacian pyramid (Burt & Adelson 1983, IEEE Trans. Comm. 31, 532) of

- each band (noise texture, clumps, lost or copied data),
- each band's part that is odd under half a turn (arcs, companions, trails),
- each pair of neighbouring bands' difference (colour, and what is in one band only),

the last two from the second level on, since the finest holds little but noise. An object is as strange as it is far
from its nearest training objects in the whitened space of these numbers, which assumes no shape of the distribution
(Ramaswamy, Rastogi & Shim 2000, SIGMOD).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

RINGS = (0.0, 0.08, 0.16, 0.25, 0.35, 0.47, 0.65, 0.9, 1.5)
"""Radii between rings over half the image's side; the last ring is the corners."""
LEVELS = 4
"""Of the pyramid, as far as the image can be halved."""
FEWEST = 0.1
"""Measured share of a ring below which it says nothing."""
FLOOR = 1e-5
"""Power that counts as none, squared units of the stretched flux."""
LINEAR = 3.0
"""Deviations, in robust σ, beyond which a number counts by its logarithm only: no single one decides."""
RIDGE = 0.3
"""Added to the variances before whitening, so that directions without variation do not make distances."""
TRIMMED = 0.05
"""Share of the training set, the strangest, that the whitening does not see."""
NEAREST = 3
"""Neighbours averaged: more than one, so that an anomaly in the training set does not hide those like it."""
CANDIDATES = 8
"""Neighbours whose distance is computed again, exactly, after one matrix product has found them."""
CHUNK = 64


@dataclass(slots=True)
class Appearance:
    """What the training cutouts look like."""

    centre: Tensor
    """(n_features,) median over the training set; NaN where it has no value."""
    spread: Tensor
    """(n_features,) half the central 68 %."""
    whitener: Tensor
    """(n_features, n_features)."""
    neighbours: Tensor
    """(m, n_features) whitened training objects."""

    @classmethod
    def fit(cls, image: Tensor, seen: Tensor) -> Appearance:
        """Learn from n prepared training cutouts, both (n, n_bands, side, side)."""
        pieces = zip(image.split(CHUNK), seen.split(CHUNK), strict=True)
        values = torch.cat([describe(*piece) for piece in pieces])
        low, centre, high = torch.nanquantile(values, torch.tensor([0.16, 0.5, 0.84]), dim=0)
        # what no training object has (a ring that is never measured) is not looked at
        centre, spread = torch.nan_to_num(centre), torch.nan_to_num((high - low) / 2, nan=torch.inf)
        out = cls(centre, spread.clamp(min=1e-3), torch.eye(len(centre)), values[:0])
        standard = out._standardise(values)
        out.whitener = _whitener(standard)
        distance = ((standard @ out.whitener) ** 2).sum(1)
        out.whitener = _whitener(standard[distance <= distance.quantile(1 - TRIMMED)])
        out.neighbours = standard @ out.whitener
        return out

    def strangeness(self, image: Tensor, seen: Tensor) -> Tensor:
        """Log of the mean distance to the nearest training objects, (n,) float64."""
        white = self._standardise(describe(image, seen)) @ self.whitener
        near = self.neighbours
        rough = (near**2).sum(1) - 2 * white @ near.T
        found = near[rough.topk(min(CANDIDATES, len(near)), dim=1, largest=False).indices]
        distance = ((white[:, None] - found) ** 2).sum(2, dtype=torch.float64).sqrt()
        nearest = distance.topk(min(NEAREST, len(near)), dim=1, largest=False).values
        return (nearest.mean(1) + 1e-6).log()

    def arrays(self) -> dict[str, np.ndarray]:
        """What a bundle keeps."""
        return {k: getattr(self, k).numpy() for k in ("centre", "spread", "whitener", "neighbours")}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Tensor]) -> Appearance:
        """The inverse of ``arrays``."""
        return cls(**arrays)

    def to(self, device: torch.device) -> Appearance:
        """The same elsewhere."""
        return Appearance(
            *(getattr(self, k).to(device) for k in ("centre", "spread", "whitener", "neighbours"))
        )

    def _standardise(self, values: Tensor) -> Tensor:
        # what an object or the whole training set lacks is taken as typical
        deviation = torch.nan_to_num((values - self.centre) / self.spread)
        return LINEAR * torch.asinh(deviation / LINEAR)


def _whitener(standard: Tensor) -> Tensor:
    variance, axes = torch.linalg.eigh((standard.T @ standard / len(standard)).double())
    return (axes / (variance.clamp(min=0) + RIDGE).sqrt()).float()


def describe(image: Tensor, seen: Tensor) -> Tensor:
    """What is described above, (n, n_features), NaN where nothing is measured, of prepared cutouts as ``fit`` takes."""
    n_bands, side = image.shape[1:3]
    share = _ring_means(seen)
    shared = torch.minimum(share[:, 1:], share[:, :-1])

    def power(value: Tensor, share: Tensor) -> Tensor:
        log_power = (_ring_means(value * value) / share.clamp(min=FEWEST) + FLOOR).log()
        return torch.where(share > FEWEST, log_power, torch.nan).flatten(1)

    mean = _ring_means(image)
    out = [torch.where(share > FEWEST, mean, torch.nan).flatten(1)]
    if n_bands > 1:
        colour = mean[:, :-1] - mean[:, 1:]
        out.append(torch.where(shared > FEWEST, colour, torch.nan).flatten(1))
    for level in range(LEVELS):
        if side < 2:
            break
        coarser = _halved(image)
        detail = _detail(image, coarser)
        out.append(power(detail, share))
        if level > 0:
            out.append(power(detail - detail.flatten(2).flip(-1).reshape(detail.shape), share))
            if n_bands > 1:
                out.append(power(detail[:, :-1] - detail[:, 1:], shared))
        image, side = coarser, coarser.shape[-1]
    return torch.cat(out, 1)


def _halved(image: Tensor) -> Tensor:
    """Half as many pixels on a side, (n, n_bands, side, side) to (n, n_bands, ⌈side/2⌉, ⌈side/2⌉)."""
    matrix = _halving(image.shape[-1], image.device)
    return matrix.T @ (image @ matrix)


def _detail(image: Tensor, coarser: Tensor) -> Tensor:
    """The image without what its ``_halved`` says of it."""
    matrix = _doubling(image.shape[-1], image.device)
    rows = (matrix.T @ coarser).flatten(0, 1)
    # image - rows @ matrix, without a second image in between
    detail = torch.baddbmm(image.flatten(0, 1), rows, matrix.expand(len(rows), -1, -1), alpha=-1)
    return detail.reshape(image.shape)


@functools.cache
def _halving(side: int, device: torch.device) -> Tensor:
    """(side, ⌈side/2⌉): smoothing by 1, 3, 3, 1 and leaving out every other pixel; the edge repeats."""
    matrix = torch.zeros(side, -(-side // 2))
    for j in range(matrix.shape[1]):
        for offset, weight in zip((-1, 0, 1, 2), (1, 3, 3, 1), strict=True):
            matrix[min(max(2 * j + offset, 0), side - 1), j] += weight / 8
    return matrix.to(device)


@functools.cache
def _doubling(side: int, device: torch.device) -> Tensor:
    """(⌈side/2⌉, side): linear interpolation back; the edge repeats."""
    half = -(-side // 2)
    matrix = torch.zeros(half, side)
    for i in range(side):
        near, far = i // 2, i // 2 + (1 if i % 2 else -1)
        matrix[near, i] += 0.75
        matrix[min(max(far, 0), half - 1), i] += 0.25
    return matrix.to(device)


def _ring_means(value: Tensor) -> Tensor:
    """Means over rings of images (n, channels, side, side), (n, channels, rings)."""
    return functional.linear(value.flatten(2), _rings(*value.shape[-2:], value.device))


@functools.cache
def _rings(height: int, width: int, device: torch.device) -> Tensor:
    """(rings, pixels): 1 over the number of pixels for those in the ring; 0 for a ring too narrow to have any."""
    y, x = (torch.arange(side) - (side - 1) / 2 for side in (height, width))
    radius = torch.hypot(y[:, None], x[None]).flatten() / (min(height, width) / 2)
    edges = torch.tensor(RINGS)
    member = ((radius >= edges[:-1, None]) & (radius < edges[1:, None])).float()
    return (member / member.sum(1, keepdim=True).clamp(min=1)).to(device)
