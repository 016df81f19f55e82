"""LAMOST spectra of the early layout: one primary image, a row each for flux, ivar, continuum and masks.

Layout: http://dr5.lamost.org/doc/data-production-description (§ "FITS file of the spectra"). The
wavelengths are in vacuum; the flux is only relative, so its inverse variance is too.
"""

from __future__ import annotations

import numpy as np

from workers.readers import reasons, sky
from workers.readers.fits import FitsFile, Hdu
from workers.readers.reasons import Refused
from workers.readers.sample import LOGLAM_STEP, Spectrum
from workers.readers.sdss import believed_redshift, on_grid

MAX_PIXELS = 20_000


def is_lamost(file: FitsFile) -> bool:
    primary = file.hdus[0]
    return primary.text("TELESCOP").upper() == "LAMOST" and primary.number("COEFF0") is not None


def read_lamost(file: FitsFile) -> Spectrum:
    """Spectrum of a LAMOST file. The and-mask has no bit that is worth keeping. Raises Refused."""
    primary = file.hdus[0]
    shape = primary.shape
    if len(shape) != 2 or shape[0] < 4 or not 1 <= shape[1] <= MAX_PIXELS:
        raise Refused(reasons.LAMOST_ROWS, f"the image has shape {shape}")
    start, step = primary.number("COEFF0"), primary.number("COEFF1")
    if start is None or step is None or abs(step / LOGLAM_STEP - 1) * shape[1] >= 0.1:
        raise Refused(reasons.OFF_GRID, f"COEFF0 = {start}, COEFF1 = {step}")
    rows = primary.image()
    flux, ivar, first = on_grid(rows[0], rows[1], start + step * np.arange(shape[1]), rows[3] != 0)
    ra, dec = sky.from_keys(primary, "RA", "DEC")
    return Spectrum(
        object_id=_identity(file, primary),
        survey="LAMOST",
        path=file.path,
        sha256=file.sha256,
        flux=flux,
        ivar=ivar,
        ra=ra,
        dec=dec,
        flags={"relative-flux"},
        first=first,
        redshift=believed_redshift(primary.get("Z")),
        spectral_class=primary.text("CLASS"),
        object_type=primary.text("OBJTYPE"),
    )


def _identity(file: FitsFile, primary: Hdu) -> str:
    """The part of LAMOST's own file names after ``spec-``: night, plan, spectrograph and fibre."""
    night, spectrograph, fiber = (primary.number(key) for key in ("LMJD", "SPID", "FIBERID"))
    plan = primary.text("PLANID")
    if None in (night, spectrograph, fiber) or not plan:
        return file.stem.removeprefix("spec-")
    return f"{night:.0f}-{plan}_sp{spectrograph:02.0f}-{fiber:03.0f}"
