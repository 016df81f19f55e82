"""What preprocessing hands to the network: normalised values on the model's own grid, one flat row per object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LARGEST = 1e3
"""Normalised flux is clipped here: far beyond any source, and its squares still fit single precision."""


@dataclass(slots=True)
class Prepared:
    """n objects on a grid of n_values points (wavelength bins, or band × row × column)."""

    x: Tensor
    """(n, n_values) normalised flux in ±LARGEST; 0 where there is no measurement."""
    ivar: Tensor
    """(n, n_values) inverse variance of ``x``; 0 where there is no measurement."""
    noise_index: Tensor
    """(n, n_values) int64 into the model's table of noise scales, or (1, n_values) when all objects share it."""
    snr: np.ndarray
    """(n,) signal-to-noise ratio as the catalog reports it."""
    covariates: np.ndarray
    """(n, 2) float64 that calibration conditions on: log S/N, and log(1 + z) (spectra) or log noise (cutouts)."""
    outside: np.ndarray
    """(n,) float64 ≥ 0: how far the object lies outside what the training set covered; 0 inside."""

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, index: np.ndarray | slice) -> Prepared:
        """The chosen objects, in the order of ``index``."""
        noise = self.noise_index if len(self.noise_index) == 1 else self.noise_index[index]
        return Prepared(
            self.x[index],
            self.ivar[index],
            noise,
            self.snr[index],
            self.covariates[index],
            self.outside[index],
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> Prepared:
        """The same with its tensors elsewhere."""
        return Prepared(
            self.x.to(device, dtype), self.ivar.to(device, dtype), self.noise_index.to(device),
            self.snr, self.covariates, self.outside,
        )  # fmt: skip
