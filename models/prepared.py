"""What preprocessing hands to the model: normalised values on the model's own grid, one flat row per object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

LARGEST = 1e3
"""Normalised flux is clipped here: far beyond any source, and its squares still fit single precision."""


def on_device(array: np.ndarray, device: torch.device | str) -> Tensor:
    """The array as a tensor there; a copy to a GPU goes through pinned memory, and nobody waits for it."""
    tensor = torch.from_numpy(array)
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@dataclass(slots=True)
class Prepared:
    """n objects on a grid of n_values points (wavelength bins, or band × row × column), all on one device."""

    x: Tensor
    """(n, n_values) float32, normalised flux in ±LARGEST; 0 where there is no measurement."""
    ivar: Tensor
    """(n, n_values) float32, inverse variance of ``x``; 0 where there is no measurement."""
    noise_index: Tensor
    """(n, n_values) int64 into the model's table of noise scales, or (1, n_values) when all objects share it."""
    snr: Tensor
    """(n,) signal-to-noise ratio as the catalog reports it."""
    covariates: Tensor
    """(n, 2) float64 that calibration conditions on: log S/N, and log(1 + z) (spectra) or log noise (cutouts)."""
    outside: Tensor
    """(n,) float64 ≥ 0: how far the object lies outside what the training set covered; 0 inside."""
    image: Tensor | None = None
    """(n, n_bands, side, side) float32, cutouts only: normalised flux at full resolution, unmeasured pixels filled
    from around them."""
    seen: Tensor | None = None
    """Float32 of the shape of ``image``: 1 where measured, 0 elsewhere."""

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, index: np.ndarray | slice) -> Prepared:
        """The chosen objects, in the order of ``index``."""
        chosen = {}
        for name, value in self._items():
            shared = name == "noise_index" and len(value) == 1
            chosen[name] = value if shared else value[index]
        return Prepared(**chosen)

    @classmethod
    def join(cls, pieces: Sequence[Prepared]) -> Prepared:
        """Pieces made by one preprocessing, as one."""
        joined = {}
        for name, value in pieces[0]._items():
            shared = name == "noise_index" and pieces[0].image is not None
            joined[name] = value if shared else torch.cat([getattr(p, name) for p in pieces])
        return cls(**joined)

    def _items(self) -> list[tuple[str, Tensor]]:
        found = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, value) for name, value in found if value is not None]
