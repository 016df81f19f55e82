"""What each image HDU of a cutout file is for: a band, its noise, its mask, or nothing to a reader.

Roles are told by the words of EXTNAME, split at anything but letters and digits: ``VIS_RMS`` is the error
of band ``VIS``, ``IVAR`` the inverse variance of whatever the file holds, ``DES_G_PSF`` no band at all.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from workers.readers import reasons
from workers.readers.fits import FitsFile, Hdu
from workers.readers.reasons import Refused

MIN_SIDE, MAX_SIDE = 16, 512
MAX_PLANES = 12

ROLES = {
    "ivar": {"IVAR", "INVVAR", "INVVARIANCE", "INVERSEVARIANCE"},
    "variance": {"VAR", "VARIANCE", "VARMAP"},
    "error": {"ERR", "ERROR", "ERRORS", "RMS", "SIGMA", "NOISE", "STD", "STDDEV", "UNCERT", "UNCERTAINTY"},
    "mask": {"MASK", "DQ", "BADPIX"},
    "weight": {"WEIGHT", "WHT", "WGT"},
    "other": {"PSF", "MODEL", "BACKGROUND", "BKG", "RESIDUAL", "SEGMENTATION", "SEG", "COVERAGE", "EXPOSURE"},
}
"""Words of EXTNAME by role. A weight's scale is a matter of convention (exposure time, inverse variance,
relative), so only its zeros are believed."""

SCIENCE_WORDS = {
    "SCI",
    "SCIENCE",
    "IMAGE",
    "IMG",
    "DATA",
    "FLUX",
    "BGSUB",
    "CUTOUT",
    "STAMP",
    "PRIMARY",
    "COMPRESSED",
}
"""Words that say that an HDU holds an image, not which."""

NOT_A_FAULT = {
    "DETECTED",
    "DETECTED_NEGATIVE",
    "INTRP",
    "CROSSTALK",
    "NOT_DEBLENDED",
    "INEXACT_PSF",
    "CLIPPED",
    "REJECTED",
}
"""Bits of a mask in the style of the LSST pipelines (``MP_<name>`` cards give the bit numbers) that leave a
pixel good. DETECTED covers the very object that a cutout is made for."""


@dataclass(slots=True)
class Plane:
    """One image HDU: its role, and the band it belongs to ('' where EXTNAME names none)."""

    hdu: Hdu
    role: str
    band: str
    shape: tuple[int, int, int]
    """(n_planes, height, width)."""

    def pixels(self) -> np.ndarray:
        """(n_planes, height, width), native byte order."""
        return self.hdu.image().reshape(self.shape)


def find_planes(file: FitsFile) -> list[Plane]:
    """Every image HDU that holds pixels, in file order, without those of no use. Raises Refused."""
    found = []
    for hdu in file.hdus:
        if not hdu.is_image or not hdu.shape:
            continue
        role, band = role_of(hdu.name)
        if role != "other":
            found.append(Plane(hdu, role, band, _cube(hdu)))
    return found


def role_of(name: str) -> tuple[str, str]:
    """Role and band by EXTNAME: ``DES_G_RMS`` → ("error", "DES_G"); role ``science`` when no word says
    otherwise."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    role = "science"
    for candidate, known in ROLES.items():
        if any(word.upper() in known for word in words):
            role = candidate
            break
    drop = SCIENCE_WORDS if role == "science" else SCIENCE_WORDS | ROLES[role]
    return role, "_".join(word for word in words if word.upper() not in drop)


def check_size(planes: list[Plane]) -> None:
    """Raise Refused unless the bands, all of one shape, have an allowed size."""
    _, height, width = planes[0].shape
    if min(height, width) < MIN_SIDE:
        raise Refused(reasons.TOO_SMALL, f"{width} × {height} pixels")
    if max(height, width) > MAX_SIDE:
        raise Refused(reasons.TOO_WIDE, f"{width} × {height} pixels")
    n_planes = sum(plane.shape[0] for plane in planes)
    if n_planes > MAX_PLANES:
        raise Refused(reasons.TOO_MANY_PLANES, f"{n_planes} planes of {width} × {height} pixels")


def companions(bands: list[Plane], planes: list[Plane], role: str) -> np.ndarray | None:
    """Planes of one role, stacked like the bands: (n_planes, height, width) float64, or None without any.

    A companion belongs to the band that its EXTNAME names. Those that name none go with all bands when
    there is one, with the bands in file order when there are as many as bands. NaN where a band has no
    companion. Raises Refused when they pair with nothing or have other shapes.
    """
    own = [plane for plane in planes if plane.role == role]
    if not own:
        return None
    n_planes, (_, height, width) = sum(plane.shape[0] for plane in bands), bands[0].shape
    starts = np.cumsum([0, *(plane.shape[0] for plane in bands)])
    stack = np.full((n_planes, height, width), np.nan)
    unnamed = [plane for plane in own if not plane.band]
    paired = 0
    for plane in own:
        if plane.band:
            at = [n for n, band in enumerate(bands) if plane.band.upper() in _names(band)]
            if not at and len(bands) == 1 and len(own) == 1:
                at = [0]
        elif len(unnamed) == 1:
            at = list(range(len(bands)))
        elif len(unnamed) == len(bands):
            at = [unnamed.index(plane)]
        else:
            at = []
        if not at:
            continue
        paired += 1
        first, last = int(starts[at[0]]), int(starts[at[-1] + 1])
        if plane.shape[1:] != (height, width) or plane.shape[0] not in (1, last - first):
            raise Refused(
                reasons.SHAPES_DIFFER, f"{plane.hdu.name} {plane.shape}, image {bands[at[0]].shape}"
            )
        pixels = good_bits(plane) if role == "mask" else plane.pixels()
        stack[first:last] = pixels
    if not paired:
        raise Refused(reasons.UNPAIRED, ", ".join(plane.hdu.name for plane in own)[:200])
    return stack


def good_bits(plane: Plane) -> np.ndarray:
    """Mask (n_planes, height, width), nonzero where a pixel is bad."""
    pixels = plane.pixels()
    bits = {card[3:]: plane.hdu.number(card) for card in plane.hdu.header if card.upper().startswith("MP_")}
    if not bits or pixels.dtype.kind not in "iu":
        return pixels
    faults = sum(
        1 << int(bit)
        for name, bit in bits.items()
        if name.upper() not in NOT_A_FAULT and bit is not None and 0 <= bit < 63
    )
    return pixels.astype(np.int64) & faults


def _names(band: Plane) -> set[str]:
    return {name.upper() for name in (band.band, band.hdu.text("FILTER"), band.hdu.text("BAND")) if name}


def _cube(hdu: Hdu) -> tuple[int, int, int]:
    shape = hdu.shape
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) not in (2, 3) or not math.prod(shape):
        raise Refused(reasons.NOT_AN_IMAGE, f"HDU {hdu.index} has shape {hdu.shape}")
    return (1, *shape) if len(shape) == 2 else (shape[0], shape[1], shape[2])
