"""Cutouts onto the model's grid: whole-pixel binning, centre crop, and a stretch that tames bright cores.

Galaxies span four decades of brightness, so their flux is taken as arcsinh(flux / (3 σ)) with σ the cutout's own
noise (Lupton, Gunn & Szalay 1999, AJ 118, 1406): linear in the sky, logarithmic in the core. Images that are filled
rather than a source on a sky keep a linear scale. The training set decides which, and the bundle says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.batch import CutoutBatch
from models.prepared import LARGEST, Prepared

SOFTENING = 3.0
"""Noise σ at which the stretch turns from linear to logarithmic."""
MAX_SIZE = 64
"""Larger cutouts are binned by a whole factor until they fit."""


@dataclass(slots=True)
class CutoutPreprocessing:
    """The image grid and stretch of one trained model; ``fit`` makes it, JSON keeps it."""

    bands: tuple[str, ...]
    size: int
    """Pixels on a side after binning."""
    factor: int
    """Original pixels per side of a binned pixel."""
    stretch: str
    """``asinh`` or ``linear``."""
    scale: float
    """Flux of unit value under the linear stretch; 1 under asinh."""
    coverage_floor: float
    """1st percentile, over the training set, of the share of measured pixels in the worst band."""

    kind = "cutout"

    @property
    def n_values(self) -> int:
        return len(self.bands) * self.size**2

    @property
    def shape(self) -> tuple[int, ...]:
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
        out = cls(
            bands=tuple(bands),
            size=typical // factor,
            factor=factor,
            stretch="linear" if filled else "asinh",
            scale=float(np.median(peak)) or 1.0 if filled else 1.0,
            coverage_floor=1.0,
        )
        coverage = np.concatenate([out._coverage(out._onto_grid(b)[1]) for b in batches])
        out.coverage_floor = float(np.quantile(coverage, 0.01)) or 1e-3
        return out

    def __call__(self, batch: CutoutBatch) -> Prepared:
        """Normalise n cutouts; needs nothing but the batch, so any batch size gives the same rows.

        Raises ValueError when the number of bands differs from the training set's.
        """
        if batch.flux.shape[1] != len(self.bands):
            raise ValueError(
                f"the model was trained on {len(self.bands)} bands ({', '.join(self.bands)}), "
                f"this cutout has {batch.flux.shape[1]}"
            )
        flux, ivar = self._onto_grid(batch)
        sigma = _typical_sigma(ivar)
        if self.stretch == "asinh":
            soft = SOFTENING * sigma[:, :, None, None]
            x, ivar_x = np.arcsinh(flux / soft), ivar * (flux**2 + soft**2)
        else:
            x, ivar_x = flux / self.scale, ivar * self.scale**2
        x = np.where(ivar > 0, np.clip(x, -LARGEST, LARGEST), 0)
        snr = _central_snr(flux, ivar)
        band = np.repeat(np.arange(len(self.bands)), self.size**2)[None]
        return Prepared(
            x=torch.from_numpy(x.reshape(len(batch), -1)),
            ivar=torch.from_numpy(ivar_x.reshape(len(batch), -1)),
            noise_index=torch.from_numpy(band),
            snr=snr,
            covariates=np.stack([np.log(np.clip(snr, 0.1, None)), np.log(sigma.mean(1))], 1),
            outside=np.maximum(self.coverage_floor - self._coverage(ivar), 0) / self.coverage_floor,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "bands": list(self.bands), "size": self.size, "factor": self.factor, "stretch": self.stretch,
            "softening_sigma": SOFTENING, "scale": self.scale, "coverage_floor": self.coverage_floor,
        }  # fmt: skip

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> CutoutPreprocessing:
        return cls(tuple(d["bands"]), d["size"], d["factor"], d["stretch"], d["scale"], d["coverage_floor"])

    def _onto_grid(self, batch: CutoutBatch) -> tuple[np.ndarray, np.ndarray]:
        """Binned and centred flux and ivar, (n, n_bands, size, size) float64; ivar 0 beyond the cutout's edge."""
        f = self.factor
        height, width = (side // f * f for side in batch.flux.shape[2:])
        flux = _centre(batch.flux, height, width).astype(np.float64)
        ivar = _centre(batch.ivar, height, width).astype(np.float64)
        if f > 1:
            blocks = (*batch.flux.shape[:2], height // f, f, width // f, f)
            total = ivar.reshape(blocks).sum((3, 5))
            weighted = (ivar * flux).reshape(blocks).sum((3, 5))
            flux, ivar = np.divide(weighted, total, out=np.zeros_like(total), where=total > 0), total
        return _centre(flux, self.size, self.size), _centre(ivar, self.size, self.size)

    @staticmethod
    def _coverage(ivar: np.ndarray) -> np.ndarray:
        """Share of measured pixels in the worst band, (n,)."""
        return (ivar > 0).mean((2, 3)).min(1)


def _centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The central height × width pixels; zeros where the image is smaller."""
    for axis, size in ((2, height), (3, width)):
        have = image.shape[axis]
        if have > size:
            start = (have - size) // 2
            image = np.take(image, range(start, start + size), axis=axis)
        elif have < size:
            before = (size - have) // 2
            pad = [(0, 0)] * 4
            pad[axis] = (before, size - have - before)
            image = np.pad(image, pad)
    return image


def _typical_sigma(ivar: np.ndarray) -> np.ndarray:
    """Median noise σ of each cutout and band, (n, n_bands); the cutout's other bands, or 1, where a band is empty."""
    typical = np.ma.median(np.ma.masked_less_equal(ivar.reshape(*ivar.shape[:2], -1), 0), axis=2).filled(
        np.nan
    )
    sigma = 1 / np.sqrt(typical)
    with np.errstate(all="ignore"):
        fallback = np.where(
            np.isfinite(sigma).any(1), np.nansum(sigma, 1) / np.isfinite(sigma).sum(1).clip(1), 1.0
        )
    return np.where(np.isfinite(sigma), sigma, fallback[:, None])


def _central_snr(flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """S/N of the flux summed over the central fifth (at least 5 pixels on a side) of all bands, (n,)."""
    size = flux.shape[2]
    half = max(2, size // 10)
    core = (slice(None), slice(None), *(slice(max(0, size // 2 - half), size // 2 + half + 1),) * 2)
    good = ivar[core] > 0
    variance = np.where(good, 1 / np.where(good, ivar[core], 1), 0).sum((1, 2, 3))
    total = np.where(good, flux[core], 0).sum((1, 2, 3))
    return np.where(variance > 0, total / np.sqrt(np.where(variance > 0, variance, 1)), 0.0)
