"""Results as documents: each format gives back what was put in, and validators from outside are content."""

from __future__ import annotations

import io
import json
import math
import subprocess
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.catalog.columns import Column
from service.vo.errors import VoError
from service.vo.execute import Result
from service.vo.formats import SHORT_NAMES, find_format
from service.vo.votable import VERSIONS, error_document

WHEN = datetime(2026, 3, 1, 16, 0, 0, 250000, tzinfo=UTC)
COLUMNS = [
    Column("name", "text", "any text", ucd="meta.id;meta.main"),
    Column("ra", "float", "right ascension", "deg", "pos.eq.ra;meta.main"),
    Column("n", "int", "a number", ucd="meta.number"),
    Column("small", "short", ""),
    Column("at", "time", "when", ucd="time.processing"),
    Column("ra", "float", "the same name again"),
    *(Column(f"x{i}", "float", "") for i in range(5)),  # more than eight columns: two bytes of flags a row
]
ROWS = [
    ("é <&> \"'", 1.25, 2**62, 7, WHEN, -1e-300, *[0.5] * 5),
    ("", math.inf, -1, -(2**31) + 1, WHEN, math.nan, *[None] * 5),
    (None, None, None, None, None, None, *[None] * 5),
    ("𝄞", 0.1 + 0.2, 0, 0, WHEN, 5e-324, *[1e308] * 5),
]


def result(rows: list[tuple[Any, ...]] = ROWS, overflow: bool = False) -> Result:
    return Result(COLUMNS, rows, overflow)


def same(found: Any, wanted: Any) -> bool:
    nothing = (None, "", b"") if wanted is None or wanted == "" else ()
    if np.ma.is_masked(found) or found in nothing or (isinstance(found, float) and math.isnan(found)):
        return wanted in (None, "") or (isinstance(wanted, float) and math.isnan(wanted))
    return bool(found == wanted)


@pytest.mark.parametrize("serialization", ["binary2", "tabledata"])
@pytest.mark.parametrize("version", VERSIONS)
def test_votable_comes_back(serialization: str, version: str) -> None:
    from astropy.io.votable import parse

    text = f"application/x-votable+xml;serialization={serialization};version={version}"
    form = find_format(text)
    assert form.media_type == text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        document = parse(io.BytesIO(form.write(result())), verify="exception")
    assert document.version == version
    table = document.get_first_table()
    assert [field.name for field in table.fields][:6] == ["name", "ra", "n", "small", "at", "ra_2"]
    assert [(f.ucd, str(f.unit or ""), f.description) for f in table.fields][1] == (
        "pos.eq.ra;meta.main", "deg", "right ascension",
    )  # fmt: skip
    for row, wanted in zip(table.array, ROWS, strict=True):
        times = [wanted[4] and wanted[4].strftime("%Y-%m-%dT%H:%M:%S.%f")]
        assert all(same(a, b) for a, b in zip(row, [*wanted[:4], *times, *wanted[5:]], strict=True)), row


@pytest.mark.parametrize("name", ["votable", "votable/td", "votable/b2"])
@pytest.mark.parametrize("rows", [ROWS, []])
def test_votlint_is_content(name: str, rows: list[Any], stilts: str, tmp_path: Path) -> None:
    (tmp_path / "result.xml").write_bytes(find_format(name).write(result(rows, overflow=True)))
    done = subprocess.run(
        [stilts, "votlint", "ucd=true", "unit=true", tmp_path / "result.xml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "", "")


def test_overflow_is_said_behind_the_table() -> None:
    for name in ("votable/td", "votable/b2"):
        document = find_format(name).write(result(overflow=True)).decode()
        assert document.index("</TABLE>") < document.index('value="OVERFLOW"') < document.index("</RESOURCE>")
        assert "OVERFLOW" not in find_format(name).write(result()).decode()


def test_csv_tsv_and_json_come_back() -> None:
    lines = find_format("csv").write(result()).decode().split("\r\n")
    assert lines[0] == "name,ra,n,small,at,ra_2,x0,x1,x2,x3,x4"
    assert (
        lines[1]
        == '"é <&> ""\'",1.25,4611686018427387904,7,2026-03-01T16:00:00.250000,-1e-300,0.5,0.5,0.5,0.5,0.5'
    )
    assert lines[3] == "," * 10
    assert find_format("text/tab-separated-values").write(result()).decode().count("\t") == 50
    document = json.loads(find_format("application/json").write(result(overflow=True)))
    assert document["overflow"] is True
    assert document["metadata"][1] == {
        "name": "ra", "datatype": "double", "arraysize": None, "xtype": None, "unit": "deg",
        "ucd": "pos.eq.ra;meta.main", "description": "right ascension",
    }  # fmt: skip
    assert document["data"][0][:5] == ["é <&> \"'", 1.25, 2**62, 7, "2026-03-01T16:00:00.250000"]
    assert document["data"][1][1] is None and document["data"][2] == [None] * 11


@pytest.mark.parametrize("rows", [ROWS, []])
def test_fits_and_parquet_come_back(rows: list[Any]) -> None:
    import pyarrow.parquet as pq
    from astropy.io import fits

    with fits.open(io.BytesIO(find_format("fits").write(result(rows, overflow=True)))) as hdus:
        hdus.verify("exception")
        table, header = hdus[1].data, hdus[1].header
        assert header["TUCD2"] == "pos.eq.ra;meta.main" and header["TUNIT2"] == "deg" and header["OVERFLOW"]
        assert len(table) == len(rows)
        if rows:
            assert (
                table["ra"][0] == 1.25
                and table["n"][0] == 2**62
                and table["at"][0] == "2026-03-01T16:00:00.250000"
            )
            assert table["name"][0] == "\\xe9 <&> \"'" and math.isnan(table["ra"][2])
    table = pq.read_table(io.BytesIO(find_format("parquet").write(result(rows))))
    assert table.num_rows == len(rows) and table.schema.field("ra").metadata[b"unit"] == b"deg"
    if rows:
        assert table["at"].to_pylist() == [row[4] for row in rows]
        assert table["n"].to_pylist() == [row[2] for row in rows]


@pytest.mark.parametrize(
    "wanted",
    ["nonsense", "text/html", "application/x-votable+xml;serialization=binary", "votable;version=1.9",
     "application/x-votable+xml;version=0", "\x00", "votable/" * 100],
)  # fmt: skip
def test_an_unknown_format_is_refused(wanted: str) -> None:
    with pytest.raises(VoError):
        find_format(wanted)


def test_every_short_name_is_known() -> None:
    writers: list[Callable[..., bytes]] = [find_format(name).write for name in SHORT_NAMES]
    assert all(write(result()) for write in writers)


def test_a_number_that_64_bits_do_not_hold_is_refused() -> None:
    for name in ("votable", "fits", "parquet"):
        with pytest.raises(VoError, match="64 bits"):
            find_format(name).write(Result([COLUMNS[2]], [(2**63,)], False))


def test_an_error_is_a_votable(stilts: str, tmp_path: Path) -> None:
    document = error_document('no column <\x00\ud800> & "more"')
    assert b'value="ERROR"' in document and b"no column &lt;  &gt; &amp;" in document
    (tmp_path / "error.xml").write_bytes(document)
    done = subprocess.run(
        [stilts, "votlint", tmp_path / "error.xml"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "", "")
