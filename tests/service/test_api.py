"""The HTTP API: what it answers, to good requests and to bad ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.api import MAX_BODY, make_api
from service.catalog import schema
from service.catalog.engine import CatalogError, writing
from service.catalog.labels import Label, record_labels
from service.catalog.registry import register_model
from service.catalog.rows import ModelRow, RejectedRow
from service.catalog.runs import finish_if_complete
from service.catalog.writer import write_batch
from service.settings import Settings


@pytest.fixture
def filled(
    engine: sa.Engine, run: int, models: dict[str, str], make_row: Callable[..., Any], packed: bytes
) -> sa.Engine:
    rows = [make_row(i) for i in range(12)]
    rows[11].explanation = packed
    rows.append(make_row(3, kind="cutout", survey="hsc", model=models["cutout"], path="/data/c.fits"))
    rows.append(make_row(50, object_id="field/7 é"))
    write_batch(engine, run, rows, [RejectedRow("/data/bad.fits", "truncated")])
    finish_if_complete(engine, run)
    record_labels(engine, [Label(rows[0].object_id, "lens", "ann")])
    return engine


@pytest.fixture
def change_settings(catalog_url: str) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        return Settings(_env_file=None, **({"database_url": catalog_url} | changes))

    return make


@pytest.fixture
def client(filled: sa.Engine, change_settings: Callable[..., Settings]) -> Iterator[TestClient]:
    with TestClient(
        make_api(change_settings(), keys_required=False), raise_server_exceptions=False
    ) as client:
        yield client


def get(client: TestClient, url: str) -> Any:
    response = client.get(url)
    assert response.status_code == 200, response.text
    return response.json()


def assert_problem(response: Any, status: int, words: str = "") -> dict[str, Any]:
    assert response.status_code == status, f"{response.request.url}: {response.text}"
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail"} <= set(body) and body["status"] == status
    assert words in body["detail"], response.request.url
    return body


def test_outliers_page_by_page(client: TestClient) -> None:
    whole = get(client, "/outliers?kind=spectrum&limit=100")
    assert whole["next"] is None and len(whole["items"]) == 13
    assert whole["items"][0]["object_id"] == "field/7 é"
    seen, token = [], ""
    while token is not None:
        page = get(client, f"/outliers?kind=spectrum&limit=5{'&page=' + token if token else ''}")
        seen += page["items"]
        token = page["next"]
    assert seen == whole["items"]


FILTERS = [
    ("", 14),
    ("kind=cutout", 1),
    ("model=sdss", 13),
    ("night=2026-03-01", 14),
    ("night=2026-03-02", 0),
    ("kind=spectrum&cluster=1", 4),
    ("p=0.1", 4),
    ("q=1", 14),
    ("ra=13&dec=-4.7&radius=0.001", 2),
    ("polygon=12.5,-5,13.5,-5,13.5,-4,12.5,-4", 2),
    ("search=HSC", 0),
    ("search=51602-000&kind=spectrum&snr_min=12&snr_max=12&redshift_min=0.1&redshift_max=0.2", 10),
    ("since=2026-03-01&until=2026-03-01&labelled=false&spectral_class=galaxy&no_flag=duplicate", 11),
    ("label=lens", 1),
    ("part=chi2_tail&part_p=0.5&p=0.1", 4),
    ("lens_fraction=0.7", 4),
]


def test_filters(client: TestClient) -> None:
    for query, number in FILTERS:
        assert len(get(client, f"/outliers?{query}")["items"]) == number, query


def test_one_object_and_its_neighbours(client: TestClient) -> None:
    found = get(client, "/objects/0266-51602-0000")
    assert found["labels"][0]["label"] == "lens" and found["scores"][0]["lens_fraction"] == 0.75
    assert found["observations"][0]["path"] == "/data/spec-0266-51602-0000.fits"
    near = get(client, "/objects/0266-51602-0005/neighbours?k=2")
    assert {row["object_id"] for row in near} == {"0266-51602-0004", "0266-51602-0006"}
    assert near[0]["distance"] == pytest.approx(5**0.5)
    assert get(client, "/objects/field%2F7%20%C3%A9")["object_id"] == "field/7 é"
    assert len(get(client, "/objects/field%2F7%20%C3%A9/neighbours?k=200")) == 12


def test_the_picture_of_an_outlier(client: TestClient) -> None:
    url = "/objects/0266-51602-0011/picture.png"
    first = client.get(url)
    assert first.status_code == 200 and first.headers["content-type"] == "image/png"
    assert first.content.startswith(b"\x89PNG")
    assert "max-age" in first.headers["cache-control"] and "private" in first.headers["cache-control"]
    etag = first.headers["etag"]
    again = client.get(url, headers={"If-None-Match": f'"other", {etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get(f"{url}?model=sdss&kind=spectrum&survey=sdss").headers["etag"] == etag


def test_a_picture_that_is_not_there(client: TestClient) -> None:
    ordinary = client.get("/objects/0266-51602-0001/picture.png")
    assert_problem(ordinary, 404, "`peculiar explain` draws any object")
    assert_problem(client.get("/objects/nothing/picture.png"), 404, "no object")
    assert_problem(
        client.get("/objects/0266-51602-0011/picture.png?model=other"), 404, "no score by the model"
    )
    assert_problem(client.get("/objects/0266-51602-0003/picture.png"), 409, "which kind or survey")


def test_several_objects_of_one_name(client: TestClient) -> None:
    body = assert_problem(client.get("/objects/0266-51602-0003"), 409, "which kind or survey")
    assert body["choices"] == [{"kind": "spectrum", "survey": "sdss"}, {"kind": "cutout", "survey": "hsc"}]
    assert get(client, "/objects/0266-51602-0003?survey=hsc")["kind"] == "cutout"


def test_clusters_models_runs(client: TestClient, run: int) -> None:
    assert [row["cluster"] for row in get(client, "/clusters?model=sdss")] == [0, 1, 2]
    assert {row["id"] for row in get(client, "/models")} == {"sdss@0123456789ab", "lens@ba9876543210"}
    assert [row["kind"] for row in get(client, "/models?kind=cutout")] == ["cutout"]
    one = get(client, f"/runs/{run}")
    assert (one["found"], one["scored"], one["failed"], one["reasons"]) == (15, 14, 1, {"truncated": 1})
    assert get(client, "/runs") == [one] and get(client, f"/runs?before={run}") == []


def test_a_model_is_promoted(client: TestClient, engine: sa.Engine) -> None:
    newer = ModelRow("sdss@000000000000", "sdss", "spectrum", "/models/newer", 1, 0.1, [1.0])
    register_model(engine, newer)
    assert not next(m for m in get(client, "/models") if m["id"] == newer.id)["in_force"]
    assert client.post(f"/models/{newer.id}/promote").json()["in_force"]
    assert [m["id"] for m in get(client, "/models?kind=spectrum") if m["in_force"]] == [newer.id]
    assert_problem(client.post("/models/nope/promote"), 404, "no model is called 'nope'")


def test_labels_are_recorded(client: TestClient) -> None:
    response = client.post("/objects/0266-51602-0003/labels", json={"label": "Not lens", "by": "bob"})
    assert (response.status_code, response.json()) == (201, {"objects": 2})
    assert get(client, "/objects/0266-51602-0003?kind=spectrum")["labels"][0]["label"] == "not-lens"
    assert_problem(
        client.post("/objects/nope/labels", json={"label": "lens", "by": "bob"}), 404, "not in the catalog"
    )


BAD_REQUESTS = [
    ("GET", "/nowhere", 404, ""),
    ("DELETE", "/outliers", 405, ""),
    ("GET", "/objects/nope", 404, "no object 'nope'"),
    ("GET", "/objects/a%00b%FF", 404, "no object"),
    ("GET", "/objects/nope/neighbours", 404, "no object"),
    ("GET", "/objects/0266-51602-0001/neighbours?model=lens", 404, "of kind cutout"),
    ("GET", "/objects/0266-51602-0001/neighbours?k=0", 422, "query.k"),
    ("GET", "/outliers?model=nope", 404, "no model is called 'nope'"),
    ("GET", "/clusters?model=nope", 404, "no model is called 'nope'"),
    ("GET", "/outliers?kind=galaxy", 422, "query.kind"),
    ("GET", "/outliers?limit=100000", 422, "query.limit"),
    ("GET", "/outliers?page=nonsense", 422, "first page"),
    ("GET", "/outliers?night=yesterday", 422, "query.night"),
    ("GET", "/outliers?p=nan", 422, "query.p"),
    ("GET", "/outliers?q=2", 422, "query.q"),
    ("GET", "/outliers?ra=1", 422, "a cone needs"),
    ("GET", "/outliers?ra=1&dec=91&radius=1", 422, "query.dec"),
    ("GET", "/outliers?cluster=1", 422, "which kind or model"),
    ("GET", "/outliers?cluster=99999999999999999999", 422, "query.cluster"),
    ("GET", "/outliers?colour=red", 422, "query.colour"),
    ("GET", "/outliers?part=window", 422, "part and part_p go together"),
    ("GET", "/outliers?part_p=0.1", 422, "part and part_p go together"),
    ("GET", "/outliers?part=nope&part_p=0.1", 422, "there are chi2_tail"),
    ("GET", "/outliers?part='--&part_p=0.1", 422, "query.part"),
    ("GET", "/outliers?snr_min=2&snr_max=1", 422, "no snr lies between 2 and 1"),
    ("GET", "/outliers?snr_min=inf", 422, "query.snr_min"),
    ("GET", "/outliers?since=2026-03-02&until=2026-03-01", 422, "no night lies between"),
    ("GET", "/outliers?polygon=1,2,3", 422, "no partner"),
    ("GET", "/outliers?polygon=0,0,10,0,0,10,10,10", 422, "not convex"),
    ("GET", "/outliers?labelled=perhaps", 422, "query.labelled"),
    ("GET", "/outliers/export?format=docx", 422, "query.format"),
    ("GET", "/outliers/export?colour=red", 422, "query.colour"),
    ("GET", "/outliers/export?ra=1", 422, "a cone needs"),
    ("GET", "/outliers/export?model=nope", 404, "no model is called 'nope'"),
    ("GET", "/runs/99", 404, "no run 99"),
    ("GET", "/runs/x", 422, "path.run_id"),
    ("GET", "/runs/99999999999999999999999", 422, "path.run_id"),
]


def test_bad_requests_are_problems(client: TestClient) -> None:
    for method, url, status, words in BAD_REQUESTS:
        assert_problem(client.request(method, url), status, words)


BAD_BODIES = [
    (b"", 422),
    (b"{", 422),
    (b"[]", 422),
    (b"\xff", 400),
    (b'{"paths": []}', 422),
    (b'{"paths": [7]}', 422),
    (b'{"paths": [NaN]}', 422),
    (b'{"paths": ["/a"], "x": 1}', 422),
    (b'{"paths": ["' + b"a" * 5000 + b'"]}', 422),
]


def test_bad_bodies_are_problems(client: TestClient) -> None:
    for body, status in BAD_BODIES:
        response = client.post("/batches", content=body, headers={"content-type": "application/json"})
        assert_problem(response, status)


def test_bodies_have_a_limit(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    large = b'{"paths": ["' + b"a" * MAX_BODY + b'"]}'
    assert_problem(client.post("/batches", content=large, headers=headers), 413, "at most")
    in_chunks = (large[i : i + 65536] for i in range(0, len(large), 65536))
    assert_problem(client.post("/batches", content=in_chunks, headers=headers), 413, "at most")
    many = json.dumps({"paths": [f"/{i}" for i in range(5001)]})
    assert_problem(client.post("/batches", content=many, headers=headers), 422, "paths")


def test_faults_of_ours_tell_nothing(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("service.catalog.queries.list_clusters", fail)
    body = assert_problem(client.get("/clusters"), 500)
    assert "secret" not in json.dumps(body)


def test_a_catalog_that_breaks_is_not_our_fault(client: TestClient, engine: sa.Engine) -> None:
    with writing(engine) as connection:
        connection.execute(sa.text("ALTER TABLE clusters RENAME TO elsewhere"))
    assert_problem(client.get("/clusters"), 503, "does not answer")


def test_health(client: TestClient, engine: sa.Engine) -> None:
    assert get(client, "/health") == {"status": "ok"}
    with writing(engine) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
    assert get(client, "/health") == {"status": "ok"}
    assert_problem(client.get("/ready"), 503, "peculiar db upgrade")


def test_ready_means_that_a_file_would_be_scored(
    engine: sa.Engine,
    change_settings: Callable[..., Settings],
    redis_url: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert_not_ready(change_settings(), "no broker is configured")
    settings = change_settings(broker_url=redis_url)
    assert_not_ready(settings, "no worker answers")
    monkeypatch.setattr("service.api.routes.live_workers", lambda app: ["one@host"])
    assert_not_ready(settings, "no model is in force")
    request.getfixturevalue("models")
    with TestClient(make_api(settings, keys_required=True)) as client:
        assert get(client, "/ready") == {"status": "ok"}


def assert_not_ready(settings: Settings, words: str) -> None:
    with TestClient(make_api(settings)) as client:
        assert_problem(client.get("/ready"), 503, words)


def test_it_does_not_start_on_another_schema(
    engine: sa.Engine, change_settings: Callable[..., Settings]
) -> None:
    with writing(engine) as connection:
        connection.execute(sa.text("DELETE FROM alembic_version"))
    with pytest.raises(CatalogError, match="peculiar db upgrade"):
        make_api(change_settings(), keys_required=False)


def test_paths_are_confined(
    filled: sa.Engine, change_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    root, outside = tmp_path / "root", tmp_path / "root-not"
    root.mkdir()
    outside.mkdir()
    (outside / "secret.fits").write_bytes(b"")
    (root / "link.fits").symlink_to(outside / "secret.fits")
    (root / "folder").symlink_to(outside)

    def submit(path: str, **settings: Any) -> Any:
        with TestClient(make_api(change_settings(**settings), keys_required=False)) as client:
            return client.post("/batches", json={"paths": [path]})

    assert_problem(submit(f"{root}/a.fits"), 403, "PECULIAR_DATA_ROOTS")
    bad = (
        f"{outside}/secret.fits",
        f"{root}/../root-not/secret.fits",
        f"{root}/link.fits",
        f"{root}/folder/x.fits",
        f"{root}\x00/a.fits",
        f"file://{root}",
        str(outside),
        "relative.fits",
        "/etc/passwd",
    )
    for path in bad:
        assert_problem(submit(path, data_roots=[root]), 403, "not an absolute path under")
    assert_problem(submit(f"{root}/a.fits", data_roots=[root]), 503, "no broker is configured")


def test_a_broker_that_is_down(
    filled: sa.Engine, change_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = change_settings(data_roots=[tmp_path], broker_url="redis://127.0.0.1:1/0")
    with TestClient(make_api(settings, keys_required=False)) as client:
        response = client.post("/batches", json={"paths": [f"{tmp_path}/a.fits"]})
        assert_problem(response, 503, "the broker does not answer")
        assert_problem(client.get("/ready"), 503, "the broker does not answer")
        assert len(get(client, "/runs")) == 1


def test_batches_are_queued(
    filled: sa.Engine, change_settings: Callable[..., Settings], tmp_path: Path, redis_url: str
) -> None:
    from service.queue import make_app, waiting_messages

    settings = change_settings(data_roots=[tmp_path], broker_url=redis_url)
    paths = [f"{tmp_path}/a.fits", f"{tmp_path}/x/../b.fits", f"{tmp_path}/b.fits"]
    with TestClient(make_api(settings, keys_required=False)) as client:
        response = client.post("/batches", json={"paths": paths, "night": "2026-03-05"})
        assert response.status_code == 202, response.text
        accepted = response.json()
        assert (accepted["queued"], accepted["night"]) == (2, "2026-03-05")
        run = get(client, response.headers["Location"])
        assert (run["id"], run["found"], run["queued"]) == (accepted["run"], 2, 2)
    assert waiting_messages(make_app(settings)) == 1
    with filled.connect() as connection:
        wanted = sa.select(schema.run_inputs.c.path).where(schema.run_inputs.c.run_id == accepted["run"])
        assert sorted(connection.scalars(wanted)) == [
            f"{tmp_path.resolve()}/a.fits",
            f"{tmp_path.resolve()}/b.fits",
        ]


def test_the_documentation_needs_no_other_host(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "//" not in page.replace("http://testserver", "")
    scripts = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert scripts and all(client.get(script).status_code == 200 for script in scripts)


def test_the_description_is_complete(client: TestClient) -> None:
    described = get(client, "/openapi.json")
    text = json.dumps(described)
    names = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert names <= set(described["components"]["schemas"])
    assert "HTTPValidationError" not in text
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert operation["responses"]["422"]["content"].keys() == {"application/problem+json"}, path
    assert set(described["paths"]) == {
        "/outliers", "/objects/{object_id}", "/objects/{object_id}/neighbours", "/objects/{object_id}/labels",
        "/clusters", "/models", "/models/{model}/promote", "/runs", "/runs/{run_id}", "/batches", "/health",
        "/ready", "/metrics", "/objects/{object_id}/picture.png", "/outliers/export", "/neighbours",
        "/searches", "/searches/{name}", "/searches/{name}/outliers", "/digest", "/digest.atom",
        "/nights", "/labels", "/objects/{object_id}/explanation",
        "/maps/latent", "/maps/latent/outliers", "/maps/sky",
    }  # fmt: skip
    assert described["components"]["schemas"]["Row"]["examples"]
