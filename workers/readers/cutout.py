"""Image cutouts: a 2-D image, a cube of bands, or one band per HDU, with or without noise and mask planes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from workers.readers import reasons, sky
from workers.readers.fits import FitsFile, Hdu
from workers.readers.noise import estimate_noise, sentinels
from workers.readers.planes import Plane, check_size, companion, find_planes, pair
from workers.readers.reasons import Refused
from workers.readers.sample import Cutout

ID_KEYS = ("OBJID", "OBJ_ID", "OBJECTID", "OBJECT_ID", "SOURCEID", "SOURCE_ID", "OBJNAME", "OBJECT", "NAME")
SURVEY_KEYS = ("SURVEY", "TELESCOP", "INSTRUME")
BAND_KEYS = ("BAND", "FILTER")

COMPANION_NAMES = {
    "psf",
    "noise_map",
    "noise",
    "rms",
    "rms_map",
    "weight",
    "weight_map",
    "ivar",
    "mask",
    "model",
}
"""File names that belong to a picture of something else than an object."""
COMMON_NAMES = {"data", "image", "img", "sci", "science", "cutout", "stamp", "coadd", "cube"}
"""File names that many objects share: the folder's name is put in front of them, and of single letters."""

POWERS = {"ivar": 1, "variance": -1, "error": -2}
"""What a plane of this role holds, as a power of the inverse variance's inverse; the first that is there counts."""

UNMEASURED = 1e-12
"""ivar over its band's median below which a pixel holds no information: some pipelines write an RMS of
1e16."""
_LIMIT = float(np.finfo(np.float32).max)
_TINY = float(np.finfo(np.float32).tiny)


def read_cutout(file: FitsFile) -> Cutout:
    """Cutout from any of the layouts. Raises Refused."""
    if file.stem.lower() in COMPANION_NAMES:
        raise Refused(reasons.NOT_SCIENCE, file.stem)
    planes = find_planes(file)
    science = [plane for plane in planes if plane.role == "science"]
    if not science:
        raise Refused(reasons.NO_DATA, "no image HDU that is not a noise, mask or PSF plane")
    bands = [plane for plane in science if plane.shape[1:] == science[0].shape[1:]]
    check_size(bands)
    flags = set() if len(bands) == len(science) else {"bands-dropped"}

    found = {role: pair(science, planes, role) for role in ("mask", "weight", *POWERS)}
    parts = []
    for n, band in enumerate(science):
        if band in bands:
            own = {role: partner for role, partners in found.items() if (partner := partners[n])}
            parts.append(_measure(band, own, flags))
    flux, good, ivar = (
        np.concatenate(part) if len(part) > 1 else part[0] for part in zip(*parts, strict=True)
    )
    if not good.any():
        raise Refused(reasons.NO_GOOD_PIXELS, f"{flux.size} pixels, all masked or not finite")
    if not any(_varies(image, usable) for image, usable in zip(flux, good, strict=True)):
        raise Refused(reasons.CONSTANT, f"every pixel is {flux[good][0]:g}")
    ivar[~good] = 0
    flux32, ivar32 = _as_float32(flux, ivar)
    if not ivar32.any(axis=(1, 2)).all():
        flags.add("band-empty")

    primary, first = file.hdus[0], bands[0].hdu
    ra, dec = _position(primary, first, *flux.shape[1:])
    return Cutout(
        object_id=_identity(file, [primary, first]),
        survey=_first_text(first, primary, SURVEY_KEYS),
        path=file.path,
        sha256=file.sha256,
        flux=flux32,
        ivar=ivar32,
        ra=ra,
        dec=dec,
        flags=flags,
        bands=_band_names(primary, bands),
    )


def _measure(
    band: Plane, own: dict[str, Plane], flags: set[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flux, True where it is a measurement, and ivar of one HDU, all (n_planes, height, width).

    ``own`` are the band's companions by role. What there is to remark goes into ``flags``.
    """
    flux = band.pixels()
    step = _step(band)
    if flux.dtype.kind != "f":
        flux = flux.astype(np.float64)
    good = np.abs(flux) <= _LIMIT  # false for NaN and infinity
    if "mask" in own:
        good &= companion(band, own["mask"]) == 0
    if "weight" in own:
        weight = companion(band, own["weight"])
        good &= (weight > 0) & (weight < np.inf)
    coded = sentinels(flux, good)
    if coded.any():
        good &= ~coded
        flags.add("sentinel-masked")
    role = next((role for role in POWERS if role in own), None)
    if role is not None:
        return flux, good, _inverse(companion(band, own[role]), POWERS[role])
    flags.add("noise-estimated")
    sigmas = [estimate_noise(image, usable, step) for image, usable in zip(flux, good, strict=True)]
    ivars = np.array([sigma**-2 if sigma > 0 else 0 for sigma in sigmas])
    return flux, good, np.repeat(ivars, flux[0].size).reshape(flux.shape)


def _varies(image: np.ndarray, usable: np.ndarray) -> bool:
    first = image.flat[usable.argmax()]
    return bool(((image != first) & usable).any())


def _inverse(noise: np.ndarray, power: int) -> np.ndarray:
    """Inverse variance (n_planes, height, width) from planes of ivar (power 1), variance (-1) or error (-2).

    0 where the plane is not positive, not finite, or says that there was no measurement.
    """
    if power == -1 and noise.dtype == np.float32:
        with np.errstate(divide="ignore", over="ignore"):
            ivar = 1 / noise
        low, high = ivar.min(), ivar.max()
        if low >= max(_TINY, UNMEASURED * high) and high <= _LIMIT:
            return (
                ivar  # nothing to look after, as in most files; rounded as the quotient in float64 would be
            )
    ivar = noise.astype(np.float64)
    usable = (ivar > 0) & (ivar < np.inf)
    if power < 0:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ivar = 1 / ivar if power == -1 else 1 / ivar**2
        usable &= ivar < np.inf
    ivar = np.where(usable, ivar, 0)
    for band in ivar:
        # The median lies below the maximum, and costs more than all the rest.
        if np.count_nonzero(band < UNMEASURED * band.max()) > np.count_nonzero(band == 0):
            band[band < UNMEASURED * np.median(band[band > 0])] = 0
    return ivar


def _as_float32(flux: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in float32, flux 0 where ivar is; changes them in place.

    Raises Refused when there is nothing left, or not the same.
    """
    largest = ivar.max()
    if not largest > 0:
        raise Refused(reasons.NO_GOOD_PIXELS, f"{flux.size} pixels, none with a positive ivar")
    if largest > _LIMIT or np.count_nonzero(ivar < _TINY) > np.count_nonzero(ivar == 0):
        typical = float(np.median(ivar[ivar > 0]))
        if not _TINY <= typical <= _LIMIT:
            raise Refused(reasons.UNITS, f"the noise is {typical**-0.5:.1e}")
    ivar32 = (np.minimum(ivar, _LIMIT) if largest > _LIMIT else ivar).astype(np.float32, copy=False)
    flux[ivar32 == 0] = 0
    return flux.astype(np.float32, copy=False), ivar32


def _step(plane: Plane) -> float:
    """Distance of two neighbouring values of an image stored in integers, else 0."""
    bitpix = plane.hdu.number("ZBITPIX" if plane.hdu.is_compressed else "BITPIX") or 0
    return abs(plane.hdu.number("BSCALE") or 1.0) if bitpix > 0 else 0.0


def _identity(file: FitsFile, headers: list[Hdu]) -> str:
    """The header's name of the object where it tells objects apart, which takes a digit, else the file's."""
    for key in ID_KEYS:
        for hdu in headers:
            name = hdu.text(key)
            if re.search(r"\d", name) and name not in ("0", "-1"):
                return name
    if file.stem.lower() in COMMON_NAMES or len(file.stem) == 1:
        return f"{Path(file.path).absolute().parent.name}-{file.stem}"
    return file.stem


def _position(primary: Hdu, first: Hdu, height: int, width: int) -> sky.Position:
    for hdu in (first, primary):
        place = sky.from_keys(hdu, "RA", "DEC")
        if place != sky.NOWHERE:
            return place
    return sky.from_wcs(first, height, width)


def _band_names(primary: Hdu, bands: list[Plane]) -> tuple[str, ...]:
    """A name per plane: from EXTNAME, BAND or FILTER; for cubes BAND1, BAND2 … or a list in BANDS."""
    names: list[str] = []
    for plane in bands:
        n_planes = plane.shape[0]
        if n_planes == 1:
            own = (plane.hdu.text(key) for key in BAND_KEYS)
            shared = (primary.text(key) for key in BAND_KEYS if len(bands) == 1)
            names.append(next((name for name in (plane.band, *own, *shared) if name), f"band{len(names)}"))
            continue
        numbered = [
            _first_text(primary, plane.hdu, [f"{key}{n + 1}" for key in BAND_KEYS]) for n in range(n_planes)
        ]
        listed = "" if all(numbered) else _first_text(primary, plane.hdu, ("BANDS", "FILTERS"))
        words = [word for word in re.split(r"[\s,;]+", listed) if word]
        if len(words) != n_planes:
            words = [f"band{len(names) + n}" for n in range(n_planes)]
        names += [own or word for own, word in zip(numbered, words, strict=True)]
    return tuple(names)


def _first_text(primary: Hdu, hdu: Hdu, keys: Sequence[str]) -> str:
    return next((text for key in keys for each in (hdu, primary) if (text := each.text(key))), "")
