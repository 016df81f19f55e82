"""SDSS spectra: SDSS-I/II, BOSS/eBOSS and SDSS-V spec files, full and lite.

Layouts: https://data.sdss.org/datamodel/files/SPECTRO_REDUX/RUN2D/spectra/PLATE4/spec.html and the ``spec``
pages of BOSS and SDSS-V. They differ in the case of column names, in HDU names (BOSS files reprocessed by
others often have none), and in how an object is called; the coadd is always one table row per pixel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from workers.readers import reasons, sky
from workers.readers.fits import FitsFile, Hdu, finite
from workers.readers.reasons import Refused
from workers.readers.sample import LOGLAM_STEP, Spectrum

COADD_COLUMNS = {"FLUX", "IVAR", "LOGLAM"}

BAD_BITS = {
    "NOPLUG": 0,
    "BADTRACE": 1,
    "FULLREJECT": 18,
    "NOSKY": 22,
    "NODATA": 24,
    "COMBINEREJ": 25,
    "BADFLUXFACTOR": 26,
    "BADSKYCHI": 27,
    "REDMONSTER": 28,
}
"""SPPIXMASK bits (https://www.sdss.org/dr17/algorithms/bitmasks/#SPPIXMASK) that mask a pixel when and_mask
has them, which means that every exposure had the fault.

They say that the number is no measurement of the object: there was no light or no data (NOPLUG, BADTRACE,
FULLREJECT, NODATA, COMBINEREJ), the sky under it is unknown or badly fitted (NOSKY, BADSKYCHI, REDMONSTER),
or its flux calibration failed (BADFLUXFACTOR). The pipeline sets ivar to 0 for many of these pixels, but
not for all.

Left alone on purpose: BRIGHTSKY, which covers the red of every spectrum and is honest in ivar;
NEARBADPIXEL and LOWFLAT, whose residuals against the pipeline's model are as good as elsewhere;
PARTIALREJECT and SCATTEREDLIGHT, rare and worse by a factor of two to three in χ², yet measured; BADFLAT and
MANYBADCOLUMNS, which mark whole fibres with usable spectra.
"""

BAD_MASK = sum(1 << bit for bit in BAD_BITS.values())

FIRST_BOSS_MJD = 55_100
"""Between the last night of the SDSS spectrographs (July 2009) and the first of the BOSS ones (December
2009)."""

GRID = range(30_000, 46_000)
"""Grid indices believed, 1000 Å to 4 µm: a stray wavelength must not become a long empty spectrum."""

_NAME = re.compile(r"spec-(\d{4,6})-(\d{5})-([0-9A-Za-z]+)", re.IGNORECASE)
_LIMIT = float(np.finfo(np.float32).max)


def find_coadd(file: FitsFile) -> Hdu | None:
    """The table that holds a spectrum, or what was meant to: the first with a column FLUX, LOGLAM or IVAR.

    The exposures of a full spec file have these columns too, further back. A source list beside an image
    may have FLUX, so that without LOGLAM the file must have no image.
    """
    table = next((hdu for hdu in file.hdus[:8] if hdu.is_table and COADD_COLUMNS & hdu.columns.keys()), None)
    if table and "LOGLAM" not in table.columns and any(hdu.is_image and hdu.shape for hdu in file.hdus):
        return None
    return table


def read_sdss(file: FitsFile, coadd: Hdu) -> Spectrum:
    """Spectrum of a spec file. Raises Refused."""
    missing = COADD_COLUMNS - coadd.columns.keys()
    if missing:
        raise Refused(reasons.MISSING_COLUMNS, f"HDU {coadd.index} has no {', '.join(sorted(missing))}")
    bad = _bits(_pixels(coadd, "and_mask")) & BAD_MASK != 0 if "AND_MASK" in coadd.columns else None
    flux, ivar, first = on_grid(_pixels(coadd, "flux"), _pixels(coadd, "ivar"), _pixels(coadd, "loglam"), bad)

    primary, catalog = file.hdus[0], _find_catalog(file, coadd)
    object_id, survey = _identity(file, primary, catalog)
    ra, dec = _position(primary, catalog)
    return Spectrum(
        object_id=object_id,
        survey=survey,
        path=file.path,
        sha256=file.sha256,
        flux=flux,
        ivar=ivar,
        ra=ra,
        dec=dec,
        flags=set() if catalog else {"no-catalogue"},
        first=first,
        redshift=believed_redshift(_cell(catalog, "Z")),
        zwarning=int(finite(_cell(catalog, "ZWARNING")) or 0),
        spectral_class=str(_cell(catalog, "CLASS") or ""),
        object_type=str(_cell(catalog, "OBJTYPE") or _cell(catalog, "SOURCETYPE") or ""),
    )


def believed_redshift(value: Any) -> float | None:
    """A redshift, or None for what is no number or a code such as -9999."""
    z = finite(value)
    return z if z is not None and -1 < z < 30 else None


def on_grid(
    flux: np.ndarray, ivar: np.ndarray, loglam: np.ndarray, bad: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Put pixels (n,) where they belong on the grid, without resampling.

    Returns flux and ivar (n_pixels,) float32, and the grid index of pixel 0. Pixels that are missing in
    between get ivar 0, as do those that are ``bad``, not finite, or have ivar ≤ 0. Raises Refused when a
    wavelength is 0.1 pixels or more off the grid (float32 rounds to 0.003), when they do not rise, or when
    no pixel is good.
    """
    pixel = loglam.astype(np.float64) / LOGLAM_STEP
    index = np.rint(pixel)
    off = np.abs(pixel - index).max()
    if not np.isfinite(off):
        raise Refused(reasons.OFF_GRID, f"{np.count_nonzero(~np.isfinite(pixel))} wavelengths are not finite")
    if off >= 0.1:
        raise Refused(reasons.OFF_GRID, f"a pixel lies {off:.2f} pixels off the grid")
    first, last = int(index[0]), int(index[-1])
    if first < GRID.start or last >= GRID.stop or (index[1:] - index[:-1]).min(initial=1) < 1:
        raise Refused(
            reasons.OFF_GRID, f"log wavelengths from {loglam[0]:.4f} to {loglam[-1]:.4f} do not rise in range"
        )
    ivar32 = np.minimum(ivar, _LIMIT).astype(np.float32)  # one too small for float32 is no measurement
    good = (ivar32 > 0) & (ivar < np.inf) & (np.abs(flux) <= _LIMIT)
    if bad is not None:
        good &= ~bad
    full_flux = np.where(good, flux, 0).astype(np.float32)
    full_ivar = np.where(good, ivar32, 0)
    if last - first + 1 > index.size:
        at = index.astype(np.int64) - first
        full_flux, full_ivar = (_spread(values, at) for values in (full_flux, full_ivar))
    if not full_ivar.any():
        n_nan = np.count_nonzero(~np.isfinite(flux))
        n_ivar = np.count_nonzero(~(ivar > 0))
        raise Refused(
            reasons.NO_GOOD_PIXELS, f"{flux.size} pixels: {n_nan} without flux, {n_ivar} without ivar"
        )
    return full_flux, full_ivar, first


def _spread(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Zeros, but for ``values`` at the indices ``at``, which rise."""
    spread = np.zeros(at[-1] + 1, values.dtype)
    spread[at] = values
    return spread


def _pixels(coadd: Hdu, name: str) -> np.ndarray:
    """A column as (n_pixels,), whether it has a row per pixel or all pixels in one row."""
    values = coadd.column(name)
    if values is None or values.size == 0 or (values.shape[1] != 1 and values.shape[0] != 1):
        raise Refused(
            reasons.BAD_COLUMNS, f"HDU {coadd.index}: {name} is {None if values is None else values.shape}"
        )
    return values.reshape(-1)


def _bits(mask: np.ndarray) -> np.ndarray:
    """Mask words as int64, whatever the column's type; a float column holds whole numbers."""
    if mask.dtype.kind in "iu":
        return mask.astype(np.int64)
    return np.nan_to_num(mask, nan=0, posinf=0, neginf=0).astype(np.int64)


def _find_catalog(file: FitsFile, coadd: Hdu) -> Hdu | None:
    """The pipeline's one-row table of the object: the first with columns CLASS and Z. HDU names are not
    reliable."""
    for hdu in file.hdus[:8]:
        if hdu is not coadd and hdu.is_table and {"CLASS", "Z"} <= hdu.columns.keys():
            return hdu
    return None


def _cell(catalog: Hdu | None, name: str) -> Any:
    return None if catalog is None else catalog.cell(name)


def _identity(file: FitsFile, primary: Hdu, catalog: Hdu | None) -> tuple[str, str]:
    """Object id and survey, from the header, the catalogue row or the file name, in this order."""

    def whole(*names: str) -> int | None:
        found = (
            ask(name) for name in names for ask in (primary.get, catalog.cell if catalog else primary.get)
        )
        values = (finite(value) for value in found)
        return next((int(value) for value in values if value is not None and value >= 0), None)

    name = _NAME.match(file.stem)
    mjd = whole("MJD")
    catalog_id = whole("CATALOGID")
    field = whole("FIELDID", "FIELD")
    if field is not None and mjd is not None and catalog_id is not None:
        # Releases differ in whether they pad the field number, so the file name's spelling is kept.
        if name and (int(name[1]), name[2], name[3]) == (field, str(mjd), str(catalog_id)):
            return f"{name[1]}-{name[2]}-{name[3]}", "SDSS-V"
        return f"{field}-{mjd}-{catalog_id}", "SDSS-V"
    plate, fiber = whole("PLATEID", "PLATE"), whole("FIBERID")
    if plate is not None and mjd is not None and fiber is not None:
        return f"{plate:04d}-{mjd:05d}-{fiber:04d}", "BOSS" if mjd >= FIRST_BOSS_MJD else "SDSS"
    if name is None:
        return file.stem, "SDSS"
    if len(name[3]) > 4:
        return f"{name[1]}-{name[2]}-{name[3]}", "SDSS-V"
    return f"{name[1]}-{name[2]}-{name[3]}", "BOSS" if int(name[2]) >= FIRST_BOSS_MJD else "SDSS"


def _position(primary: Hdu, catalog: Hdu | None) -> sky.Position:
    """Where the fibre pointed. RA and DEC of the primary header count only where they are not the plate's
    centre."""

    def places() -> Iterator[sky.Position]:
        yield sky.from_keys(primary, "PLUG_RA", "PLUG_DEC")
        for ra, dec in (
            ("PLUG_RA", "PLUG_DEC"),
            ("FIBER_RA", "FIBER_DEC"),
            ("RA", "DEC"),
            ("RACAT", "DECCAT"),
        ):
            yield sky.checked(_cell(catalog, ra), _cell(catalog, dec))
        if primary.get("RADEG") is None and primary.get("CARTID") is None:
            yield sky.from_keys(primary, "RA", "DEC")

    return next((place for place in places() if place != sky.NOWHERE), sky.NOWHERE)
