"""Why an object is an outlier: where it departs from its reconstruction, and which parts make its score."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from models.batch import Batch, SpectrumBatch
from models.scorer import Scorer
from models.windows import ImageWindow, SpectralWindow, windows_of


@dataclass(frozen=True, slots=True)
class Explanation:
    """What to show of one object."""

    flux: np.ndarray
    """Normalised flux, NaN where unmeasured: (1, n_values) of a spectrum, the stretched (n_bands, side, side) image."""
    expected: np.ndarray
    """The reconstruction on the grid of the density model, which is coarser than a large image."""
    residual: np.ndarray
    """On the same grid, in σ; 0 where unmeasured."""
    windows: list[SpectralWindow] | list[ImageWindow]
    """At most five that do not overlap, of 4 σ or more, the worst first."""
    shares: dict[str, float]
    """Share of each combined part in the sum of their surprisals."""


def explain(scorer: Scorer, batch: Batch) -> Explanation:
    """Explain one object, a batch of length 1.

    Raises ValueError for a batch of another length.
    """
    if len(batch) != 1:
        raise ValueError(f"an explanation is of one object, this batch has {len(batch)}")
    scores = scorer.score(batch)
    shape = scorer.preprocessing.shape
    with torch.no_grad():
        data = scorer.prepare(batch)
        model = scorer.fitted.model
        weight = model.weight(data)
        expected = model.decode(model.encode(data, weight).mean)
        residual = ((data.x - expected) * weight.sqrt())[0].cpu().numpy()
        seen = (weight > 0)[0].cpu().numpy()
        flux = data.x.reshape(1, *shape) if data.image is None else data.image
        measured = weight.reshape(1, *shape) > 0 if data.seen is None else data.seen > 0
    combined = scorer.calibration.combined
    surprisal = {name: -math.log10(scores.parts[f"{name}_p"][0]) for name in combined}
    total = sum(surprisal.values()) or 1.0
    redshift = float(np.nan_to_num(batch.redshift[0])) if isinstance(batch, SpectrumBatch) else 0.0
    return Explanation(
        flux=torch.where(measured, flux, torch.nan)[0].cpu().numpy(),
        expected=expected[0].cpu().numpy().reshape(shape),
        residual=residual.reshape(shape),
        windows=windows_of(residual, seen, scorer.preprocessing, redshift),
        shares={name: value / total for name, value in surprisal.items()},
    )
