"""What goes into a Scorer and what comes out: batches of arrays in, arrays of scores out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(slots=True)
class SpectrumBatch:
    """n spectra on the 1e-4-dex grid of log10(vacuum wavelength in Å), observed frame."""

    flux: np.ndarray
    """(n, n_pixels) float32; row i starts at its own ``first[i]``, short rows are padded."""
    ivar: np.ndarray
    """(n, n_pixels) float32, inverse variance; 0 where masked, unmeasured or padded."""
    first: np.ndarray
    """(n,) int64, grid index of column 0: round(1e4 · log10 λ)."""
    redshift: np.ndarray
    """(n,) float64; NaN where there is none to trust, which are scored in the observed frame."""

    kind = "spectrum"

    def __len__(self) -> int:
        return len(self.flux)


@dataclass(slots=True)
class CutoutBatch:
    """n cutouts of one shape, the bands in the order of the training set."""

    flux: np.ndarray
    """(n, n_bands, height, width) float32, in the survey's own flux units."""
    ivar: np.ndarray
    """The same shape, inverse variance; 0 where masked or padded."""

    kind = "cutout"

    def __len__(self) -> int:
        return len(self.flux)


Batch = SpectrumBatch | CutoutBatch


@dataclass(slots=True)
class Scores:
    """One row per object of the batch; every number is finite.

    All arrays have n rows and are float64 unless said otherwise.
    """

    elbo: np.ndarray
    """Evidence lower bound in nats."""
    log_px: np.ndarray
    """Importance-weighted bound on log p(x) in nats (Burda et al. 2016, eq. 8)."""
    log_density: np.ndarray
    """Log density of the latent under the Gaussian mixture, in nats."""
    chi2: np.ndarray
    """Reconstruction χ² per degree of freedom over the unmasked pixels."""
    score: np.ndarray
    """The combined anomaly score: larger is more anomalous."""
    p_value: np.ndarray
    """In (0, 1]; uniform for objects drawn like the training set."""
    latent: np.ndarray
    """(n, n_latent) float32, posterior mean."""
    latent_var: np.ndarray
    """(n, n_latent) float32, posterior variance."""
    responsibilities: np.ndarray
    """(n, n_clusters) float32: probability of each lensing cluster; rows sum to 1."""
    snr: np.ndarray
    """Median flux·√ivar per unmasked pixel for spectra, total over the centre for cutouts."""
    parts: dict[str, np.ndarray]
    """Score components by name, each larger for a more anomalous object, and ``<name>_p``, its own p-value."""
    windows: list[list[dict[str, Any]]]
    """For objects with p ≤ 0.05, the windows that depart most from the reconstruction (models/windows.py)."""
    explanations: list[bytes | None]
    """For the same objects what to show of them (models/explanation.py); None for the others."""
    flags: list[set[str]]
    """Remarks by object, such as ``outside-domain``."""

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def join(cls, pieces: Sequence[Scores]) -> Scores:
        """The rows of all pieces in their order; they are of one model."""
        if len(pieces) == 1:
            return pieces[0]

        def joined(values: list[Any]) -> Any:
            if isinstance(values[0], dict):
                return {name: joined([value[name] for value in values]) for name in values[0]}
            if isinstance(values[0], list):
                return [row for value in values for row in value]
            return np.concatenate(values)

        names = (field.name for field in fields(cls))
        return cls(**{name: joined([getattr(piece, name) for piece in pieces]) for name in names})
