"""How unlike every training cutout an image looks: power by radius, scale and band, compared with its nearest likes.

The VAE's residuals of bright images are ruled by their brightest neighbours and their own cores. This looks at the
image itself instead, through numbers that a rotation or a mirror hardly changes: in rings around the centre, the mean
brightness and the power of a starlet transform (an undecimated wavelet; Starck, Fadili & Murtagh 2007, IEEE TIP 16,
297) of

- each band (noise texture, clumps, lost or copied data),
- each band's part that is odd under half a turn (arcs, companions, trails), its power only,
- each pair of neighbouring bands' difference (colour, and what is in one band only).

An object is as strange as it is far from its nearest training objects in the whitened space of these numbers, which
assumes no shape of the distribution (Ramaswamy, Rastogi & Shim 2000, SIGMOD).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

RINGS = (0.0, 0.08, 0.16, 0.25, 0.35, 0.47, 0.65, 0.9, 1.5)
"""Radii between rings over half the image's side; the last ring is the corners."""
SCALES = 5
"""Wavelet scales of 1, 2, 4 … pixels, as far as they fit."""
FEWEST = 3
"""Measured pixels at or below which a ring says nothing."""
FLOOR = 1e-5
"""Power that counts as none, squared units of the stretched flux."""
HUGE = 1e15
"""Stretched flux beyond which squares would leave single precision."""
LINEAR = 3.0
"""Deviations, in robust σ, beyond which a number counts by its logarithm only: no single one decides."""
RIDGE = 0.3
"""Added to the variances before whitening, so that directions without variation do not make distances."""
TRIMMED = 0.05
"""Share of the training set, the strangest, that the whitening does not see."""
NEAREST = 3
"""Neighbours averaged: more than one, so that an anomaly in the training set does not hide those like it."""


@dataclass(slots=True)
class Appearance:
    """What the training cutouts look like."""

    shape: tuple[int, ...]
    """(n_bands, size, size) of the model's grid."""
    centre: Tensor
    """(n_features,) median over the training set; NaN where it has no value."""
    spread: Tensor
    """(n_features,) half the central 68 %."""
    whitener: Tensor
    """(n_features, n_features)."""
    neighbours: Tensor
    """(m, n_features) whitened training objects."""

    @classmethod
    def fit(cls, x: Tensor, ivar: Tensor, shape: tuple[int, ...]) -> Appearance:
        """Learn from n prepared training cutouts, both (n, n_values)."""
        values = torch.cat([describe(x[k : k + 64], ivar[k : k + 64], shape) for k in range(0, len(x), 64)])
        low, centre, high = torch.nanquantile(values, torch.tensor([0.16, 0.5, 0.84]).double(), dim=0)
        out = cls(
            shape, centre, ((high - low) / 2).clamp(min=1e-3), torch.eye(len(centre)).double(), values[:0]
        )
        standard = out._standardise(values)
        out.whitener = _whitener(standard)
        distance = ((standard @ out.whitener) ** 2).sum(1)
        out.whitener = _whitener(standard[distance <= distance.quantile(1 - TRIMMED)])
        out.neighbours = standard @ out.whitener
        return out

    def strangeness(self, x: Tensor, ivar: Tensor) -> Tensor:
        """Log of the mean distance to the nearest training objects, (n,)."""
        white = self._standardise(describe(x, ivar, self.shape)) @ self.whitener
        squared = (
            (white**2).sum(1, keepdim=True) - 2 * white @ self.neighbours.T + (self.neighbours**2).sum(1)
        )
        nearest = squared.topk(min(NEAREST, len(self.neighbours)), dim=1, largest=False).values
        return (nearest.clamp(min=0).sqrt().mean(1) + 1e-6).log()

    def arrays(self) -> dict[str, np.ndarray]:
        """What a bundle keeps, single precision."""
        return {k: getattr(self, k).float().numpy() for k in ("centre", "spread", "whitener", "neighbours")}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Tensor], shape: tuple[int, ...]) -> Appearance:
        """The inverse of ``arrays``, in double precision."""
        return cls(shape, **{k: v.double() for k, v in arrays.items()})

    def to(self, device: torch.device) -> Appearance:
        """The same elsewhere."""
        return Appearance(
            self.shape, *(getattr(self, k).to(device) for k in ("centre", "spread", "whitener", "neighbours"))
        )

    def _standardise(self, values: Tensor) -> Tensor:
        # what an object or the whole training set lacks is taken as typical
        deviation = torch.nan_to_num((values - self.centre) / self.spread)
        return LINEAR * torch.asinh(deviation / LINEAR)


def _whitener(standard: Tensor) -> Tensor:
    variance, axes = torch.linalg.eigh(standard.T @ standard / len(standard))
    return axes / (variance.clamp(min=0) + RIDGE).sqrt()


def describe(x: Tensor, ivar: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What is described above, (n, n_features) float64 for cutouts (n, n_values); NaN where nothing is measured."""
    # wavelets in single precision for speed; sums in double, so that a row does not depend on the rows beside it
    image = torch.where(ivar > 0, x, 0.0).clamp(-HUGE, HUGE).float().reshape(-1, *shape)
    seen = (ivar > 0).float().reshape(-1, *shape)
    rings = _rings(shape[1:]).to(x.device)
    out = []
    for channel, weight, symmetric in _channels(image, seen):
        count = weight.double().flatten(2) @ rings

        def ring_mean(value: Tensor, count: Tensor = count) -> Tensor:
            total = value.double().flatten(2) @ rings
            return torch.where(count > FEWEST, total / count.clamp(min=1), torch.nan).flatten(1)

        if symmetric:
            out.append(ring_mean(channel))
        for detail in _starlet(channel, weight):
            out.append((ring_mean(weight * detail**2) + FLOOR).log())
    return torch.cat(out, 1)


def _channels(image: Tensor, seen: Tensor) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """(value, weight, symmetric?) of the bands, their odd parts and the colours; 0 where unmeasured."""
    yield image, seen, True
    matched = seen * seen.flip(-1, -2)
    yield matched * (image - image.flip(-1, -2)), matched, False
    if image.shape[1] > 1:
        both = seen[:, 1:] * seen[:, :-1]
        yield both * (image[:, :-1] - image[:, 1:]), both, True


def _starlet(value: Tensor, weight: Tensor) -> Iterator[Tensor]:
    """Differences of ever smoother images; unmeasured pixels are left out of every smoothing."""
    total, share, current = value, weight, value
    for scale in range(SCALES):
        step = 2**scale
        if 2 * step >= min(value.shape[-2:]):
            return
        total, share = _smooth(total, step), _smooth(share, step)
        smoother = total / share.clamp(min=1e-6)
        yield current - smoother
        current = smoother


def _smooth(image: Tensor, step: int) -> Tensor:
    """Weights 1, 2, 1 at distances −step, 0, step along both axes; nothing beyond the edge."""
    for axis in (-2, -1):
        rest = image.shape[axis] - step
        out = 2 * image
        out.narrow(axis, step, rest).add_(image.narrow(axis, 0, rest))
        out.narrow(axis, 0, rest).add_(image.narrow(axis, step, rest))
        image = out / 4
    return image


def _rings(shape: tuple[int, ...]) -> Tensor:
    """(pixels, rings) membership, 0 or 1."""
    y, x = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in shape)
    radius = torch.hypot(y[:, None], x[None]).flatten() / (min(shape) / 2)
    edges = torch.tensor(RINGS, dtype=torch.float64)
    return ((radius[:, None] >= edges[:-1]) & (radius[:, None] < edges[1:])).double()
