"""One row of the truth table: what was simulated, and where its file lies."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Truth:
    path: str
    """Relative to the folder of truth.csv, with forward slashes."""
    object_id: str
    is_anomaly: int
    """1 or 0."""
    class_: str
    """The anomaly's kind, or the class of a normal object."""
    base: str
    """The class underneath."""
    z: float
    """Redshift; 0 for cutouts."""
    mag: float
    """r magnitude."""
    snr: float
    """Spectra: median per pixel. Cutouts: of the central 13 × 13 pixels in r."""
    strength: float
    """Of the anomaly, in the units its docstring says; 0 for normal objects."""
    detail: str

    def row(self) -> list[str]:
        values = [getattr(self, field.name) for field in fields(self)]
        return [f"{value:.6g}" if isinstance(value, float) else str(value) for value in values]


COLUMNS = [field.name.rstrip("_") for field in fields(Truth)]
