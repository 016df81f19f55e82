"""Searches that are kept: saving, running, forgetting, and names that are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.api import make_api
from service.catalog.engine import NotFoundError, writing
from service.catalog.schema import searches
from service.catalog.searches import TakenError, delete_search, find_search, list_searches, save_search
from service.catalog.writer import write_batch
from service.settings import Settings


@pytest.fixture
def client(
    engine: sa.Engine, run: int, models: dict[str, str], make_row: Callable[..., Any], catalog_url: str
) -> Iterator[TestClient]:
    cutout = make_row(3, kind="cutout", survey="hsc", model=models["cutout"], path="/data/c.fits")
    write_batch(engine, run, [*(make_row(i) for i in range(12)), cutout], [])
    api = make_api(Settings(_env_file=None, database_url=catalog_url), keys_required=False)
    with TestClient(api, raise_server_exceptions=False) as client:
        yield client


def save(client: TestClient, name: str, by: str = "ann", **query: Any) -> Any:
    return client.post("/searches", json={"name": name, "by": by, "query": query})


def test_a_search_is_kept_run_and_forgotten(client: TestClient) -> None:
    saved = save(client, "rare-ones", kind="spectrum", p=0.2, night="2026-03-01")
    assert saved.status_code == 201, saved.text
    body = saved.json()
    assert body["query"] == {"kind": "spectrum", "p": 0.2, "night": "2026-03-01"} and body["by"] == "ann"
    assert client.get("/searches/rare-ones").json() == body
    assert save(client, "all").status_code == 201
    assert [row["name"] for row in client.get("/searches").json()] == ["all", "rare-ones"]
    plain = client.get("/outliers?kind=spectrum&p=0.2&night=2026-03-01").json()
    assert client.get("/searches/rare-ones/outliers").json() == plain and len(plain["items"]) == 8
    first = client.get("/searches/rare-ones/outliers?limit=5").json()
    second = client.get(f"/searches/rare-ones/outliers?limit=5&page={first['next']}").json()
    assert first["items"] + second["items"] == plain["items"] and second["next"] is None
    gone = client.delete("/searches/rare-ones")
    assert (gone.status_code, gone.content) == (204, b"")
    assert client.get("/searches/rare-ones/outliers").status_code == 404
    assert client.delete("/searches/rare-ones").status_code == 404


BAD = [
    ("a b", {}, 422, "body.name"),
    ("../x", {}, 422, "body.name"),
    ("x" * 65, {}, 422, "body.name"),
    ("x", {"colour": "red"}, 422, "colour"),
    ("x", {"limit": 3}, 422, "limit"),
    ("x", {"ra": 1}, 422, "a cone needs"),
    ("x", {"polygon": "1,2"}, 422, "3 to 100"),
    ("x", {"cluster": 1}, 422, "which kind or model"),
    ("x", {"model": "nope"}, 404, "no model is called 'nope'"),
]


def test_searches_that_could_not_be_run_are_refused(client: TestClient) -> None:
    for name, query, status, words in BAD:
        response = save(client, name, **query)
        assert response.headers["content-type"] == "application/problem+json"
        assert (response.status_code, words in response.json()["detail"]) == (status, True), response.text
    assert client.get("/searches").json() == []


def test_a_name_is_taken_once(client: TestClient, engine: sa.Engine) -> None:
    assert save(client, "mine", p=0.1).status_code == 201
    again = save(client, "mine", by="bob", p=0.2)
    assert again.status_code == 409 and "is there already" in again.json()["detail"]
    assert find_search(engine, "mine")["by"] == "ann"
    with pytest.raises(TakenError):
        save_search(engine, "mine", "bob", {})
    delete_search(engine, "mine")
    with pytest.raises(NotFoundError, match="there are none yet"):
        delete_search(engine, "mine")
    assert list_searches(engine) == []


def test_a_search_of_another_version_says_so(client: TestClient, engine: sa.Engine) -> None:
    save(client, "old")
    with writing(engine) as connection:
        connection.execute(sa.update(searches).values(query={"flavour": "strange"}))
    response = client.get("/searches/old/outliers")
    assert response.status_code == 422 and "keep it anew" in response.json()["detail"]
