"""What each image HDU of a cutout file is for: a band, its noise, its mask, or nothing to a reader.

Roles are told by the words of EXTNAME, split at anything but letters and digits: ``VIS_RMS`` is the error
of band ``VIS``, ``IVAR`` the inverse variance of whatever the file holds, ``DES_G_PSF`` no band at all.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from workers.readers import reasons
from workers.readers.fits import FitsFile, Hdu
from workers.readers.reasons import Refused

MIN_SIDE, MAX_SIDE = 16, 512
MAX_PLANES = 12

ROLES = {
    "ivar": {"IVAR"},
    "variance": {"VAR", "VARIANCE", "VARMAP"},
    "error": {
        "ERR",
        "ERROR",
        "ERRORS",
        "RMS",
        "SIGMA",
        "NOISE",
        "STD",
        "STDDEV",
        "UNC",
        "UNCERT",
        "UNCERTAINTY",
    },
    "mask": {"MASK", "DQ", "BADPIX", "BPM", "FLAGS"},
    "weight": {"WEIGHT", "WHT", "WGT"},
    "other": {"PSF", "PSFIMAGE", "MODEL", "BACKGROUND", "BKG", "RESIDUAL", "SEGMENTATION", "SEG", "EXPOSURE"},
}
"""Words of EXTNAME by role. A weight's scale is a matter of convention (exposure time, inverse variance,
relative), so only its zeros are believed."""

UNCERTAINTIES = {"VARIANCEUNCERTAINTY": "variance", "INVERSEVARIANCE": "ivar"}
"""Roles by UTYPE, with which astropy's CCDData (and so the alerts of Rubin) says what its UNCERT holds."""

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

NEUTRAL_WORDS = {"MAP", "PLANE", "ARRAY", "EXT", "BAD", "PIXEL", "PIXELS"}

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


@dataclass(slots=True, eq=False)
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
    """Every image HDU with a use, in file order. Raises Refused when arrays are there, but no image."""
    found, odd = [], []
    for hdu in file.hdus:
        if not hdu.is_image or not hdu.shape:
            continue
        role, band = role_of(hdu.name)
        if role == "error":
            role = UNCERTAINTIES.get(hdu.text("UTYPE").upper(), role)
        shape = _cube(hdu.shape)
        if shape is None:
            odd.append(hdu)
        elif role != "other":
            found.append(Plane(hdu, role, band, shape))
    if odd and not found:
        raise Refused(reasons.NOT_AN_IMAGE, f"HDU {odd[0].index} has shape {odd[0].shape}")
    return found


@lru_cache(maxsize=1000)
def role_of(name: str) -> tuple[str, str]:
    """Role and band by EXTNAME: ``DES_G_RMS`` → ("error", "DES_G"); role ``science`` when no word says
    otherwise. Numbers glued to such a word only count HDUs: ``VAR2`` → ("variance", "").
    """
    name = re.sub(r"inv(erse)?[^a-z0-9]*var(iance)?", "IVAR", name, flags=re.IGNORECASE)
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    plain = {word: word.upper().rstrip("0123456789") for word in words}
    role = next((role for role, known in ROLES.items() if known & set(plain.values())), "science")
    drop = SCIENCE_WORDS | NEUTRAL_WORDS | ROLES.get(role, set())
    return role, "_".join(word for word in words if plain[word] not in drop)


def check_size(bands: list[Plane]) -> None:
    """Raise Refused unless the bands, all of one height and width, have an allowed size."""
    _, height, width = bands[0].shape
    if min(height, width) < MIN_SIDE:
        raise Refused(reasons.TOO_SMALL, f"{width} × {height} pixels")
    if max(height, width) > MAX_SIDE:
        raise Refused(reasons.TOO_WIDE, f"{width} × {height} pixels")
    n_planes = sum(plane.shape[0] for plane in bands)
    if n_planes > MAX_PLANES:
        raise Refused(reasons.TOO_MANY_PLANES, f"{n_planes} planes of {width} × {height} pixels")


def pair(science: list[Plane], planes: list[Plane], role: str) -> list[Plane | None]:
    """The companion in this role of each science HDU, None for those without.

    A companion goes with the band that its EXTNAME names. Those that name none go with every band when there
    is one of them, and with the bands in file order when there is one for each. Raises Refused for any other
    number, and for a name that no band has.
    """
    found: list[Plane | None] = [None] * len(science)
    unnamed = []
    for plane in (plane for plane in planes if plane.role == role):
        named = [n for n, band in enumerate(science) if plane.band.upper() in _names(band)]
        if named:
            found[named[0]] = plane
        elif not plane.band or len(science) == 1:
            unnamed.append(plane)
        else:
            raise Refused(reasons.UNPAIRED, f"{plane.hdu.name} belongs to no band")
    if len(unnamed) == 1:
        found = [own or unnamed[0] for own in found]
    elif len(unnamed) == len(science):
        found = list(unnamed)
    elif unnamed:
        raise Refused(reasons.UNPAIRED, f"{len(unnamed)} of {role} for {len(science)} images")
    return found


def companion(band: Plane, partner: Plane) -> np.ndarray:
    """Pixels of a band's companion, in the band's shape (n_planes, height, width); one plane serves a cube.

    Raises Refused when the shapes differ.
    """
    if partner.shape[1:] != band.shape[1:] or partner.shape[0] not in (1, band.shape[0]):
        raise Refused(reasons.SHAPES_DIFFER, f"{partner.hdu.name} is {partner.shape}, its image {band.shape}")
    pixels = bad_bits(partner) if partner.role == "mask" else partner.pixels()
    return pixels if partner.shape == band.shape else np.broadcast_to(pixels, band.shape)


def bad_bits(plane: Plane) -> np.ndarray:
    """Mask (n_planes, height, width), nonzero where a pixel is bad."""
    pixels = plane.pixels()
    bits = {
        card[3:]: plane.hdu.number(card) for card in plane.hdu.header.names if card.upper().startswith("MP_")
    }
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


def _cube(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    while len(shape) > 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) not in (2, 3) or not math.prod(shape):
        return None
    return (1, shape[0], shape[1]) if len(shape) == 2 else (shape[0], shape[1], shape[2])
