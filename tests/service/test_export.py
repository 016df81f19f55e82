"""Exports: every format holds the same rows, nulls included, and no half file is left."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from astropy.io import fits
from astropy.table import Table

from service.catalog.columns import FAILURE, NAMES
from service.catalog.engine import CatalogError
from service.catalog.export import export_failures, export_rows
from service.catalog.labels import Label, record_labels
from service.catalog.rows import RejectedRow
from service.catalog.runs import finish_if_complete
from service.catalog.writer import write_batch

COLUMNS = [*NAMES, "chi2_tail", "chi2_tail_p", "part_score"]
ENDINGS = ["parquet", "fits", "vot", "xml", "csv"]


@pytest.fixture
def filled(engine: sa.Engine, run: int, models: dict[str, str], make_row: Callable[..., Any]) -> sa.Engine:
    """Five spectra, one without a position, one with an unusual name, and a cutout with other score parts."""
    rows = [make_row(i) for i in range(5)]
    rows[1].ra = rows[1].dec = None
    rows[2].object_id = 'Ωmega, "quoted"'
    cutout = make_row(9, kind="cutout", model=models["cutout"], parts={"score": 1.5}, path="/data/z.fits")
    write_batch(engine, run, [*rows, cutout], [RejectedRow("/data/bad.fits", "truncated", "of 2880 bytes")])
    record_labels(engine, [Label(rows[0].object_id, "lens", "ann")])
    return engine


def read(path: Path) -> dict[str, list[Any]]:
    """Columns by name, with None for whatever the format writes for nulls in float columns."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
            names = list(rows[0])
        return {name: [_number(row[name]) for row in rows] for name in names}
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return {name: list(column) for name, column in pq.read_table(path).to_pydict().items()}
    table = Table.read(path, format="fits" if path.suffix == ".fits" else "votable")
    return {
        name: [_number(str(value)) if np.ma.is_masked(value) or isinstance(value, str) else
               None if np.isnan(value) else value.item() for value in table[name]]
        for name in table.colnames
    }  # fmt: skip


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return None if text in ("", "--") else text


@pytest.mark.parametrize("ending", ENDINGS)
def test_formats_hold_the_same_rows(filled: sa.Engine, run: int, tmp_path: Path, ending: str) -> None:
    finish_if_complete(filled, run)
    path = tmp_path / f"catalog.{ending}"
    assert export_rows(filled, path) == 6
    got = read(path)
    assert list(got) == COLUMNS
    assert got["score"] == [0, 1, 2, 3, 4, 9]
    assert got["ra"] == [10, None, 12, 13, 14, 19]
    assert got["part_score"] == [None] * 5 + [1.5]
    assert got["chi2_tail"] == [0, 1, 2, 3, 4, None]
    assert got["cluster"] == [0, 1, 2, 0, 1, 0]
    assert None not in got["q_value"]
    assert got["lens_fraction"][:2] == [pytest.approx(0.75), None]
    assert got["object_id"][2] == ('\\u03a9mega, "quoted"' if ending == "fits" else 'Ωmega, "quoted"')
    assert got["object_id"][0] == "0266-51602-0000"
    assert got["flags"] == ([""] * 6 if ending == "parquet" else [None] * 6)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("ending", ENDINGS)
def test_q_values_are_null_until_the_run_has_ended(filled: sa.Engine, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"catalog.{ending}"
    export_rows(filled, path)
    assert read(path)["q_value"] == [None] * 6


@pytest.mark.parametrize("ending", ENDINGS)
def test_failures(filled: sa.Engine, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"failures.{ending}"
    assert export_failures(filled, path) == 1
    got = read(path)
    assert list(got) == [column.name for column in FAILURE]
    assert (got["path"], got["reason"], got["attempts"]) == (["/data/bad.fits"], ["truncated"], [1])


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_empty_catalog_gives_an_empty_table(engine: sa.Engine, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"catalog.{ending}"
    assert export_rows(engine, path) == 0
    if ending == "csv":
        assert path.read_text() == ",".join(NAMES) + "\n"
    elif ending == "parquet":
        assert list(read(path)) == list(NAMES)
    else:
        table = Table.read(path, format="fits" if ending == "fits" else "votable")
        assert table.colnames == list(NAMES) and len(table) == 0


def test_one_model(filled: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "catalog.csv"
    assert export_rows(filled, path, "lens") == 1
    assert list(read(path)) == [*NAMES, "part_score"]


def test_batches_join(filled: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole.parquet", tmp_path / "parts.parquet"
    export_rows(filled, whole)
    monkeypatch.setattr("service.catalog.export.ROWS_AT_ONCE", 2)
    export_rows(filled, parts)
    assert read(whole) == read(parts)


def test_units_and_ucds_are_written(filled: sa.Engine, tmp_path: Path) -> None:
    import pyarrow.parquet as pq
    from astropy.io.votable import parse_single_table

    for ending in ENDINGS:
        export_rows(filled, tmp_path / f"c.{ending}")
    field = parse_single_table(tmp_path / "c.vot").get_field_by_id_or_name("ra")
    assert (str(field.unit), field.ucd) == ("deg", "pos.eq.ra;meta.main")
    assert pq.read_schema(tmp_path / "c.parquet").field("ra").metadata[b"unit"] == b"deg"
    header = fits.getheader(tmp_path / "c.fits", 1)
    assert header["TUNIT5"] == "deg" and header["TUCD5"] == "pos.eq.ra;meta.main"


def test_times_are_utc(filled: sa.Engine, tmp_path: Path) -> None:
    export_rows(filled, tmp_path / "c.csv")
    export_rows(filled, tmp_path / "c.parquet")
    text = read(tmp_path / "c.csv")["scored_at"][0]
    assert datetime.fromisoformat(text) == read(tmp_path / "c.parquet")["scored_at"][0]


@pytest.mark.parametrize("out", ["catalog", "catalog.txt", "missing/folder/catalog.csv"])
def test_files_that_cannot_be(filled: sa.Engine, tmp_path: Path, out: str) -> None:
    with pytest.raises(CatalogError, match=r"names no format|cannot write"):
        export_rows(filled, tmp_path / out)
