"""Labels: one by one, from files, and what is wrong with files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.catalog import schema
from service.catalog.engine import CatalogError
from service.catalog.labels import Label, UnknownObjectsError, read_labels, record_labels
from service.catalog.writer import write_batch


def recorded(engine: sa.Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        rows = connection.execute(
            sa.select(schema.labels.c.label, schema.labels.c.by).order_by(schema.labels.c.id)
        )
        return [(row.label, row.by) for row in rows]


def test_history_is_kept_and_words_are_normalised(
    engine: sa.Engine, run: int, make_row: Callable[..., Any]
) -> None:
    row = make_row(1)
    write_batch(engine, run, [row], [])
    said = [Label(row.object_id, text, " ann ") for text in ("Lens", "not_lens", "Wrong  redshift")]
    assert record_labels(engine, said) == 1
    assert recorded(engine) == [("lens", "ann"), ("not-lens", "ann"), ("wrong-redshift", "ann")]


def test_unknown_objects_stop_everything(engine: sa.Engine, run: int, make_row: Callable[..., Any]) -> None:
    row = make_row(1)
    write_batch(engine, run, [row], [])
    said = [Label(row.object_id, "lens", "ann"), *(Label(f"no-{i}", "lens", "ann") for i in range(8))]
    with pytest.raises(
        UnknownObjectsError, match="8 labelled objects are not in the catalog: no-0, no-1"
    ) as error:
        record_labels(engine, said)
    assert "no-5" not in str(error.value) and len(error.value.object_ids) == 8
    assert recorded(engine) == []


def test_a_label_reaches_the_spectrum_and_the_cutout(
    engine: sa.Engine, run: int, models: dict[str, str], make_row: Callable[..., Any]
) -> None:
    rows = [make_row(1), make_row(1, kind="cutout", model=models["cutout"], path="/c.fits")]
    write_batch(engine, run, rows, [])
    assert record_labels(engine, [Label(rows[0].object_id, "lens", "ann")]) == 2


def test_no_labels_are_no_error(engine: sa.Engine) -> None:
    assert record_labels(engine, []) == 0


def test_reading_a_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("\ufefflabel, object_id ,by\nlens,a,\nnot-lens, b ,bob\n", encoding="utf-8")
    assert read_labels(path, "ann") == [Label("a", "lens", "ann"), Label("b", "not-lens", "bob")]
    path.write_text("object_id,label\na,lens\n")
    assert read_labels(path, "ann") == [Label("a", "lens", "ann")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has to name the columns"),
        (b"id,label\na,lens\n", "has to name the columns"),
        (b"object_id,label\na,lens\nb\n", "line 3: an object_id and a label"),
        (b"object_id,label\n,lens\n", "line 2: an object_id and a label"),
        (b"object_id,label\na," + b"x" * 101, "line 2: a label has 1 to 100"),
        (b"object_id,label\n\xff\xfe,lens\n", "not a CSV file in UTF-8"),
        (b'object_id,label\n"a' + b"x" * 200_000, "not a CSV file"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=message):
        read_labels(path, "ann")


@pytest.mark.parametrize(
    "said", [Label("a", " ", "ann"), Label("a", "lens", " "), Label("a", "lens", "x" * 101)]
)
def test_labels_that_say_nothing(engine: sa.Engine, said: Label) -> None:
    with pytest.raises(CatalogError, match="1 to 100 characters"):
        record_labels(engine, [said])
