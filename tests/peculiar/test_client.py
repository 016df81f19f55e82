"""The Python client, against the API itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import sqlalchemy as sa
from astropy import units as u
from astropy.table import QTable
from astropy.time import Time
from fastapi.testclient import TestClient

import peculiar
from models.explanation import Explanation
from peculiar import Client, PeculiarError
from peculiar import client as module
from service.api import make_api
from service.catalog.engine import open_catalog
from service.catalog.labels import Label, record_labels
from service.catalog.registry import register_model
from service.catalog.rows import ModelRow, RejectedRow, ScoredRow
from service.catalog.runs import finish_if_complete, open_run
from service.catalog.writer import write_batch
from service.settings import Settings

MODEL = "sdss@0123456789ab"


def row(i: int, **changes: Any) -> ScoredRow:
    values: dict[str, Any] = {
        "kind": "spectrum", "survey": "sdss", "object_id": f"0266/{i:04d} é", "path": f"/data/{i}.fits",
        "sha256": f"{i}", "ra": None if i == 0 else 10.0 + i, "dec": None if i == 0 else -5.0,
        "night": "2026-03-01", "redshift": 0.1, "spectral_class": "GALAXY", "zwarning": 0, "reader_flags": set(),
        "model": MODEL, "elbo": -1.0, "log_px": -1.0, "log_density": -1.0, "chi2": 1.0, "score": float(i),
        "p_value": 0.001 if i > 10 else 0.5, "cluster": i % 2, "cluster_probability": 0.9, "snr": 9.0, "flags": set(),
        "parts": {"rarity": 1.0, "rarity_p": float("nan"), "score": 2.0},
        "latent": np.array([i, i], np.float32), "latent_var": np.ones(2, np.float32),
        "responsibilities": np.array([0.9, 0.1], np.float32), "windows": [],
    }  # fmt: skip
    return ScoredRow(**(values | changes))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, sa.Engine]]:
    folder = tmp_path_factory.mktemp("client")
    settings = Settings(_env_file=None, database_url=f"sqlite:///{folder}/catalog.db", rate_limit=10**6)
    engine = open_catalog(settings.database_url, create=True)
    register_model(engine, ModelRow(MODEL, "sdss", "spectrum", "/m", 800, 0.001, [0.5, 0.5], {"auroc": 0.9}))
    run = open_run(engine, "night", "sdss", "2026-03-01", {"spectrum": MODEL})
    flux = np.ones((1, 20), np.float32)
    drawn = Explanation(flux, flux, 0 * flux, [], {"rarity": 1.0}, loglam=(3.68, 4e-4)).to_bytes()
    rows = [row(i, explanation=drawn if i == 11 else None) for i in range(12)]
    write_batch(engine, run, rows, [RejectedRow("/data/bad.fits", "truncated")])
    finish_if_complete(engine, run)
    record_labels(engine, [Label(rows[1].object_id, "lens", "ann")])
    yield settings, engine
    engine.dispose()


@pytest.fixture
def client(catalog: tuple[Settings, sa.Engine]) -> Iterator[Client]:
    def examine(content: bytes, name: str, models: dict[str, str]) -> Any:
        if content != b"good":
            return RejectedRow(name, "not a FITS file: convert it to FITS")
        return row(3, object_id=name, p_value=0.25)

    api = make_api(catalog[0], False, examine)
    with TestClient(api, raise_server_exceptions=False) as http, Client(http=http) as client:
        yield client


def test_outliers_are_a_table_with_units(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    table = client.outliers()
    assert isinstance(table, QTable) and len(table) == 12
    assert table["ra"].unit == u.deg and np.isnan(table["ra"][-1]) and table["dec"][0] == -5 * u.deg
    assert table["score"].tolist() == list(range(11, -1, -1))
    assert isinstance(table["scored_at"], Time) and table["scored_at"].scale == "utc"
    assert table["p_value"].info.description == "chance of such a score for an object like the training set"
    assert table["lens_fraction"].dtype == float and np.isnan(table["rarity_p"]).all()
    assert table["part_score"].tolist() == [2.0] * 12
    monkeypatch.setattr(module, "PAGE", 5)
    assert client.outliers(None)["object_id"].tolist() == table["object_id"].tolist()
    assert len(client.outliers(7)) == 7


def test_filters_are_those_of_the_api(client: Client, tmp_path: Path) -> None:
    assert len(client.outliers(p=0.01, night=date(2026, 3, 1))) == 1
    square = [(10.5, -6.0), (12.5, -6.0), (12.5, -4.0), (10.5, -4.0)]
    assert client.outliers(polygon=square)["object_id"].tolist() == ["0266/0002 é", "0266/0001 é"]
    assert len(client.outliers(ra=11, dec=-5, radius=0.1, label="lens", labelled=True)) == 1
    nothing = client.outliers(night="1999-01-01")
    assert len(nothing) == 0 and nothing["ra"].unit == u.deg
    for ending, form in (("csv", "ascii.csv"), ("fits", "fits"), ("vot", "votable")):
        file = client.export(tmp_path / f"x.{ending}", limit=4, kind="spectrum")
        assert len(QTable.read(file, format=form)) == 4


def test_one_object_and_its_neighbours(client: Client, tmp_path: Path) -> None:
    found = client.object("0266/0001 é")
    assert found["ra"] == 11.0 and len(found["scores"]) == 1 and found["scores"]["model"][0] == MODEL
    assert found["labels"]["by"].tolist() == ["ann"] and found["observations"]["redshift"].tolist() == [0.1]
    near = client.neighbours("0266/0005 é", k=2)
    assert set(near["object_id"]) == {"0266/0004 é", "0266/0006 é"} and near["distance"][0] == pytest.approx(
        2**0.5
    )
    file = tmp_path / "mine.fits"
    file.write_bytes(b"good")
    for what in (file, str(file)):
        near = client.neighbours(what, k=1)
        assert near["object_id"][0] == "0266/0003 é" and near["distance"][0] == 0
        assert near.meta["object_id"] == "mine.fits" and near.meta["p_value"] == 0.25
    assert client.picture("0266/0011 é").startswith(b"\x89PNG")


def test_the_rest(client: Client) -> None:
    clusters = client.clusters()
    assert clusters["size"].tolist() == [6, 6] and clusters["lens_fraction_low"].dtype == float
    assert client.models()["in_force"].tolist() == [True]
    assert client.runs()["scored"].tolist() == [12] and len(client.runs(1)) == 1
    told = client.digest()
    assert told["night"] == "2026-03-01" and told["models"][0]["discoveries"]["score"].tolist() == [11.0]
    assert told["runs"]["failed"].tolist() == [1] and isinstance(told["problems"], list)
    assert client.label("0266/0002 é", "artefact", "bob") == 1
    client.save_search("rare", "ann", p=0.01, since=date(2026, 1, 1))
    assert client.searches() == {"rare": {"p": 0.01, "since": "2026-01-01"}}
    assert len(client.search("rare")) == 1
    client.delete_search("rare")
    assert client.searches() == {}


def test_answers_that_are_problems(client: Client, tmp_path: Path) -> None:
    (tmp_path / "x.gif").write_bytes(b"GIF89a")
    wrong: list[tuple[Callable[[], Any], int, str]] = [
        (lambda: client.outliers(model="nope"), 404, "no model is called 'nope'"),
        (lambda: client.outliers(colour="red"), 422, "query.colour"),  # type: ignore[call-arg]  # that is the test
        (lambda: client.object("nope"), 404, "no object 'nope'"),
        (lambda: client.neighbours(tmp_path / "x.gif"), 422, "not a FITS file"),
        (lambda: client.search("nope"), 404, "no search is called 'nope'"),
        (lambda: client.export(tmp_path / "x.docx"), 422, "query.format"),
    ]
    for ask, status, words in wrong:
        with pytest.raises(PeculiarError, match=words) as error:
            ask()
        assert error.value.status == status


def test_nobody_answers_or_somebody_else() -> None:
    with pytest.raises(PeculiarError, match=r"no Peculiar service answers at http://127.0.0.1:1") as error:
        Client("http://127.0.0.1:1").runs()
    assert error.value.status == 0
    proxy = httpx.MockTransport(lambda request: httpx.Response(502, text="<html>"))
    with pytest.raises(PeculiarError, match="502 Bad Gateway"):
        Client(http=httpx.Client(transport=proxy, base_url="http://x")).runs()


def test_keys_are_sent() -> None:
    client = Client("http://x", key="secret")
    assert client._http.headers["authorization"] == "Bearer secret"


def test_the_package_says_what_it_has() -> None:
    assert peculiar.Client is Client and Path(peculiar.__file__).with_name("py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = peculiar.nothing
