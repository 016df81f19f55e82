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
    """What to show of one object, on the model's grid."""

    flux: np.ndarray
    """(n_values,) normalised flux (stretched, for cutouts); NaN where unmeasured."""
    expected: np.ndarray
    """(n_values,) the reconstruction."""
    residual: np.ndarray
    """(n_values,) in σ; 0 where unmeasured."""
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
    with torch.no_grad():
        data = scorer.prepare(batch)
        _, weight = scorer.fitted.model.variance(data)
        expected = scorer.fitted.model.decode(scorer.fitted.model.encode(data).mean)
        residual = (torch.where(weight > 0, data.x - expected, 0.0) * weight.sqrt())[0].cpu().numpy()
        seen = (weight > 0)[0].cpu().numpy()
    combined = scorer.calibration.combined
    surprisal = {name: -math.log10(scores.parts[f"{name}_p"][0]) for name in combined}
    total = sum(surprisal.values()) or 1.0
    redshift = float(np.nan_to_num(batch.redshift[0])) if isinstance(batch, SpectrumBatch) else 0.0
    return Explanation(
        flux=np.where(seen, data.x[0].cpu().numpy(), np.nan),
        expected=expected[0].cpu().numpy(),
        residual=residual,
        windows=windows_of(residual, seen, scorer.preprocessing, redshift),
        shares={name: value / total for name, value in surprisal.items()},
    )
