"""The HATS export: what the format's own library reads from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from service.catalog import hats
from service.catalog.engine import CatalogError
from service.catalog.export import export_failures, export_rows
from service.catalog.healpix import healpix29
from service.catalog.writer import write_batch

N = 300


@pytest.fixture
def sky(
    engine: sa.Engine, run: int, make_row: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> sa.Engine:
    """Spectra all over the sky and many in one place, one without a position; small partitions."""
    monkeypatch.setattr(hats.partitions, "__defaults__", (40,))
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, N), np.degrees(np.arcsin(rng.uniform(-1, 1, N)))
    ra[:200], dec[:200] = rng.normal(10, 0.01, 200), rng.normal(41, 0.01, 200)
    write_batch(engine, run, [make_row(i, ra=ra[i], dec=dec[i]) for i in range(N)], [])
    write_batch(engine, run, [make_row(N, ra=None, dec=None)], [])
    return engine


def test_partitions_hold_no_more_rows_than_they_may() -> None:
    rng = np.random.default_rng(2)
    positions = np.sort(healpix29(rng.uniform(0, 360, 5000), rng.normal(0, 20, 5000)))
    pixels = hats.partitions(positions, 100)
    bounds = [(pixel << 2 * (29 - order), (pixel + 1) << 2 * (29 - order)) for order, pixel in pixels]
    counts = [int(((positions >= low) & (positions < high)).sum()) for low, high in bounds]
    assert sum(counts) == 5000 and min(counts) > 0 and max(counts) <= 100
    assert bounds == sorted(bounds) and len({order for order, _ in pixels}) > 1
    assert (
        hats.partitions(positions, 5000) == sorted({(0, int(p >> 58)) for p in positions}) or len(pixels) > 12
    )
    assert hats.partitions(np.empty(0, dtype=np.int64)) == []
    same_place = np.full(50, positions[0])
    assert hats.partitions(same_place, 10) == [(hats.FINEST, int(positions[0] >> 2 * (29 - hats.FINEST)))]


def test_the_formats_own_library_reads_it(sky: sa.Engine, tmp_path: Path) -> None:
    reader = pytest.importorskip("hats")
    from hats.io.validation import is_valid_catalog

    out = tmp_path / "night.hats"
    assert export_rows(sky, out) == N
    assert is_valid_catalog(out) and not list(tmp_path.glob(".*"))
    catalog = reader.read_hats(out)
    info = catalog.catalog_info
    assert (info.total_rows, info.ra_column, info.dec_column, info.healpix_column) == (
        N,
        "ra",
        "dec",
        "_healpix_29",
    )
    assert catalog.partition_info.get_highest_order() > 3  # where the many are
    table = catalog.read_pixel_to_pandas(catalog.get_healpix_pixels()[0])
    assert len(table) <= 40


def test_its_files_hold_the_rows(sky: sa.Engine, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    out = tmp_path / "night.hats"
    export_rows(sky, out)
    seen = 0
    for path in sorted((out / "dataset").glob("Norder=*/Dir=*/Npix=*.parquet")):
        order, pixel = (
            int(part.split("=")[1].removesuffix(".parquet")) for part in (path.parts[-3], path.parts[-1])
        )
        table = pq.ParquetFile(path).read()
        index = table["_healpix_29"].to_numpy()
        assert table.column_names[0] == "_healpix_29" and list(index) == sorted(index)
        assert set(index >> 2 * (29 - order)) == {pixel}
        assert list(index) == list(healpix29(table["ra"].to_numpy(), table["dec"].to_numpy()))
        seen += table.num_rows
    metadata = pq.read_metadata(out / "dataset" / "_metadata")
    assert metadata.num_rows == seen == N
    assert metadata.row_group(0).column(0).file_path.startswith("Norder=")
    assert pq.read_schema(out / "dataset" / "_common_metadata").field("ra").metadata[b"unit"] == b"deg"
    assert (out / "partition_info.csv").read_text().startswith("Norder,Npix\n")


def test_it_replaces_a_catalog_and_nothing_else(sky: sa.Engine, tmp_path: Path) -> None:
    out = tmp_path / "night.hats"
    export_rows(sky, out)
    assert export_rows(sky, out) == N
    other = tmp_path / "other.hats"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(CatalogError, match="no HATS catalog"):
        export_rows(sky, other)
    assert (other / "thesis.tex").exists()
    with pytest.raises(CatalogError, match="cannot write"):
        export_rows(sky, tmp_path / "no" / "folder" / "x.hats")
    with pytest.raises(CatalogError, match="no positions"):
        export_failures(sky, tmp_path / "failures.hats")


def test_nothing_with_a_position(engine: sa.Engine, models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no row has a position"):
        export_rows(engine, tmp_path / "x.hats")
