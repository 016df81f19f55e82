"""The page's files and the routes that it needs: nights, labels now, explanations, maps."""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.api import make_api
from service.api.page import FILES
from service.catalog import maps
from service.catalog.labels import Label, labels_now, newest_label, not_ordinary, record_labels
from service.catalog.maps import Atlases, flattened
from service.catalog.runs import finish_if_complete, open_run
from service.catalog.schema import labels
from service.catalog.writer import write_batch
from service.settings import Settings

N = 30


@pytest.fixture
def client(
    engine: sa.Engine,
    catalog_url: str,
    run: int,
    models: dict[str, str],
    make_row: Callable[..., Any],
    packed: bytes,
) -> Iterator[TestClient]:
    rows = [make_row(i, night=f"2026-03-0{1 + i % 3}", p_value=1 - i / N) for i in range(N)]
    rows[7].explanation = packed
    rows[8].ra = rows[8].dec = None
    rows.append(make_row(40, object_id="a/b?c#d %é", night="2026-02-01", latent=np.array([1e4, 2e4], "f4")))
    write_batch(engine, run, rows, [])
    finish_if_complete(engine, run)
    settings = Settings(_env_file=None, database_url=catalog_url, rate_limit=10_000)
    with TestClient(make_api(settings, keys_required=False)) as client:
        yield client


def test_the_page_is_closed_to_other_hosts(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    files = [path.name for path in FILES.iterdir() if path.name != "index.html"]
    for name in files:
        file = client.get(f"/page/{name}")
        assert file.status_code == 200 and file.headers["Content-Security-Policy"] == policy
        assert client.get(f"/page/{name}", headers={"If-None-Match": file.headers["ETag"]}).status_code == 304
    for name in set(
        re.findall(r'(?:from|import\() ?"\./([^"]+)"', "".join(p.read_text() for p in FILES.iterdir()))
    ):
        assert name in files
    assert client.get("/page/../api/page.py").status_code == 404


def test_data_never_become_markup() -> None:
    for script in FILES.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script.read_text()
        )


def test_nights(client: TestClient, engine: sa.Engine) -> None:
    nights = ["2026-03-03", "2026-03-02", "2026-03-01", "2026-02-01"]
    assert client.get("/nights").json() == nights
    assert client.get("/nights", params={"limit": 2}).json() == nights[:2]
    with engine.begin() as connection:
        for table in ("explanations", "embeddings", "scores", "run_inputs", "observations"):
            connection.execute(sa.text(f"DELETE FROM {table}"))
    assert client.get("/nights").json() == []


def test_what_was_withdrawn_counts_no_more(client: TestClient, engine: sa.Engine) -> None:
    odd, plain = "a/b?c#d %é", "0266-51602-0003"
    for by, label in (("ann", "lens"), ("bob", "artefact"), ("ann", "interesting")):
        assert (
            client.post(
                "/objects/a%2Fb%3Fc%23d%20%25%C3%A9/labels", json={"label": label, "by": by}
            ).status_code
            == 201
        )
    record_labels(engine, [Label(plain, "lens", "ann"), Label(plain, "withdrawn", "ann")])
    found = client.get("/labels", params={"object_id": [odd, plain, "nothing"]}).json()
    assert [(row["object_id"], row["by"], row["label"]) for row in found] == [
        (odd, "bob", "artefact"),
        (odd, "ann", "interesting"),
    ]
    assert not_ordinary(engine, "spectrum") == {("sdss", odd)}
    with engine.connect() as connection:
        assert (
            connection.scalar(sa.select(sa.func.count()).where(newest_label("lens")).select_from(labels)) == 0
        )
        assert connection.scalar(sa.select(sa.func.count()).select_from(labels)) == 5  # nothing is lost
    assert labels_now(engine, []) == []
    assert client.get("/labels").status_code == 422
    assert client.get("/labels", params={"object_id": ["x"] * 201}).status_code == 422


def test_an_explanation_is_what_the_catalog_keeps(client: TestClient, packed: bytes) -> None:
    path = "/objects/0266-51602-0007/explanation"
    answer = client.get(path)
    assert answer.headers["Content-Encoding"] == "deflate" and answer.content == zlib.decompress(packed)
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers and plain.content == answer.content
    again = client.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304 and not again.content
    nothing = client.get("/objects/0266-51602-0005/explanation")
    assert nothing.status_code == 204 and not nothing.content
    assert client.get("/objects/none/explanation").status_code == 404


def test_the_latent_map_counts_everybody_once(client: TestClient) -> None:
    found = client.get("/maps/latent", params={"kind": "spectrum"}).json()
    assert found["n"] == sum(found["cells"]["count"]) == N + 1
    assert max(found["cells"]["max"]) == 40
    assert found["explained"] == [pytest.approx(1), pytest.approx(0, abs=1e-6)]  # all lie on one line
    assert found["points"][0]["object_id"] == "a/b?c#d %é"
    of_night = client.get("/maps/latent", params={"kind": "spectrum", "night": "2026-03-02"}).json()
    assert of_night["n"] == sum(of_night["cells"]["count"]) == N // 3
    assert client.get("/maps/latent", params={"kind": "spectrum", "night": "2020-01-01"}).json()["n"] == 0
    assert client.get("/maps/latent", params={"kind": "cutout"}).status_code == 404
    assert client.get("/maps/latent", params={"model": "none"}).status_code == 404


def test_a_region_of_the_map_is_a_gallery(client: TestClient) -> None:
    left, bottom, right, top = client.get("/maps/latent", params={"kind": "spectrum"}).json()["bounds"]
    everything = {"kind": "spectrum", "left": left, "bottom": bottom, "right": right, "top": top}

    def pages(**more: Any) -> list[str]:
        names: list[str] = []
        token: dict[str, Any] = {}
        while True:
            page = client.get("/maps/latent/outliers", params=everything | more | token).json()
            names += [row["object_id"] for row in page["items"]]
            if page["next"] is None:
                return names
            token = {"page": page["next"]}

    def ranking(**more: Any) -> list[str]:
        items = client.get("/outliers", params={"kind": "spectrum", "limit": 1000} | more).json()["items"]
        return [row["object_id"] for row in items]

    assert pages(limit=7) == ranking()
    assert pages(limit=3, night="2026-03-02") == ranking(night="2026-03-02")
    assert pages(limit=4, p=0.1) == ranking(p=0.1)
    assert pages(right=left) + pages(left=right) == [
        "a/b?c#d %é"
    ]  # what lies further out is found at the edge
    middle = (left + right) / 2
    assert sorted(pages(right=middle) + pages(left=np.nextafter(middle, right))) == sorted(ranking())
    assert pages(left=right + 1, right=right + 2) == []
    for bad in ({"left": "nan"}, {"page": "nonsense"}, {"colour": "red"}):
        assert client.get("/maps/latent/outliers", params=everything | bad).status_code == 422


def test_pieces_of_a_large_region_join(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.catalog.ranking.FIRST_PIECE", 2)
    monkeypatch.setattr("service.catalog.ranking.LARGEST_PIECE", 5)
    test_a_region_of_the_map_is_a_gallery(client)


def test_the_sky_map(client: TestClient) -> None:
    found = client.get("/maps/sky", params={"kind": "spectrum", "fdr": 1}).json()
    pixels = found["pixels"]
    assert found["n"] == N + 1 and found["n_placed"] == sum(pixels["count"]) == N
    assert pixels["discoveries"] == pixels["count"]  # every q-value is at most 1
    for ra, dec, corners in zip(pixels["ra"], pixels["dec"], pixels["corners"], strict=True):
        assert len(corners) == 4 and all(abs(corner[1] - dec) < 4 for corner in corners)
        assert all(abs((corner[0] - ra + 180) % 360 - 180) < 4 for corner in corners)
    strict = client.get("/maps/sky", params={"kind": "spectrum", "fdr": 1e-9}).json()
    assert sum(strict["pixels"]["discoveries"]) == 0


def test_a_map_is_read_again_when_a_run_ends(
    client: TestClient, engine: sa.Engine, models: dict[str, str], make_row: Callable[..., Any]
) -> None:
    atlases = Atlases(engine)
    first = atlases.of(models["spectrum"])
    assert atlases.of(models["spectrum"]) is first
    run = open_run(engine, "sdss/next", "sdss", "2026-03-04", models)
    write_batch(engine, run, [make_row(60, night="2026-03-04")], [])
    finish_if_complete(engine, run)
    assert len(atlases.of(models["spectrum"]).score) == len(first.score) + 1
    assert len(atlases.of(models["cutout"]).score) == 0


def test_nobody_waits_for_a_newer_map(
    client: TestClient, engine: sa.Engine, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    atlases = Atlases(engine)
    first = atlases.of(models["spectrum"])
    go_on = threading.Event()
    read = maps.read_atlas
    monkeypatch.setattr(maps, "PATIENCE_S", 0.0)
    monkeypatch.setattr(maps, "read_atlas", lambda *given: go_on.wait() and read(*given))
    finish_if_complete(engine, open_run(engine, "sdss/next", "sdss", "2026-03-04", models))
    assert atlases.of(models["spectrum"]) is first
    go_on.set()
    monkeypatch.setattr(maps, "PATIENCE_S", None)
    assert atlases.of(models["spectrum"]) is not first


def test_principal_axes() -> None:
    rng = np.random.default_rng(1)
    latents = rng.normal(size=(5000, 4)) * (1.0, 5.0, 0.1, 2.0) + 7
    place, explained = flattened(latents.astype(np.float32))
    assert np.allclose(place.std(0), (5, 2), rtol=0.1) and np.allclose(place.mean(0), 0, atol=0.3)
    assert np.allclose(explained, np.array([25, 4]) / 30.01, atol=0.02)
    assert np.corrcoef(place[:, 0], latents[:, 1])[0, 1] > 0.99  # and never the other way round
    alone, _ = flattened(np.ones((1, 1), np.float32))
    assert alone.shape == (1, 2) and np.all(alone == 0)
