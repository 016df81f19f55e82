"""Exports of a search, and files that are sent to be examined: what the API makes of them."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from astropy.table import Table
from fastapi.testclient import TestClient

from service.api import examining, exporting, make_api
from service.api.examining import MAX_UPLOAD
from service.catalog.rows import RejectedRow
from service.catalog.runs import finish_if_complete
from service.catalog.writer import write_batch
from service.settings import Settings


@pytest.fixture
def filled(engine: sa.Engine, run: int, models: dict[str, str], make_row: Callable[..., Any]) -> sa.Engine:
    rows = [make_row(i) for i in range(12)]
    rows.append(make_row(3, kind="cutout", survey="hsc", model=models["cutout"], path="/data/c.fits"))
    write_batch(engine, run, rows, [])
    finish_if_complete(engine, run)
    return engine


@pytest.fixture
def client(
    filled: sa.Engine, catalog_url: str, make_row: Callable[..., Any], packed: bytes
) -> Iterator[TestClient]:
    """An API whose files say what becomes of them: ``cutout`` or ``spectrum``, anything else is refused."""

    def examine(content: bytes, name: str, models: dict[str, str]) -> Any:
        kind = content.decode("latin1")
        if kind not in models:
            return RejectedRow(name, "not a FITS file: convert it to FITS", kind[:20])
        return make_row(
            5, kind=kind, model=models[kind], object_id=name, flags={"b"}, reader_flags={"a"}, explanation=packed,
            latent=np.array([5.4, 10.8], np.float32), parts={"rarity": 1.0, "rarity_p": float("nan")},
        )  # fmt: skip

    settings = Settings(_env_file=None, database_url=catalog_url)
    with TestClient(make_api(settings, False, examine), raise_server_exceptions=False) as client:
        yield client


def test_a_file_and_its_neighbours(client: TestClient) -> None:
    response = client.post("/neighbours?k=2&name=mine.fits", content=b"spectrum")
    assert response.status_code == 200, response.text
    body = response.json()
    assert (body["kind"], body["model"], body["object_id"]) == ("spectrum", "sdss@0123456789ab", "mine.fits")
    assert body["flags"] == "a,b" and body["parts"] == {"rarity": 1.0, "rarity_p": None}
    assert body["picture"] is None and body["p_value"] == pytest.approx(1 / 6)
    assert [row["object_id"] for row in body["neighbours"]] == ["0266-51602-0005", "0266-51602-0006"]
    assert body["neighbours"][0]["distance"] == pytest.approx(0.4 * 5**0.5, rel=1e-5)
    drawn = client.post("/neighbours?model=sdss&picture=true", content=b"spectrum").json()["picture"]
    start = "data:image/png;base64,"
    assert drawn.startswith(start) and base64.b64decode(drawn[len(start) :]).startswith(b"\x89PNG")
    assert client.post("/neighbours", content=b"cutout").json()["neighbours"][0]["survey"] == "hsc"
    assert len(client.get("/outliers?limit=100").json()["items"]) == 13, "nothing came into the catalog"


BAD_FILES = [
    ("", b"", 422, "there is no file"),
    ("", b"GIF89a", 422, "not a FITS file: convert it to FITS (GIF89a)"),
    ("", bytes(range(256)), 422, "not a FITS file"),
    ("?model=lens", b"spectrum", 422, "not a FITS file"),  # the fake's answer to a kind without a model
    ("?model=nope", b"spectrum", 404, "no model is called 'nope'"),
    ("?k=0", b"spectrum", 422, "query.k"),
    ("?k=1000", b"spectrum", 422, "query.k"),
    ("?kind=galaxy", b"spectrum", 422, "query.kind"),
    ("", b"x" * 3_000_000, 422, "not a FITS file"),  # larger than other bodies may be
    ("", b"x" * (MAX_UPLOAD + 1), 413, "at most 20000000 bytes"),
]


def test_bad_files_are_problems(client: TestClient) -> None:
    for query, content, status, words in BAD_FILES:
        response = client.post(f"/neighbours{query}", content=content)
        assert response.headers["content-type"] == "application/problem+json"
        assert (response.status_code, words in response.json()["detail"]) == (status, True), response.text


def test_names_are_no_paths(client: TestClient) -> None:
    for name, shown in [("../../etc/passwd", "passwd"), ("/", "upload.fits"), ("a\x00b", "ab")]:
        response = client.post("/neighbours", params={"name": name}, content=b"spectrum")
        assert response.json()["object_id"] == shown


def test_not_too_many_files_at_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(examining, "_waiting", threading.BoundedSemaphore(1))
    assert client.post("/neighbours", content=b"bad").status_code == 422, "and the place is free again"
    assert client.post("/neighbours", content=b"spectrum").status_code == 200
    examining._waiting.acquire()
    busy = client.post("/neighbours", content=b"spectrum")
    assert busy.status_code == 503 and busy.headers["retry-after"] == "5"


def test_an_api_that_reads_no_files(filled: sa.Engine, catalog_url: str) -> None:
    with TestClient(make_api(Settings(_env_file=None, database_url=catalog_url), False)) as client:
        assert client.post("/neighbours", content=b"spectrum").status_code == 503


def test_exports_hold_what_the_search_finds(client: TestClient, tmp_path: Path) -> None:
    for form, media_type in exporting.MEDIA_TYPES.items():
        query = f"/outliers/export?format={form}&kind=spectrum&p=0.2"
        response = client.get(query, headers={"Accept-Encoding": "identity"})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].split(";")[0] == media_type
        assert response.headers["content-disposition"] == f'attachment; filename="outliers.{form}"'
        assert int(response.headers["content-length"]) == len(response.content)
        file = tmp_path / f"t.{form}"
        file.write_bytes(response.content)
        table = Table.read(file, format={"csv": "ascii.csv"}.get(form, form))
        assert [str(name) for name in table["object_id"]] == [f"0266-51602-{i:04d}" for i in range(11, 3, -1)]
        assert {"score", "p_value", "lens_fraction", "chi2_tail_p"} <= set(table.colnames)


def test_exports_are_of_every_model_and_limited(client: TestClient) -> None:
    def kinds(query: str) -> list[str]:
        text = client.get(f"/outliers/export?{query}").text
        return [row["kind"] for row in csv.DictReader(io.StringIO(text))]

    assert kinds("") == ["spectrum"] * 12 + ["cutout"]
    assert kinds("limit=2") == ["spectrum"] * 2 + ["cutout"]
    assert kinds("p=0.0000001") == []


def test_large_tables_in_memory_are_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "MAX_IN_MEMORY", 5)
    refused = client.get("/outliers/export?format=fits")
    assert refused.status_code == 422 and "ask for parquet or csv" in refused.json()["detail"]
    assert client.get("/outliers/export?format=fits&p=0.1").status_code == 200
    assert client.get("/outliers/export?format=csv").status_code == 200


def test_exports_keep_what_only_their_rows_say(client: TestClient) -> None:
    for i, label in [(0, "lens"), (3, "not-lens")]:
        client.post(f"/objects/0266-51602-{i:04d}/labels", json={"label": label, "by": "ann"})
    shown = client.get("/outliers?kind=spectrum&lens_fraction=0.5&limit=1000").json()["items"]
    text = client.get("/outliers/export?kind=spectrum&lens_fraction=0.5").text
    assert [row["object_id"] for row in csv.DictReader(io.StringIO(text))] == [
        row["object_id"] for row in shown
    ]
    assert len(shown) == 4
    assert client.get("/outliers/export?kind=spectrum&lens_fraction=0.5&limit=3").text.count("\n") == 4
