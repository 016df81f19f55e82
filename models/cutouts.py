"""Cutouts onto the model's grids: whole-pixel binning, centre crop, and a stretch that tames bright cores.

Galaxies span four decades of brightness, so their flux is taken as arcsinh(flux / (3 σ)) with σ the cutout's own
noise (Lupton, Gunn & Szalay 1999, AJ 118, 1406): linear in the sky, logarithmic in the core. Images that are filled
rather than a source on a sky keep a linear scale. The training set decides which, and the bundle says so.

The image keeps at most 64 pixels on a side, where appearance is judged; the density model sees it binned to at most
32, which costs a quarter and loses nothing that it could have drawn.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.batch import CutoutBatch
from models.prepared import LARGEST, Prepared, on_device

SOFTENING = 3.0
"""Noise σ at which the stretch turns from linear to logarithmic."""
MAX_SIZE = 64
"""Larger cutouts are binned by a whole factor until they fit."""
MAX_DENSITY_SIZE = 32
"""The same for the grid of the density model."""
BRIGHTEST = 1e15
"""Flux over the softening at which it is clipped, so that its square stays finite in single precision."""


@dataclass(slots=True)
class CutoutPreprocessing:
    """The image grids and stretch of one trained model; ``fit`` makes it, JSON keeps it."""

    bands: tuple[str, ...]
    size: int
    """Pixels on a side of the image, after binning."""
    factor: int
    """Original pixels per side of an image pixel."""
    coarse: int
    """Image pixels per side of a pixel of the density model."""
    stretch: str
    """``asinh`` or ``linear``."""
    scale: float
    """Flux of unit value under the linear stretch; 1 under asinh."""
    coverage_floor: float
    """1st percentile, over the training set, of the share of measured pixels in the worst band."""

    kind = "cutout"

    @property
    def n_values(self) -> int:
        return math.prod(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the density model's grid."""
        return (len(self.bands), self.size // self.coarse, self.size // self.coarse)

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (len(self.bands), self.size, self.size)

    @property
    def n_noise(self) -> int:
        return len(self.bands)

    @classmethod
    def fit(cls, batches: list[CutoutBatch], bands: tuple[str, ...]) -> CutoutPreprocessing:
        """Choose the grid from a training set given as batches of one shape each.

        Raises ValueError when the batches differ in their number of bands.
        """
        counts = {b.flux.shape[1] for b in batches}
        if counts != {len(bands)}:
            raise ValueError(f"every cutout must have {len(bands)} bands, got {sorted(counts)}")
        sides = np.repeat([min(b.flux.shape[2:]) for b in batches], [len(b) for b in batches])
        typical = int(np.median(sides))
        factor = -(-typical // MAX_SIZE)
        peaks, shoulders = [], []
        for b in batches:
            flat = np.where(b.ivar > 0, b.flux, np.nan).reshape(len(b), -1)
            measured = np.isfinite(flat).any(1)
            peaks.append(np.nanpercentile(flat[measured], 99.5, axis=1))
            shoulders.append(np.nanpercentile(flat[measured], 85, axis=1))
        peak, shoulder = np.concatenate(peaks), np.concatenate(shoulders)
        if len(peak) == 0:
            raise ValueError("no training cutout has a measured pixel")
        filled = float(np.median(shoulder / np.where(peak > 0, peak, np.inf))) > 0.3
        size = typical // factor
        coarse = -(-size // MAX_DENSITY_SIZE)
        out = cls(
            bands=tuple(bands),
            size=size - size % coarse,
            factor=factor,
            coarse=coarse,
            stretch="linear" if filled else "asinh",
            scale=float(np.median(peak)) or 1.0 if filled else 1.0,
            coverage_floor=1.0,
        )
        coverage = torch.cat([_coverage(out._onto_grid(b, torch.device("cpu"))[1].sign()) for b in batches])
        out.coverage_floor = float(np.quantile(coverage.numpy(), 0.01)) or 1e-3
        return out

    def __call__(self, batch: CutoutBatch, device: torch.device | str = "cpu") -> Prepared:
        """Normalise n cutouts; needs nothing but the batch, so any batch size gives the same rows.

        Raises ValueError when the number of bands differs from the training set's.
        """
        if batch.flux.shape[1] != len(self.bands):
            raise ValueError(
                f"the model was trained on {len(self.bands)} bands ({', '.join(self.bands)}), "
                f"this cutout has {batch.flux.shape[1]}"
            )
        flux, ivar = self._onto_grid(batch, device)
        seen = ivar.sign()  # 1 where measured; several times as fast as a comparison on a CPU
        sigma = _typical_sigma(ivar)
        # the stretch is y → asinh(y) or y itself, for y in units of ``unit``; ivar follows by its slope
        unit = SOFTENING * sigma[:, :, None, None] if self.stretch == "asinh" else self.scale
        y = (flux * (1 / unit)).clamp_(-BRIGHTEST, BRIGHTEST)
        weight = (ivar * unit).mul_(unit)
        if self.stretch == "asinh":
            square = y * y
            root = square + 1
            weight *= root
            # asinh y = ±log(1 + |y| + y² / (1 + √(1 + y²))), several times as fast as torch's own on a CPU
            y = square.div_(root.sqrt_().add_(1)).add_(y.abs()).log1p_().copysign_(y)
        image = y.clamp_(-LARGEST, LARGEST).mul_(seen)
        x, ivar_x = _binned(image, weight, self.coarse)
        if image.device.type == "cpu":
            holes = (seen.flatten(1).amin(1) == 0).nonzero().squeeze(1)
            image = image.index_copy(0, holes, _filled(image[holes], seen[holes]))
        else:  # asking for those with holes would mean waiting for the answer
            image = _filled(image, seen)
        snr = _central_snr(flux, ivar)
        band = torch.arange(len(self.bands), device=device).repeat_interleave(math.prod(self.shape[1:]))
        return Prepared(
            x=x.flatten(1),
            ivar=ivar_x.flatten(1),
            noise_index=band[None],
            snr=snr,
            covariates=torch.stack([snr.clamp(min=0.1).log(), sigma.double().mean(1).log()], 1),
            outside=(self.coverage_floor - _coverage(seen)).clamp(min=0) / self.coverage_floor,
            image=image,
            seen=seen,
        )

    def turned(self, data: Prepared, random: np.random.Generator) -> Prepared:
        """The density model's view of prepared cutouts after one of the eight turns and mirrorings of a square."""
        turns, mirrored = divmod(int(random.integers(8)), 2)

        def turn(values: Tensor) -> Tensor:
            grid = torch.rot90(values.reshape(-1, *self.shape), turns, (2, 3))
            return (grid.flip(3) if mirrored else grid).flatten(1)

        return replace(data, x=turn(data.x), ivar=turn(data.ivar), image=None, seen=None)

    def to_json(self) -> dict[str, Any]:
        return {
            "bands": list(self.bands), "size": self.size, "factor": self.factor, "coarse": self.coarse,
            "stretch": self.stretch, "softening_sigma": SOFTENING, "scale": self.scale,
            "coverage_floor": self.coverage_floor,
        }  # fmt: skip

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> CutoutPreprocessing:
        names = ("size", "factor", "coarse", "stretch", "scale", "coverage_floor")
        return cls(tuple(d["bands"]), *(d[name] for name in names))

    def _onto_grid(self, batch: CutoutBatch, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Binned and centred flux and ivar, (n, n_bands, size, size); flux means nothing where ivar is 0."""
        f = self.factor
        height, width = (side // f * f for side in batch.flux.shape[2:])
        flux, ivar = (_centre(on_device(a, device), height, width) for a in (batch.flux, batch.ivar))
        if f > 1:  # in double precision, as flux and ivar of odd units may overflow together
            flux, ivar = (a.float() for a in _binned(flux.double(), ivar.double(), f))
        return _centre(flux, self.size, self.size), _centre(ivar, self.size, self.size)


def _binned(image: Tensor, weight: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Weighted means and summed weights of squares of factor × factor pixels; sides are whole multiples."""
    if factor == 1:
        return image, weight
    total, product = pooled(weight, factor), pooled(weight * image, factor)
    return product.div_(torch.where(total > 0, total, 1.0)), total


def pooled(image: Tensor, factor: int) -> Tensor:
    """Sums over squares of factor × factor pixels."""
    rows = functools.reduce(torch.add, (image[..., k::factor, :] for k in range(factor)))
    return functools.reduce(torch.add, (rows[..., k::factor] for k in range(factor)))


def _filled(image: Tensor, seen: Tensor) -> Tensor:
    """Unmeasured pixels filled by the mean of the smallest square about them that holds a measured one.

    The squares are 2, 4, 8 … pixels on a side: the push-pull scheme of Gortler et al. 1996 (SIGGRAPH, §3.4).
    """
    side = image.shape[-1]
    if side % 2 or side == 2:
        total, count = image.sum((-1, -2), keepdim=True), seen.sum((-1, -2), keepdim=True)
        return image + (1 - seen) * (total / count.clamp(min=1))
    total, count = pooled(image, 2), pooled(seen, 2)
    coarse = _filled(total / count.clamp(min=1), count.sign())
    return image + (1 - seen) * coarse.repeat_interleave(2, -1).repeat_interleave(2, -2)


def _coverage(seen: Tensor) -> Tensor:
    """Share of measured pixels in the worst band, (n,) float64."""
    return seen.mean((2, 3)).amin(1).double()


def _centre(image: Tensor, height: int, width: int) -> Tensor:
    """The central height × width pixels; zeros where the image is smaller."""
    for axis, size in ((2, height), (3, width)):
        have = image.shape[axis]
        before = abs(size - have) // 2
        if have > size:
            image = image.narrow(axis, before, size)
        elif have < size:
            pad = (before, size - have - before)
            image = functional.pad(image, (0, 0, *pad) if axis == 2 else pad)
    return image


def _typical_sigma(ivar: Tensor) -> Tensor:
    """Median noise σ of each cutout and band, (n, n_bands); the cutout's other bands, or 1, where a band is empty.

    Of some 256 pixels on a regular grid, which know it as well as all do.
    """
    step = max(1, ivar.shape[-1] // 16)
    some = ivar[:, :, ::step, ::step].flatten(2)
    sigma = torch.where(some > 0, some, torch.nan).nanmedian(2).values ** -0.5
    fallback = torch.nan_to_num(sigma.nanmean(1, keepdim=True), nan=1.0)
    return torch.where(sigma.isfinite(), sigma, fallback)


def _central_snr(flux: Tensor, ivar: Tensor) -> Tensor:
    """S/N of the flux summed over the central fifth (at least 5 pixels on a side) of all bands, (n,)."""
    size = flux.shape[2]
    half = max(2, size // 10)
    core = (slice(None), slice(None), *(slice(max(0, size // 2 - half), size // 2 + half + 1),) * 2)
    weight = ivar[core].double()
    good = weight > 0
    variance = torch.where(good, 1 / torch.where(good, weight, 1.0), 0.0).sum((1, 2, 3))
    total = torch.where(good, flux[core].double(), 0.0).sum((1, 2, 3))
    return total / torch.where(variance > 0, variance, torch.inf).sqrt()
