"""What the writer takes: one ScoredRow or one RejectedRow for each input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.catalog.statements import finite_json


@dataclass(slots=True)
class ScoredRow:
    """An input that was read and scored."""

    kind: str
    survey: str
    object_id: str
    path: str
    sha256: str
    ra: float | None
    """ICRS, degrees; None (or NaN) where unknown."""
    dec: float | None
    night: str
    """YYYY-MM-DD; kept from the first scoring of these bytes under this path."""
    redshift: float | None
    spectral_class: str
    zwarning: int
    reader_flags: set[str]
    model: str
    """Id of a registered model, name@hash12."""
    elbo: float
    log_px: float
    log_density: float
    chi2: float
    score: float
    p_value: float
    cluster: int
    cluster_probability: float
    snr: float
    flags: set[str]
    parts: dict[str, float]
    latent: np.ndarray
    """(n_latent,) float32"""
    latent_var: np.ndarray
    """(n_latent,) float32"""
    responsibilities: np.ndarray
    """(n_clusters,) float32"""
    windows: list[dict[str, Any]] = field(default_factory=list)
    """What departs most from the reconstruction, for outliers; JSON values."""
    explanation: bytes | None = None
    """What to show of an outlier, as ``models.explanation`` packs it."""


@dataclass(slots=True)
class RejectedRow:
    """An input that was not scored, and why."""

    path: str
    reason: str
    """Short and stable, the same for every file with this fault."""
    detail: str = ""
    kind: str = ""
    model: str = ""
    """Id of the model that could not score it; empty where no model was at fault."""
    sha256: str = ""
    """Of the rejected bytes, where known: scores of other bytes at this path are then out of date."""


@dataclass(slots=True)
class ModelRow:
    """A trained bundle, as the catalog lists it."""

    id: str
    """name@hash12"""
    name: str
    kind: str
    path: str
    """Folder of the bundle."""
    n_training: int
    smallest_p: float | None
    """The smallest p-value that its calibration set can resolve."""
    cluster_weights: list[float]
    """(n_clusters,), sum to 1"""
    held_out: dict[str, object] = field(default_factory=dict)
    """Held-out figures by name, JSON values."""
    domain: dict[str, object] = field(default_factory=dict)
    """What the training set covered, JSON values."""
    reference: dict[str, object] | None = None
    """What drift is measured against, as ``service.catalog.drift.reference`` makes it."""


def described(row: ScoredRow) -> dict[str, Any]:
    """A row that is not in the catalog, with the columns that it can have without."""
    names = (
        "object_id", "kind", "survey", "ra", "dec", "redshift", "spectral_class", "model", "chi2", "score", "p_value",
        "cluster", "cluster_probability", "snr", "parts", "windows",
    )  # fmt: skip
    plain: dict[str, Any] = finite_json({name: getattr(row, name) for name in names})
    return plain | {"flags": ",".join(sorted(row.flags | row.reader_flags))}
