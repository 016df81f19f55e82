"""Results and errors as documents: VOTable, CSV, TSV, JSON, FITS, Parquet."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.catalog.columns import Column
from service.catalog.tables import arrow_schema, fits_table
from service.vo.errors import VoError
from service.vo.execute import Result
from service.vo.tap_schema import ARRAYSIZES, VOTABLE_TYPES, XTYPES
from service.vo.votable import MEDIA_TYPE, SERIALIZATIONS, VERSION, VERSIONS, iso, whole, write_votable

VOTABLES = {
    "votable": None,
    "votable/td": "tabledata",
    "votable/b2": "binary2",
    MEDIA_TYPE: None,
    "text/xml": None,
    "application/xml": None,
}
"""Names of VOTable, and the serialization that they imply."""


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a result."""

    media_type: str
    """Of the response"""
    write: Callable[[Result], bytes]


def find_format(wanted: str | None) -> Format:
    """The format of this RESPONSEFORMAT: a media type or a short name. Raises VoError for one that is not known."""
    text = (wanted or "votable").strip().lower()
    name, *parameters = (part.strip() for part in text.split(";"))
    options = dict(part.partition("=")[::2] for part in parameters if part)
    options = {key.strip(): value.strip(" \"'") for key, value in options.items()}
    if name in VOTABLES:
        return _votable(name, options.get("serialization") or VOTABLES[name], options.get("version"))
    for aliases, found in FORMATS:
        if name in aliases:
            return found
    raise VoError(f"RESPONSEFORMAT {text[:100]!r} is not known; there are {', '.join(SHORT_NAMES)}")


def _votable(name: str, serialization: str | None, version: str | None) -> Format:
    """``serialization`` and ``version`` as they were asked for, None where they were not."""
    if serialization not in (None, *SERIALIZATIONS):
        raise VoError(f"a VOTable is serialized as BINARY2 or TABLEDATA here, not as {serialization[:30]!r}")
    if version not in (None, *VERSIONS):
        raise VoError(f"VOTable is written in version {', '.join(VERSIONS)}, not {version[:20]!r}")
    # What was asked for, put together again: the request's own text must not get into a header.
    asked = "".join(
        f";{key}={value}" for key, value in (("serialization", serialization), ("version", version)) if value
    )
    media_type = "text/xml" if name in ("text/xml", "application/xml") else MEDIA_TYPE + asked

    def write(result: Result) -> bytes:
        names = unique_names(result.columns)
        return write_votable(
            result.columns,
            names,
            result.rows,
            result.overflow,
            serialization or "binary2",
            version or VERSION,
        )

    return Format(media_type, write)


def unique_names(columns: Sequence[Column]) -> list[str]:
    """Their names, with numbers behind those that came before."""
    names: list[str] = []
    for column in columns:
        name, n = column.name, 2
        while name.lower() in [taken.lower() for taken in names]:
            name, n = f"{column.name}_{n}", n + 1
        names.append(name)
    return names


def _separated(separator: str) -> Callable[[Result], bytes]:
    def write(result: Result) -> bytes:
        out = io.StringIO()
        writer = csv.writer(out, delimiter=separator, lineterminator="\r\n" if separator == "," else "\n")
        writer.writerow(unique_names(result.columns))
        for row in result.rows:
            writer.writerow(["" if value is None else _plain(value) for value in row])
        return out.getvalue().encode()

    return write


def _plain(value: Any) -> Any:
    return iso(value) if isinstance(value, datetime) else value


def _json(result: Result) -> bytes:
    described = [
        {
            "name": column.name,
            "datatype": VOTABLE_TYPES[column.type],
            "arraysize": ARRAYSIZES.get(column.type),
            "xtype": XTYPES.get(column.type),
            "unit": column.unit or None,
            "ucd": column.ucd or None,
            "description": column.description or None,
        }
        for column in result.columns
    ]
    data = [[_finite(_plain(value)) for value in row] for row in result.rows]
    document = {"metadata": described, "data": data, "overflow": result.overflow}
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _fits(result: Result) -> bytes:
    from astropy.io import fits

    table = fits_table(result.columns, _by_column(result), unique_names(result.columns))
    if result.overflow:
        table.header["OVERFLOW"] = (True, "there are more rows than MAXREC let through")
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(out)
    return out.getvalue()


def _parquet(result: Result) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(result.columns, unique_names(result.columns))
    schema = schema.with_metadata({"overflow": str(result.overflow).lower()})
    arrays = [pa.array(values, kind) for values, kind in zip(_by_column(result), schema.types, strict=True)]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), out, compression="zstd")
    return out.getvalue()


def _by_column(result: Result) -> list[list[Any]]:
    """The values of each column, whole numbers as such. Raises VoError for one that 64 bits do not hold."""
    return [
        [
            whole(row[i]) if column.type in ("int", "short") and row[i] is not None else row[i]
            for row in result.rows
        ]
        for i, column in enumerate(result.columns)
    ]


FORMATS = (
    (("csv", "text/csv"), Format("text/csv;header=present", _separated(","))),
    (
        ("tsv", "text/tab-separated-values"),
        Format("text/tab-separated-values;header=present", _separated("\t")),
    ),
    (("json", "application/json"), Format("application/json", _json)),
    (("fits", "application/fits"), Format("application/fits", _fits)),
    (
        ("parquet", "application/vnd.apache.parquet", "application/x-parquet"),
        Format("application/vnd.apache.parquet", _parquet),
    ),
)
SHORT_NAMES = ("votable", "votable/td", "votable/b2", *(aliases[0] for aliases, _ in FORMATS))
