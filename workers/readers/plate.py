"""spPlate files: all spectra of an SDSS plate in one FITS file, with their redshifts in the spZbest beside it.

Layout: https://data.sdss.org/datamodel/files/BOSS_SPECTRO_REDUX/RUN2D/PLATE4/spPlate.html. HDU 0 flux, 1 ivar,
2 and-mask, all (n_fibres, n_pixels); HDU 5 the plug map, a row a fibre; wavelengths from COEFF0 and COEFF1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workers.readers import reasons, sky
from workers.readers.fits import FitsFile, Hdu, finite, parse, read_bytes, sha256_of
from workers.readers.reasons import Refused
from workers.readers.sample import LOGLAM_STEP, Rejection, Spectrum
from workers.readers.sdss import BAD_MASK, FIRST_BOSS_MJD, believed_redshift, on_grid

NAME = re.compile(r"spPlate(-.*\.fits(\.gz)?)", re.IGNORECASE)
N_HDUS = 6


def read_fibres(path: str, fibres: Sequence[int]) -> Iterator[Spectrum | Rejection]:
    """Spectra of a plate by fibre number, counted from 1 as in FIBERID; the file is read once.

    The sha256 of a fibre is that of the plate's and the redshift file's with the fibre's number, so that it is
    another observation when either has changed, and never a duplicate of its neighbour.
    """
    try:
        plate = _opened(path)
        best = _redshifts(path)
        flux, ivar, mask = (plate.hdus[n].image() for n in range(3))
        start, step = (plate.hdus[0].number(key) for key in ("COEFF0", "COEFF1"))
        if start is None or step is None or abs(step / LOGLAM_STEP - 1) * flux.shape[1] >= 0.1:
            raise Refused(reasons.OFF_GRID, f"COEFF0 = {start}, COEFF1 = {step}")
        loglam = start + step * np.arange(flux.shape[1])
    except Refused as refused:
        for fibre in fibres:
            yield Rejection(f"{path}#{fibre}", refused.reason, refused.detail, "spectrum")
        return
    for fibre in fibres:
        name = f"{path}#{fibre}"
        bytes_of_it = f"{plate.sha256} {best.sha256 if best else ''} {fibre}"
        sha256 = hashlib.sha256(bytes_of_it.encode()).hexdigest()
        try:
            if not 1 <= fibre <= len(flux):
                raise Refused(reasons.NO_MEMBER, f"{len(flux)} fibres")
            row = fibre - 1
            bad = mask[row].astype(np.int64) & BAD_MASK != 0
            on = on_grid(flux[row], ivar[row], loglam, bad)
            yield _spectrum(plate, best, name, sha256, fibre, on)
        except Refused as refused:
            yield Rejection(name, refused.reason, refused.detail, "spectrum", sha256)


def count_fibres(path: str) -> int:
    """Fibres of a plate. Raises Refused."""
    return _opened(path).hdus[0].shape[0]


def _opened(path: str) -> FitsFile:
    raw = read_bytes(path)
    plate = parse(path, raw, sha256_of(raw))
    shapes = {hdu.shape for hdu in plate.hdus[:3] if hdu.is_image}
    if len(plate.hdus) < N_HDUS or len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise Refused(reasons.NOT_A_PLATE, f"{len(plate.hdus)} HDUs, images {sorted(shapes)}")
    return plate


def _redshifts(path: str) -> FitsFile | None:
    """The spZbest file beside a plate; None where there is none that can be read."""
    beside = Path(path).with_name(NAME.sub(r"spZbest\1", Path(path).name))
    try:
        raw = read_bytes(str(beside))
        file = parse(str(beside), raw, sha256_of(raw))
        return file if len(file.hdus) > 1 and {"Z", "FIBERID"} <= file.hdus[1].columns.keys() else None
    except Refused:
        return None


def _row_of(table: Hdu, fibre: int) -> int | None:
    fibres = table.column("FIBERID")
    if fibres is None or not (found := np.flatnonzero(fibres[:, 0] == fibre)).size:
        return None
    return int(found[0])


def _spectrum(
    plate: FitsFile,
    best: FitsFile | None,
    name: str,
    sha256: str,
    fibre: int,
    on: tuple[np.ndarray, np.ndarray, int],
) -> Spectrum:
    primary, plugs = plate.hdus[0], plate.hdus[5]
    found = best.hdus[1] if best else None
    plug, row = _row_of(plugs, fibre), _row_of(found, fibre) if found else None

    def cell(table: Hdu | None, at: int | None, key: str) -> Any:
        return None if table is None or at is None else table.cell(key, at)

    ra, dec = sky.checked(cell(plugs, plug, "RA"), cell(plugs, plug, "DEC"))
    number, mjd = int(primary.number("PLATEID") or 0), int(primary.number("MJD") or 0)
    flux, ivar, first = on
    return Spectrum(
        object_id=f"{number:04d}-{mjd:05d}-{fibre:04d}",
        survey="BOSS" if mjd >= FIRST_BOSS_MJD else "SDSS",
        path=name,
        sha256=sha256,
        flux=flux,
        ivar=ivar,
        ra=ra,
        dec=dec,
        flags=set() if row is not None else {"no-catalogue"},
        first=first,
        redshift=believed_redshift(cell(found, row, "Z")),
        zwarning=int(finite(cell(found, row, "ZWARNING")) or 0),
        spectral_class=str(cell(found, row, "CLASS") or ""),
        object_type=str(cell(plugs, plug, "OBJTYPE") or ""),
    )
