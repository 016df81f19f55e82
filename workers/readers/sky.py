"""Positions: from header cards or a WCS to ICRS degrees."""

from __future__ import annotations

import math
import re
from typing import Any

from workers.readers.fits import Hdu, finite

Position = tuple[float | None, float | None]
NOWHERE: Position = (None, None)


def checked(ra: Any, dec: Any) -> Position:
    """Degrees with ra in [0, 360), or NOWHERE for anything that is no position on the sky."""
    ra, dec = finite(ra), finite(dec)
    if ra is None or dec is None or not -360 <= ra <= 360 or not -90 <= dec <= 90:
        return NOWHERE
    return ra % 360 % 360, dec  # twice: -1e-20 % 360 is 360.0


def from_keys(hdu: Hdu, ra_key: str, dec_key: str) -> Position:
    """Position from two header cards in degrees, in sexagesimal text (hours, degrees), or in radians.

    Radians are known by the card's comment: the images of the lens-finding challenge have ``RA = … /
    radians``.
    """
    ra, dec = hdu.get(ra_key), hdu.get(dec_key)
    if isinstance(ra, str) and isinstance(dec, str):
        return _from_text(ra, dec)
    if finite(ra) is not None and finite(dec) is not None and hdu.header.says(ra_key, "radian"):
        return checked(math.degrees(ra), math.degrees(dec))
    return checked(ra, dec)


def _from_text(ra: str, dec: str) -> Position:
    from astropy.coordinates import SkyCoord

    try:
        if ":" in ra or " " in ra.strip():
            place = SkyCoord(ra, dec, unit=("hourangle", "deg"))
            return checked(float(place.ra.deg), float(place.dec.deg))
        return checked(float(ra), float(dec))
    except ValueError:
        return NOWHERE


def from_wcs(hdu: Hdu, height: int, width: int) -> Position:
    """Position of the centre of an image by its celestial WCS, or NOWHERE."""
    if not any(hdu.text(f"CTYPE{n}") for n in (1, 2)):
        return NOWHERE
    x, y = (width - 1) / 2, (height - 1) / 2
    if (place := _tangent(hdu, x, y)) is not None:
        return checked(*place)
    from astropy.wcs import WCS

    try:
        wcs = WCS(hdu.header.astropy, fix=False).celestial
        if wcs.naxis != 2:
            return NOWHERE
        # FK5 and ICRS differ by less than 0.1 arcsec, so equatorial axes are taken as they are.
        if hdu.text("CTYPE1").startswith(("RA", "DEC")) and hdu.text("RADESYS") in ("", "ICRS", "FK5"):
            lon, lat = wcs.all_pix2world(x, y, 0)
        else:
            place = wcs.pixel_to_world(x, y).icrs
            lon, lat = place.ra.deg, place.dec.deg
    # wcslib and astropy raise a dozen kinds of error on a broken WCS; the image is good without a position.
    except Exception:
        return NOWHERE
    return checked(float(lon), float(lat))


_CENTRE = ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2")
_PC = {"PC1_1": 1.0, "PC1_2": 0.0, "PC2_1": 0.0, "PC2_2": 1.0}
_CDELT = {"CDELT1": 1.0, "CDELT2": 1.0}
_CD = {"CD1_1": 0.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.0}
_TANGENT = {
    "CTYPE1": ("RA---TAN",), "CTYPE2": ("DEC--TAN",), "CUNIT1": ("", "deg"), "CUNIT2": ("", "deg"),
    "RADESYS": ("", "ICRS", "FK5"), "RADECSYS": ("", "ICRS", "FK5"), "LONPOLE": ("", "180.0", "180"),
}  # fmt: skip
_PLAIN = {*_CENTRE, *_PC, *_CDELT, *_CD, *_TANGENT, "WCSAXES", "EQUINOX", "LATPOLE"}
_OF_A_WCS = re.compile(
    r"(CTYPE|CRPIX|CRVAL|CDELT|CUNIT|CROTA)\d|(CD|PC|PV|PS|DP|DQ)\d|(A|B|AP|BP)_|CPDIS|CQDIS"
    r"|LONPOLE|LATPOLE|RADE|WCSAXES|EQUINOX"
)


def _tangent(hdu: Hdu, x: float, y: float) -> tuple[float, float] | None:
    """(ra, dec) in degrees of pixel (x, y), counted from 0, in a plain tangential projection of equatorial
    axes.

    Calabretta & Greisen 2002, A&A 395, 1077, § 5.1.3 with the native pole in the tangential point. None where a
    card says that there is more to the WCS, which is left to astropy.
    """
    if not _PLAIN.issuperset(name for name in hdu.header.names if _OF_A_WCS.match(name)):
        return None
    if any(hdu.text(key) not in allowed for key, allowed in _TANGENT.items()):
        return None
    scales = _CD if any(key in hdu.header for key in _CD) else _PC | _CDELT
    if scales is _CD and any(key in hdu.header for key in _PC):
        return None
    given = {key: hdu.number(key) if key in hdu.header else default for key, default in scales.items()}
    given |= {key: hdu.number(key) for key in _CENTRE}
    v = {key: number for key, number in given.items() if number is not None}
    if len(v) < len(given):
        return None
    dx, dy, dec = x + 1 - v["CRPIX1"], y + 1 - v["CRPIX2"], math.radians(v["CRVAL2"])
    if abs(dec) >= math.pi / 2:  # there LONPOLE has another default
        return None
    if scales is _CD:
        (a, b), (c, d) = (v["CD1_1"], v["CD1_2"]), (v["CD2_1"], v["CD2_2"])
    else:
        a, b = v["CDELT1"] * v["PC1_1"], v["CDELT1"] * v["PC1_2"]
        c, d = v["CDELT2"] * v["PC2_1"], v["CDELT2"] * v["PC2_2"]
    if a * d == b * c:
        return None
    xi, eta = math.radians(a * dx + b * dy), math.radians(c * dx + d * dy)
    towards = math.cos(dec) - eta * math.sin(dec)
    ra = v["CRVAL1"] + math.degrees(math.atan2(xi, towards))
    return ra % 360, math.degrees(math.atan2(math.sin(dec) + eta * math.cos(dec), math.hypot(xi, towards)))
