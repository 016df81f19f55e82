"""What a galaxy, a quasar and a star have in common before light meets the spectrograph."""

from __future__ import annotations

from dataclasses import dataclass

from workers.simulate.grid import Array


@dataclass(slots=True)
class Source:
    """A noise-free object on the observed grid."""

    spectral_class: str
    """GALAXY, QSO or STAR, as the survey's pipeline would say."""
    subclass: str
    redshift: float
    flux: Array
    """Shape (N_PIXELS,), mean 1 in the r band."""
    basis: Array
    """Shape (k, N_PIXELS): the templates that the survey's pipeline would fit to such an object."""
