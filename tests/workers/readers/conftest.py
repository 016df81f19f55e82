"""FITS files made on the fly, in the layouts of the surveys."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

FIRST, N_PIXELS = 35_500, 200


def spectrum_hdus(
    *,
    n: int = N_PIXELS,
    first: int = FIRST,
    upper: bool = False,
    and_mask: bool = True,
    named: bool = True,
    header: dict[str, Any] | None = None,
    row: dict[str, Any] | None = None,
    change: dict[str, np.ndarray | None] | None = None,
) -> fits.HDUList:
    """An SDSS file: primary, coadd, catalogue. ``change`` replaces columns of the coadd, None drops them."""
    columns: dict[str, np.ndarray | None] = {
        "flux": np.linspace(1, 2, n, dtype=np.float32),
        "loglam": ((first + np.arange(n)) * 1e-4).astype(np.float32),
        "ivar": np.full(n, 4, np.float32),
        "and_mask": np.zeros(n, np.int32) if and_mask else None,
        "or_mask": np.zeros(n, np.int32),
        **(change or {}),
    }
    primary = fits.PrimaryHDU()
    primary.header.update(
        {
            "PLUG_RA": 10.5,
            "PLUG_DEC": -1.25,
            "PLATEID": 266,
            "MJD": 51602,
            "FIBERID": 31,
            "RA": 9.0,
            "DEC": 0.0,
        }
        if header is None
        else header
    )
    coadd = fits.BinTableHDU.from_columns(
        [
            _column(key.upper() if upper else key, array)
            for key, array in columns.items()
            if array is not None
        ],
        name="COADD" if named else None,
    )
    row = {"CLASS": "QSO", "SUBCLASS": "BROADLINE", "Z": 1.5, "ZWARNING": 4, "OBJTYPE": "QSO", **(row or {})}
    catalog = fits.BinTableHDU.from_columns(
        [_column(key, np.array([value])) for key, value in row.items()], name="SPALL" if named else None
    )
    return fits.HDUList([primary, coadd, catalog])


def _column(name: str, array: np.ndarray) -> fits.Column:
    letter = {"f4": "E", "f8": "D", "i4": "J", "i8": "K", "i2": "I", "u1": "B"}.get(array.dtype.str[1:])
    form = f"{array.dtype.itemsize // 4}A" if array.dtype.kind == "U" else letter
    return fits.Column(name, form, array=array)


def image(height: int = 32, width: int = 32, seed: int = 1, sigma: float = 0.1) -> np.ndarray:
    """A round source on noise, (height, width) float32."""
    y, x = np.mgrid[:height, :width]
    source = 20 * np.exp(-((x - width / 2) ** 2 + (y - height / 2) ** 2) / 18)
    return (source + np.random.default_rng(seed).normal(0, sigma, (height, width))).astype(np.float32)


def to_bytes(hdus: fits.HDUList | fits.PrimaryHDU) -> bytes:
    stream = io.BytesIO()
    hdus.writeto(stream)
    return stream.getvalue()


@pytest.fixture
def make_spectrum() -> Callable[..., fits.HDUList]:
    return spectrum_hdus


@pytest.fixture
def make_image() -> Callable[..., np.ndarray]:
    return image


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Write HDUs or bytes under a name and give the path."""

    def write(content: fits.HDUList | fits.PrimaryHDU | bytes, name: str = "object.fits") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else to_bytes(content))
        return str(path)

    return write
