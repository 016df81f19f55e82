"""The catalog as a HATS folder: Parquet partitioned by HEALPix, as LSDB and other tools cross-match it.

HATS: https://www.ivoa.net/documents/Notes/HATS/. Each partition is a pixel with at most ROWS rows, so that pixels are
small where there are many objects; within it rows are sorted by their pixel of order 29.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from service.catalog.healpix import ORDER

INDEX = "_healpix_29"
"""The column that every HATS file begins with."""
ROWS = 200_000
"""In one partition."""
FINEST = 12
"""Order of the smallest partitions, 50 arcsec wide; these may have more rows."""
PROPERTIES = "hats.properties"
SHOWN = ("object_id", "kind", "ra", "dec", "model", "score", "p_value", "q_value")
"""Columns that readers load where nobody says which."""

Pixel = tuple[int, int]
"""Order and nested index."""


def partitions(positions: np.ndarray, most: int = ROWS) -> list[Pixel]:
    """The pixels with rows in them, each as large as ``most`` rows allow.

    ``positions`` are the rows' pixels of order 29, sorted, (n,) int64. The pixels come in the order of their rows.
    """
    found: list[Pixel] = []
    waiting: list[Pixel] = [(0, i) for i in range(11, -1, -1)]
    while waiting:
        order, pixel = waiting.pop()
        shift = 2 * (ORDER - order)
        low, high = np.searchsorted(positions, [pixel << shift, (pixel + 1) << shift])
        if high - low > most and order < FINEST:
            waiting += [(order + 1, 4 * pixel + i) for i in (3, 2, 1, 0)]
        elif high > low:
            found.append((order, pixel))
    return found


def write_hats(
    folder: Path, schema: Any, rows: Iterable[tuple[int, dict[str, Any]]], pixels: list[Pixel]
) -> int:
    """Writes the folder, which does not exist yet; how many rows it has.

    ``schema`` is that of pyarrow for the columns of a row. ``rows`` are sorted by their pixel of order 29, which comes
    with each; ``pixels`` are those that ``partitions`` found for them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    dataset = folder / "dataset"
    folder.mkdir()
    dataset.mkdir()
    schema = pa.schema([pa.field(INDEX, pa.int64(), nullable=False), *schema])
    collected: list[Any] = []
    counts: dict[Pixel, int] = {}
    for pixel, members in groupby(rows, key=_finder(pixels)):
        order, number = pixel
        path = Path(f"Norder={order}") / f"Dir={number // 10_000 * 10_000}" / f"Npix={number}.parquet"
        (dataset / path).parent.mkdir(parents=True, exist_ok=True)
        written: list[Any] = []
        counts[pixel] = 0
        options = {"compression": "zstd", "metadata_collector": written}
        with pq.ParquetWriter(dataset / path, schema, **options) as writer:
            for part in _in_parts(members):
                data = [{INDEX: position} | row for position, row in part]
                writer.write_table(pa.Table.from_pylist(data, schema=schema))
                counts[pixel] += len(part)
        written[0].set_file_path(path.as_posix())
        collected += written
    pq.write_metadata(schema, dataset / "_common_metadata")
    pq.write_metadata(schema, dataset / "_metadata", metadata_collector=collected)
    with (folder / "partition_info.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["Norder", "Npix"])
        table.writerows(sorted(counts))
    n = sum(counts.values())
    _write_properties(folder, n, sorted(counts), max(counts.values(), default=0))
    return n


def _finder(pixels: list[Pixel]) -> Any:
    """Says to which pixel a row belongs."""
    starts = np.array([pixel << 2 * (ORDER - order) for order, pixel in pixels], dtype=np.int64)

    def find(row: tuple[int, dict[str, Any]]) -> Pixel:
        return pixels[int(np.searchsorted(starts, row[0], side="right")) - 1]

    return find


def _in_parts(members: Iterator[Any], n: int = 10_000) -> Iterator[list[Any]]:
    part: list[Any] = []
    for row in members:
        part.append(row)
        if len(part) == n:
            yield part
            part = []
    if part:
        yield part


def _write_properties(folder: Path, n: int, pixels: list[Pixel], most: int) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    sky = sum(1 / (12 * 4**order) for order, _ in pixels)
    written = {
        "obs_collection": "peculiar",
        "obs_title": "Calibrated anomaly scores for spectra and image cutouts",
        "dataproduct_type": "object",
        "hats_nrows": n,
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_cols_default": " ".join(SHOWN),
        "hats_col_healpix": INDEX,
        "hats_col_healpix_order": ORDER,
        "hats_npix_suffix": ".parquet",
        "hats_order": max((order for order, _ in pixels), default=0),
        "hats_max_rows": most,
        "hats_estsize": size // 1024,
        "moc_sky_fraction": f"{sky:.5f}",
        "hats_builder": f"peculiar {version('peculiar')}",
        "hats_creation_date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MUTC"),
        "hats_version": "v1.0",
    }
    lines = ["#HATS catalog", *(f"{name}={value}" for name, value in written.items())]
    (folder / PROPERTIES).write_text("\n".join(lines) + "\n", encoding="utf-8")
