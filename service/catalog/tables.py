"""Rows as the tables of other programs, Arrow and FITS; units, UCDs and descriptions go along."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from service.catalog.columns import Column

if TYPE_CHECKING:
    import pyarrow as pa
    from astropy.io import fits

MISSING_INT = -(2**63)
"""What stands for NULL in FITS columns of whole numbers, which cannot be empty."""


def arrow_schema(columns: Sequence[Column], names: Sequence[str] | None = None) -> pa.Schema:
    """Of these columns, which may go by other names; what is known of each is its field's metadata."""
    import pyarrow as pa

    types = {
        "text": pa.string(),
        "float": pa.float64(),
        "int": pa.int64(),
        "short": pa.int32(),
        "time": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema(
        pa.field(
            name,
            types[column.type],
            metadata={"unit": column.unit, "ucd": column.ucd, "description": column.description},
        )
        for name, column in zip(names or [c.name for c in columns], columns, strict=True)
    )


def fits_table(
    columns: Sequence[Column], values: Sequence[Sequence[Any]], names: Sequence[str] | None = None
) -> fits.BinTableHDU:
    """A binary table of ``values``, a sequence for each column.

    None is NaN, TNULL or an empty text; times are ISO 8601 in UTC.
    """
    from astropy.io import fits

    made: list[fits.Column] = []
    data: np.ndarray
    for name, column, listed in zip(names or [c.name for c in columns], columns, values, strict=True):
        unit = column.unit or None
        if column.type == "float":
            data = np.array([math.nan if v is None else v for v in listed], dtype=np.float64)
            made.append(fits.Column(name, "D", unit, array=data))
        elif column.type in ("int", "short"):
            data = np.array([MISSING_INT if v is None else v for v in listed], dtype=np.int64)
            made.append(fits.Column(name, "K", unit, null=MISSING_INT, array=data))
        else:
            data = np.array([_ascii(v) for v in listed] or [b""], dtype=np.bytes_)[: len(listed)]
            made.append(fits.Column(name, f"{max(1, data.dtype.itemsize)}A", unit, array=data))
    table = fits.BinTableHDU.from_columns(made)
    for i, column in enumerate(columns, 1):
        for key, text in (("TUCD", column.ucd), ("TCOMM", column.description)):
            if text:
                table.header[f"{key}{i}"] = text.encode("ascii", "replace").decode()
    return table


def _ascii(value: Any) -> bytes:
    """A FITS table holds printable ASCII only (FITS standard 4.0, section 7.3.3.1)."""
    if value is None:
        return b""
    text = value.strftime("%Y-%m-%dT%H:%M:%S.%f") if isinstance(value, datetime) else str(value)
    return text.encode("ascii", "backslashreplace")
