"""Positions: from header cards or a WCS to ICRS degrees."""

from __future__ import annotations

import math
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
    if "radian" in hdu.header.comment(ra_key).lower() and finite(ra) is not None and finite(dec) is not None:
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
    from astropy.wcs import WCS

    try:
        wcs = WCS(hdu.header.astropy, fix=False).celestial
        if wcs.naxis != 2:
            return NOWHERE
        x, y = (width - 1) / 2, (height - 1) / 2
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
