"""The catalog as a file: parquet, FITS table, VOTable or CSV, or a HATS folder, by the ending.

Parquet, CSV and HATS are written as the rows come from the database; FITS and VOTable need all of them in memory.
"""

from __future__ import annotations

import csv
import math
import shutil
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from service.catalog.columns import FAILURE, ROW, Column, part_columns
from service.catalog.engine import CatalogError
from service.catalog.filters import Filters
from service.catalog.hats import PROPERTIES, partitions, write_hats
from service.catalog.lens import LensFraction, lens_fractions
from service.catalog.ranking import chosen_models, finish_rows, flat, select_rows
from service.catalog.registry import find_models, list_models
from service.catalog.schema import failures, objects, scores
from service.catalog.statements import json_keys
from service.catalog.tables import arrow_schema, fits_table

ROWS_AT_ONCE = 10_000
FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".fits": "fits",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".hats": "hats",
}

Rows = Iterator[list[dict[str, Any]]]


def export_rows(engine: sa.Engine, out: Path, model: str | None = None) -> int:
    """Write the current rows of one model (id or name), or of all, by observation; returns how many.

    A HATS folder leaves out rows without a position.
    The columns are those of ``columns.ROW`` and one for each score component. The file is complete or absent.
    Raises CatalogError for an unknown model or ending, or where the file cannot be written.
    """
    check_ending(out)
    models = find_models(engine, model) if model is not None else list_models(engine)
    ids = [entry["id"] for entry in models]
    with engine.connect() as connection:
        columns, fractions = _columns(connection, ids), lens_fractions(connection, ids)
        wanted = select_rows().where(scores.c.model_id.in_(ids))
        if FORMATS[out.suffix.lower()] == "hats":
            return _export_hats(engine, out, columns, wanted, fractions)
        wanted = wanted.order_by(scores.c.observation_id, scores.c.model_id)
        return _write(out, columns, _finished(connection, wanted, fractions))


def export_outliers(engine: sa.Engine, out: Path, filters: Filters, limit: int | None = None) -> int:
    """Write the rows that fit, those of one model after those of another, the highest scores of each first.

    At most ``limit`` of each model; columns and errors as ``export_rows``, and CatalogError as ``ranking.outliers``.
    """
    check_ending(out)
    with engine.connect() as connection:
        ids = chosen_models(connection, filters)
        fractions = lens_fractions(connection, ids)
        return _write(out, _columns(connection, ids), _ranked(connection, filters, ids, fractions, limit))


def _ranked(
    connection: sa.Connection,
    filters: Filters,
    ids: list[str],
    fractions: dict[str, dict[int, LensFraction]],
    limit: int | None,
) -> Rows:
    for model in ids:
        wanted = select_rows().where(scores.c.model_id == model, *filters.conditions(fractions[model]))
        wanted = wanted.order_by(scores.c.score.desc(), scores.c.observation_id)
        if limit is not None and not filters.refines:
            wanted = wanted.limit(limit)
        left = limit
        for rows in _finished(connection, wanted, fractions):
            rows = [row for row in rows if filters.accept(row)][:left]
            yield rows
            if left is not None:
                left -= len(rows)
                if not left:
                    break


def _columns(connection: sa.Connection, ids: list[str]) -> tuple[Column, ...]:
    """Those of every row, and the score parts of these models."""
    key = json_keys(connection, scores.c.parts)
    names = connection.scalars(
        sa.select(key.c.key)
        .select_from(scores.join(key, sa.true()))
        .where(scores.c.model_id.in_(ids))
        .distinct()
    )
    return ROW + part_columns(sorted(names))


def _finished(
    connection: sa.Connection, wanted: sa.Select[Any], fractions: dict[str, dict[int, LensFraction]]
) -> Rows:
    result = connection.execute(wanted, execution_options={"yield_per": ROWS_AT_ONCE})
    return ([flat(row) for row in finish_rows(part, fractions)] for part in result.partitions())


def _export_hats(
    engine: sa.Engine, out: Path, columns: Sequence[Column], wanted: sa.Select[Any], fractions: Any
) -> int:
    """The rows with positions; a HATS folder that is there already is replaced, anything else is not."""
    if out.exists() and not (out / PROPERTIES).is_file():
        raise CatalogError(f"{out} is there already, and is no HATS catalog: give another name")
    placed = wanted.where(objects.c.healpix29.is_not(None))
    index = placed.with_only_columns(objects.c.healpix29, maintain_column_froms=True)
    ordered = placed.add_columns(objects.c.healpix29).order_by(
        objects.c.healpix29, scores.c.observation_id, scores.c.model_id
    )
    unfinished = out.with_name(f".{out.stem}.{uuid.uuid4().hex[:8]}")
    # Both readings have to see the same rows.
    level = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with engine.connect().execution_options(**level) as connection:
        read = np.fromiter(
            connection.scalars(index.execution_options(yield_per=ROWS_AT_ONCE)), dtype=np.int64
        )
        pixels = partitions(np.sort(read))
        if not pixels:
            raise CatalogError("no row has a position, and HATS is partitioned by position")
        result = connection.execute(ordered.execution_options(yield_per=ROWS_AT_ONCE))
        rows = (
            (source.healpix29, flat(row))
            for part in result.partitions()
            for source, row in zip(part, finish_rows(part, fractions), strict=True)
        )
        try:
            n = write_hats(unfinished, arrow_schema(columns), rows, pixels)
            if out.exists():
                old = out.with_name(f".{out.stem}.{uuid.uuid4().hex[:8]}")
                out.rename(old)
                shutil.rmtree(old)
            unfinished.rename(out)
        except OSError as error:
            raise CatalogError(f"cannot write {out}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return n


def export_failures(engine: sa.Engine, out: Path) -> int:
    """Write the failures, by path; returns how many. Raises as ``export_rows``."""
    check_ending(out)
    if FORMATS[out.suffix.lower()] == "hats":
        raise CatalogError(
            "failures have no positions, and HATS is partitioned by position: choose another ending"
        )
    f = failures.c
    wanted = sa.select(
        f.path,
        f.reason,
        f.kind,
        f.model,
        f.run_id.label("run"),
        f.attempts,
        f.first_seen,
        f.last_seen,
        f.detail,
    ).order_by(f.path, f.model)
    with engine.connect() as connection:
        result = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(wanted)
        return _write(out, FAILURE, ([dict(row) for row in part] for part in result.mappings().partitions()))


def check_ending(out: Path) -> None:
    """Raises CatalogError where the file's ending names no format."""
    if out.suffix.lower() not in FORMATS:
        raise CatalogError(f"the ending of {out} names no format; there are {', '.join(FORMATS)}")


def _write(out: Path, columns: Sequence[Column], batches: Rows) -> int:
    write = {"parquet": _write_parquet, "csv": _write_csv, "fits": _write_fits, "votable": _write_votable}
    # Written beside its place and then moved, so that nobody meets half a file.
    unfinished = out.with_name(f".{out.stem}.{uuid.uuid4().hex[:8]}{out.suffix}")
    try:
        n = write[FORMATS[out.suffix.lower()]](unfinished, columns, batches)
        unfinished.replace(out)
    except OSError as error:
        raise CatalogError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return n


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _write_csv(out: Path, columns: Sequence[Column], batches: Rows) -> int:
    """Nulls are empty fields, times ISO 8601 in UTC."""
    n = 0
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([column.name for column in columns])
        for rows in batches:
            for row in rows:
                values = (row.get(column.name) for column in columns)
                writer.writerow([_iso(value) if isinstance(value, datetime) else value for value in values])
            n += len(rows)
    return n


def _write_parquet(out: Path, columns: Sequence[Column], batches: Rows) -> int:
    """Units, UCDs and descriptions go into the fields' metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(columns)
    n = 0
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for rows in batches:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            n += len(rows)
    return n


def _write_fits(out: Path, columns: Sequence[Column], batches: Rows) -> int:
    values = _by_column(columns, batches)
    fits_table(columns, values).writeto(out)
    return len(values[0])


def _write_votable(out: Path, columns: Sequence[Column], batches: Rows) -> int:
    """Through an astropy table; nulls are NaN in columns of numbers and empty in text."""
    from astropy.io.votable import from_table
    from astropy.table import Column as TableColumn
    from astropy.table import Table

    table = Table()
    for column, listed in zip(columns, _by_column(columns, batches), strict=True):
        data: Any
        if column.type == "float":
            data = np.array([math.nan if value is None else value for value in listed], dtype=np.float64)
        elif column.type == "int":
            data = np.array(listed, dtype=np.int64)
        else:
            texts = ("" if v is None else _iso(v) if isinstance(v, datetime) else str(v) for v in listed)
            data = np.array(list(texts), dtype=np.str_)
        unit = column.unit or None
        table[column.name] = TableColumn(data, unit=unit, description=column.description)
    document = from_table(table)
    for field, column in zip(document.get_first_table().fields, columns, strict=True):
        field.ucd = column.ucd
    document.to_xml(str(out))
    return len(table)


def _by_column(columns: Sequence[Column], batches: Rows) -> list[list[Any]]:
    values: list[list[Any]] = [[] for _ in columns]
    for rows in batches:
        for row in rows:
            for column, listed in zip(columns, values, strict=True):
                listed.append(row.get(column.name))
    return values
