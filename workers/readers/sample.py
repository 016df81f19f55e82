"""What a reader returns: a sample (a spectrum or a cutout), or a rejection that says what to do."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

LOGLAM_STEP = 1e-4
"""Spacing of the SDSS wavelength grid in log10(Å); pixel i of the grid lies at loglam = LOGLAM_STEP * i."""


@dataclass(slots=True)
class Sample:
    """What spectra and cutouts have in common.

    ``flux`` and ``ivar`` are native float32 of one shape. ``ivar`` is 0 exactly where a pixel is masked or
    was not measured; there ``flux`` is 0 too, so no NaN ever leaves a reader.
    """

    object_id: str
    """Survey identity from the header or the file name, such as ``0266-51602-0031``."""
    survey: str
    path: str
    sha256: str
    """Of the file's bytes as they lie on disk."""
    flux: np.ndarray
    ivar: np.ndarray
    ra: float | None = None
    """ICRS, degrees; None where neither header keys nor a WCS give it."""
    dec: float | None = None
    flags: set[str] = field(default_factory=set)
    """Remarks that travel to the catalog row, such as ``noise-estimated``."""


@dataclass(slots=True)
class Spectrum(Sample):
    """One spectrum: ``flux`` (n_pixels,) in 1e-17 erg/s/cm²/Å, ``ivar`` (n_pixels,) in its inverse square."""

    kind = "spectrum"
    first: int = 0
    """Grid index of the first pixel: round(loglam[0] / LOGLAM_STEP), 35500 at 3548 Å."""
    redshift: float | None = None
    zwarning: int = 0
    spectral_class: str = ""
    """The pipeline's CLASS (GALAXY, QSO, STAR), or empty."""
    object_type: str = ""
    """What the fibre was meant for (OBJTYPE or SOURCETYPE), or empty."""


@dataclass(slots=True)
class Cutout(Sample):
    """One image: ``flux`` (n_bands, height, width) in the file's units, ``ivar`` of that shape in its
    inverse square."""

    kind = "cutout"
    bands: tuple[str, ...] = ()
    """Band names in the order of the planes; ``band0``, ``band1`` … where the file names none."""


@dataclass(slots=True)
class Rejection:
    """Why a file gives no sample."""

    path: str
    reason: str
    """A short stable sentence, the same for every file with this fault, that says what is wrong and what to
    do."""
    detail: str = ""
    """The particulars of this file (sizes, names, the library's own words)."""
    kind: str = ""
    """``spectrum`` or ``cutout`` where the file shows what it was meant to be."""
    sha256: str = ""
