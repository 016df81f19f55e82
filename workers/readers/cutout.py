"""Image cutouts: a 2-D image, a cube of bands, or one band per HDU, with or without noise and mask planes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from workers.readers import reasons, sky
from workers.readers.fits import FitsFile, Hdu
from workers.readers.noise import estimate_noise, sentinels
from workers.readers.planes import Plane, check_size, companions, find_planes
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

UNMEASURED = 1e-12
"""ivar over its band's median below which a pixel holds no information: some pipelines write an RMS of
1e16."""
_LIMIT = float(np.finfo(np.float32).max)


def read_cutout(file: FitsFile) -> Cutout:
    """Cutout from any of the layouts. Raises Refused."""
    stem = Path(file.path).name.split(".fit")[0].split(".fts")[0]
    if stem.lower() in COMPANION_NAMES:
        raise Refused(reasons.NOT_SCIENCE, stem)
    planes = find_planes(file)
    science = [plane for plane in planes if plane.role == "science"]
    if not science:
        raise Refused(reasons.NO_DATA, "no image HDU that is not a noise, mask or PSF plane")
    bands = [plane for plane in science if plane.shape[1:] == science[0].shape[1:]]
    check_size(bands)
    flags = set() if len(bands) == len(science) else {"bands-dropped"}

    pixels = [plane.pixels() for plane in bands]
    flux = np.concatenate(pixels).astype(np.float64)
    steps = [
        _step(plane, array) for plane, array in zip(bands, pixels, strict=True) for _ in range(len(array))
    ]
    kept = [plane for plane in planes if plane not in science or plane in bands]
    good = np.isfinite(flux) & (np.abs(flux) <= _LIMIT) & _unmasked(bands, kept)
    for image, usable in zip(flux, good, strict=True):
        coded = sentinels(image, usable)
        if coded.any():
            usable &= ~coded
            flags.add("sentinel-masked")
    if not good.any():
        raise Refused(reasons.NO_GOOD_PIXELS, f"{flux.size} pixels, all masked or not finite")
    if all(np.ptp(image[usable]) == 0 for image, usable in zip(flux, good, strict=True) if usable.any()):
        raise Refused(reasons.CONSTANT, f"every pixel is {flux[good][0]:g}")

    ivar = _ivar(bands, kept)
    if ivar is None:
        flags.add("noise-estimated")
        sigma = [estimate_noise(*each) for each in zip(flux, good, steps, strict=True)]
        with np.errstate(divide="ignore"):
            ivar = np.broadcast_to(
                np.where(np.array(sigma) > 0, np.array(sigma, np.float64) ** -2, 0)[:, None, None], flux.shape
            )
    flux32, ivar32 = _masked(flux, ivar, good)
    if not ivar32.any():
        raise Refused(reasons.NO_GOOD_PIXELS, f"{flux.size} pixels, none with a positive ivar")
    if not ivar32.any(axis=(1, 2)).all():
        flags.add("band-empty")

    primary, first = file.hdus[0], bands[0].hdu
    return Cutout(
        object_id=_identity(file.path, stem, [primary, first]),
        survey=next((hdu.text(key) for key in SURVEY_KEYS for hdu in (primary, first) if hdu.text(key)), ""),
        path=file.path,
        sha256=file.sha256,
        flux=flux32,
        ivar=ivar32,
        ra=(place := _position(primary, first, *flux.shape[1:]))[0],
        dec=place[1],
        flags=flags,
        bands=_band_names(primary, bands),
    )


def _unmasked(bands: list[Plane], planes: list[Plane]) -> np.ndarray | bool:
    """True where neither a mask nor a weight plane says that a pixel is bad. NaN means no such plane for a
    band."""
    good: np.ndarray | bool = True
    mask = companions(bands, planes, "mask")
    if mask is not None:
        good = good & ~(np.nan_to_num(mask, nan=0.0) != 0)
    weight = companions(bands, planes, "weight")
    if weight is not None:
        good = good & ~(weight <= 0)
    return good


def _ivar(bands: list[Plane], planes: list[Plane]) -> np.ndarray | None:
    """Inverse variance from the first kind of noise plane there is, (n_bands, height, width) float64."""
    for role, power in (("ivar", 1), ("variance", -1), ("error", -2)):
        noise = companions(bands, planes, role)
        if noise is not None:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                ivar = np.where(noise > 0, noise**power, 0)
            ivar[~np.isfinite(ivar)] = 0
            for band in ivar:
                measured = band[band > 0]
                if measured.size:
                    band[band < UNMEASURED * np.median(measured)] = 0
            return ivar
    return None


def _masked(flux: np.ndarray, ivar: np.ndarray, good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ivar32 = np.where(good, np.minimum(ivar, _LIMIT), 0).astype(np.float32)
    return np.where(ivar32 > 0, flux, 0).astype(np.float32), ivar32


def _step(plane: Plane, pixels: np.ndarray) -> float:
    """Distance of two neighbouring values of an image stored in integers, else 0."""
    bitpix = plane.hdu.number("ZBITPIX" if plane.hdu.is_compressed else "BITPIX") or 0
    return abs(plane.hdu.number("BSCALE") or 1.0) if bitpix > 0 else 0.0


def _identity(path: str, stem: str, headers: list[Hdu]) -> str:
    """The header's name of the object where it tells objects apart, which takes a digit, else the file's."""
    for key in ID_KEYS:
        for hdu in headers:
            name = hdu.text(key)
            if re.search(r"\d", name) and name not in ("0", "-1"):
                return name
    if stem.lower() in COMMON_NAMES or len(stem) == 1:
        return f"{Path(path).absolute().parent.name}-{stem}"
    return stem


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
        listed = [
            name
            for name in re.split(r"[\s,;]+", _cube_text(primary, plane.hdu, ("BANDS", "FILTERS")))
            if name
        ]
        for n in range(n_planes):
            numbered = _cube_text(primary, plane.hdu, [f"{key}{n + 1}" for key in BAND_KEYS])
            names.append(numbered or (listed[n] if len(listed) == n_planes else f"band{len(names)}"))
    return tuple(names)


def _cube_text(primary: Hdu, hdu: Hdu, keys: list[str] | tuple[str, ...]) -> str:
    return next((each.text(key) for key in keys for each in (hdu, primary) if each.text(key)), "")
