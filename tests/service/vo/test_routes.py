"""The routes under /vo: bad input, caching, keys, jobs over HTTP."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.api import make_api
from service.catalog.engine import writing
from service.catalog.keys import add_key, revoke_key
from service.catalog.schema import vo_jobs, vo_results
from service.settings import Settings
from tests.service.vo.conftest import POSITIONS

QUERY = "SELECT object_id, ra FROM peculiar.scores ORDER BY score"
GOOD = {"LANG": "ADQL", "QUERY": QUERY}
CONE = {"RA": "0", "DEC": "0", "SR": "1"}


@pytest.fixture(scope="module")
def make_client(filled: sa.Engine) -> Iterator[Callable[..., TestClient]]:
    made: list[TestClient] = []

    def make(keys_required: bool = False) -> TestClient:
        settings = Settings(
            _env_file=None, database_url=filled.url.render_as_string(hide_password=False), rate_limit=10**9
        )
        client = TestClient(make_api(settings, keys_required), raise_server_exceptions=False)
        client.__enter__()
        made.append(client)
        return client

    yield make
    for client in made:
        client.__exit__(None, None, None)
    with writing(filled) as connection:
        connection.execute(sa.delete(vo_results))
        connection.execute(sa.delete(vo_jobs))


@pytest.fixture(scope="module")
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client()


def table(document: bytes) -> Any:
    from astropy.io.votable import parse_single_table

    return parse_single_table(io.BytesIO(document))


def infos(document: bytes) -> dict[str, tuple[str, str]]:
    from astropy.io.votable import parse

    found = parse(io.BytesIO(document)).resources[0].infos
    return {info.name: (info.value, info.content) for info in found}


BAD = [
    ("tap/sync", {}, "LANG"),
    ("tap/sync", {"QUERY": QUERY}, "LANG is missing"),
    ("tap/sync", {"LANG": "ADQL"}, "QUERY is missing"),
    ("tap/sync", {"LANG": "ADQL", "QUERY": ""}, "QUERY is missing"),
    ("tap/sync", GOOD | {"LANG": "SQL"}, "LANG"),
    ("tap/sync", GOOD | {"LANG": "ADQL-9.9"}, "LANG"),
    ("tap/sync", GOOD | {"REQUEST": "getCapabilities"}, "REQUEST"),
    ("tap/sync", GOOD | {"QUERY": "SELEKT"}, "not"),
    ("tap/sync", GOOD | {"QUERY": "SELECT nosuch FROM peculiar.scores"}, "no column"),
    ("tap/sync", GOOD | {"QUERY": "SELECT * FROM secrets"}, "no table"),
    ("tap/sync", GOOD | {"QUERY": "SELECT pg_sleep(100) FROM peculiar.scores"}, "no function"),
    ("tap/sync", GOOD | {"QUERY": f"{QUERY}; DROP TABLE scores"}, "one query"),
    ("tap/sync", GOOD | {"QUERY": "SELECT " + "(" * 5_000 + "1" + ")" * 5_000 + " FROM x"}, "nested"),
    ("tap/sync", GOOD | {"MAXREC": "-1"}, "MAXREC"),
    ("tap/sync", GOOD | {"MAXREC": "many"}, "MAXREC"),
    ("tap/sync", GOOD | {"MAXREC": "1.5"}, "MAXREC"),
    ("tap/sync", GOOD | {"MAXREC": "NaN"}, "MAXREC"),
    ("tap/sync", GOOD | {"RESPONSEFORMAT": "doc"}, "RESPONSEFORMAT"),
    ("tap/sync", GOOD | {"RESPONSEFORMAT": "application/x-votable+xml;version=2.7"}, "version"),
    ("tap/sync", GOOD | {"RESPONSEFORMAT": "application/x-votable+xml;serialization=fits"}, "serialized"),
    ("tap/sync", GOOD | {"UPLOAD": "t,http://127.0.0.1/t.xml"}, "uploaded"),
    ("tap/async", GOOD | {"PHASE": "STOP"}, "PHASE"),
    ("cone", {}, "RA is missing"),
    ("cone", {"RA": "1", "DEC": "2"}, "SR is missing"),
    ("cone", {"RA": "1", "SR": "2"}, "DEC is missing"),
    ("cone", CONE | {"RA": "NaN"}, "RA"),
    ("cone", CONE | {"RA": "inf"}, "RA"),
    ("cone", CONE | {"RA": "360.1"}, "RA"),
    ("cone", CONE | {"RA": "10:20:30"}, "RA"),
    ("cone", CONE | {"DEC": "90.0001"}, "DEC"),
    ("cone", CONE | {"DEC": "nan"}, "DEC"),
    ("cone", CONE | {"SR": "-0.1"}, "SR"),
    ("cone", CONE | {"SR": "180.1"}, "SR"),
    ("cone", CONE | {"SR": "nan"}, "SR"),
    ("cone", CONE | {"SR": "\x00"}, "SR"),
    ("cone", CONE | {"VERB": "x"}, "VERB"),
    ("cone", CONE | {"MAXREC": "-5"}, "MAXREC"),
    ("cone", CONE | {"RESPONSEFORMAT": "votable;version=7"}, "version"),
]


@pytest.mark.parametrize(
    ("method", "path", "parameters", "words"),
    [(method, *bad) for bad in BAD for method in ("GET", "POST") if (method, bad[0]) != ("GET", "tap/async")],
)
def test_bad_input(
    client: TestClient, method: str, path: str, parameters: dict[str, str], words: str
) -> None:
    if method == "GET":
        response = client.get(f"/vo/{path}", params=parameters)
    else:
        response = client.post(f"/vo/{path}", data=parameters)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/x-votable+xml"
    status, message = infos(response.content)["QUERY_STATUS"]
    assert status == "ERROR" and words in message
    assert infos(response.content)["Error"][0] == message


def test_bad_requests(client: TestClient) -> None:
    twice = client.get("/vo/cone?RA=1&DEC=2&SR=3&ra=4")
    assert twice.status_code == 400 and "2 times" in infos(twice.content)["QUERY_STATUS"][1]
    json = client.post("/vo/tap/sync", json=GOOD)
    assert json.status_code == 400 and "urlencoded" in infos(json.content)["QUERY_STATUS"][1]
    broken = client.post(
        "/vo/tap/sync", content=b"--x", headers={"Content-Type": "multipart/form-data; boundary=y"}
    )
    assert broken.status_code == 400
    long = client.post("/vo/tap/sync", data=GOOD | {"QUERY": "x" * 150_000})
    assert long.status_code == 400 and "characters" in infos(long.content)["QUERY_STATUS"][1]
    large = client.post("/vo/tap/sync", data=GOOD | {"X": "x" * 2_500_000})
    assert large.status_code == 413
    for path in (
        "tap/tables/nosuch",
        "tap/async/nosuch",
        "tap/async/nosuch/phase",
        "tap/async/nosuch/results/result",
    ):
        missing = client.get(f"/vo/{path}")
        assert missing.status_code == 404 and infos(missing.content)["QUERY_STATUS"][0] == "ERROR"
    assert client.get("/vo/tap/tables?DETAIL=some").status_code == 400
    assert client.get("/vo/tap/async?PHASE=GONE").status_code == 400
    assert client.get("/vo/tap/async?AFTER=yesterday").status_code == 400


@pytest.mark.parametrize("method", ["GET", "POST", "multipart"])
@pytest.mark.parametrize("names", [str.upper, str.lower])
def test_queries(client: TestClient, method: str, names: Callable[[str], str]) -> None:
    given = {names(name): value for name, value in (GOOD | {"MAXREC": "3"}).items()}
    if method == "GET":
        response = client.get("/vo/tap/sync", params=given)
    elif method == "POST":
        response = client.post("/vo/tap/sync", data=given)
    else:
        response = client.post("/vo/tap/sync", files={name: (None, value) for name, value in given.items()})
    assert response.status_code == 200
    assert len(table(response.content).array) == 3 and b'value="OVERFLOW"' in response.content


def test_maxrec_0_is_an_empty_table_with_its_columns(client: TestClient) -> None:
    for path, given in (("tap/sync", GOOD), ("cone", CONE)):
        response = client.get(f"/vo/{path}", params=given | {"MAXREC": "0"})
        found = table(response.content)
        assert len(found.array) == 0 and found.get_field_by_id_or_name("ra").ucd == "pos.eq.ra;meta.main"


@pytest.mark.parametrize(
    ("ra", "dec", "radius"),
    [(0, 0, 0.5), (360, 0, 0.5), (0, 90, 0.06), (30, -90, 0.1), (10, 20, 0), (0, 0, 180), (180, 0, 179.9998)],
)
def test_cones(client: TestClient, apart: Any, ra: float, dec: float, radius: float) -> None:
    response = client.get("/vo/cone", params={"RA": ra, "DEC": dec, "SR": radius})
    rows = table(response.content).array
    spectra = rows[rows["kind"] == "spectrum"]
    wanted = [i for i, place in enumerate(POSITIONS) if apart(place, (ra, dec)) <= radius + 1e-12]
    assert sorted(spectra["score"].tolist()) == wanted
    assert list(rows["score"]) == sorted(rows["score"], reverse=True)
    assert b"<TABLEDATA>" in response.content


def test_no_text_of_a_request_gets_into_a_header(client: TestClient) -> None:
    odd = "application/x-votable+xml;serialization=tabledata;x=\r\nSet-Cookie: a=b;é=\u2028"
    response = client.get("/vo/tap/sync", params=GOOD | {"RESPONSEFORMAT": odd})
    assert response.headers["content-type"] == "application/x-votable+xml;serialization=tabledata"
    assert "set-cookie" not in response.headers


def test_a_job_shows_what_xml_can_hold(client: TestClient) -> None:
    odd = {"LANG": "ADQL", "QUERY": "SELECT \x00\ufffe<&> FROM x", "RUNID": "\x01r", "X": "y", "PHASE": "RUN"}
    job = client.post("/vo/tap/async", data=odd, follow_redirects=False).headers["location"]
    while b"<uws:phase>ERROR" not in (response := client.get(f"{job}?WAIT=10")).content:
        assert response.status_code == 200
    for part in ("", "/parameters", "/error", "/results"):
        assert client.get(job + part).status_code == 200
    assert client.get("/vo/tap/async").status_code == 200


def test_verbosity(client: TestClient) -> None:
    widths = [len(table(client.get("/vo/cone", params=CONE | {"VERB": n}).content).fields) for n in (1, 2, 3)]
    assert widths[0] < widths[1] < widths[2]
    fields = table(client.get("/vo/cone", params=CONE | {"VERB": 1}).content).fields
    assert {"meta.id;meta.main", "pos.eq.ra;meta.main", "pos.eq.dec;meta.main"} <= {
        field.ucd for field in fields
    }


def test_who_has_a_document_is_not_sent_it_again(client: TestClient) -> None:
    for path, given in (("tap/sync", GOOD), ("cone", CONE), ("tap/capabilities", {}), ("tap/examples", {})):
        first = client.get(f"/vo/{path}", params=given)
        assert first.status_code == 200 and "no-cache" in first.headers["cache-control"]
        again = client.get(f"/vo/{path}", params=given, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304 and not again.content
        other = client.get(f"/vo/{path}", params=given, headers={"If-None-Match": 'W/"other"'})
        assert other.content == first.content
    posted = client.post("/vo/tap/sync", data=GOOD, headers={"If-None-Match": "*"})
    assert posted.status_code == 200


def test_documents_are_compressed_for_who_can_read_that(client: TestClient) -> None:
    compressed = client.get("/vo/tap/tables", headers={"Accept-Encoding": "gzip"})
    plain = client.get("/vo/tap/tables", headers={"Accept-Encoding": "identity"})
    assert compressed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert compressed.content == plain.content and "Accept-Encoding" in compressed.headers["vary"]


def test_a_job_over_http(client: TestClient) -> None:
    created = client.post(
        "/vo/tap/async", data=GOOD | {"RESPONSEFORMAT": "csv", "RUNID": "r"}, follow_redirects=False
    )
    assert created.status_code == 303
    job = created.headers["location"]
    assert b"PENDING" in client.get(job).content and client.get(f"{job}/phase").text == "PENDING"
    assert client.get(f"{job}/executionduration").text == "600" and client.get(f"{job}/quote").text == ""
    assert client.post(f"{job}/executionduration", data={"EXECUTIONDURATION": "30"}).status_code == 200
    assert client.get(f"{job}/executionduration").text == "30"
    client.post(f"{job}/destruction", data={"DESTRUCTION": "2999-01-01T00:00:00Z"})
    assert not client.get(f"{job}/destruction").text.startswith("2999")
    assert client.post(f"{job}/phase", data={"PHASE": "SLEEP"}).status_code == 400
    assert client.post(f"{job}/owner", data={"OWNER": "me"}).status_code == 404
    assert client.get(f"{job}/results/result").status_code == 409
    client.post(f"{job}/phase", data={"PHASE": "RUN"})
    while b"COMPLETED" not in (document := client.get(f"{job}?WAIT=10").content):
        assert b"ERROR" not in document
    assert b"<uws:runId>r</uws:runId>" in document and b"results/result" in document
    result = client.get(f"{job}/results/result")
    assert result.text.startswith("object_id,ra") and "last-modified" in result.headers
    assert client.get(f"{job}/error").text == "" and client.get(f"{job}/owner").text == ""
    assert b"SELECT object_id" in client.get(f"{job}/parameters").content
    assert b"result" in client.get(f"{job}/results").content
    assert job.rsplit("/", 1)[1] in client.get("/vo/tap/async?PHASE=COMPLETED&LAST=5").text
    assert client.post(f"{job}/parameters", data={"QUERY": "x"}).status_code == 409
    assert client.post(job, data={"ACTION": "KEEP"}).status_code == 400
    assert client.post(job, data={"ACTION": "DELETE"}, follow_redirects=False).status_code == 303
    assert client.get(job).status_code == 404


def test_a_failed_job_says_why(client: TestClient) -> None:
    bad = GOOD | {"QUERY": "SELECT nosuch FROM peculiar.scores", "PHASE": "RUN"}
    job = client.post("/vo/tap/async", data=bad, follow_redirects=False).headers["location"]
    while b"<uws:phase>ERROR" not in (document := client.get(f"{job}?WAIT=10").content):
        assert b"COMPLETED" not in document
    assert b"no column nosuch" in document
    assert "no column nosuch" in infos(client.get(f"{job}/error").content)["QUERY_STATUS"][1]
    assert client.delete(job, follow_redirects=False).status_code == 303


def test_keys(make_client: Callable[..., TestClient], filled: sa.Engine) -> None:
    client = make_client(keys_required=True)
    key = add_key(filled, "vo", "read")
    refused = client.get("/vo/tap/tables")
    assert refused.status_code == 401 and infos(refused.content)["QUERY_STATUS"][0] == "ERROR"
    assert "Basic" in refused.headers["www-authenticate"]
    password = base64.b64encode(f"anybody:{key}".encode()).decode()
    for header in (f"Bearer {key}", f"Basic {password}"):
        assert client.get("/vo/tap/tables", headers={"Authorization": header}).status_code == 200
    for header in ("Bearer no", "Basic no", "Basic " + base64.b64encode(b"\xff:x").decode(), "Digest x"):
        assert client.get("/vo/cone", params=CONE, headers={"Authorization": header}).status_code == 401
    assert client.get("/models", headers={"Authorization": f"Basic {password}"}).status_code == 401
    for path in ("capabilities", "availability", "examples"):
        assert client.get(f"/vo/tap/{path}").status_code == 200
    assert b"BasicAA" in client.get("/vo/tap/capabilities").content
    job = client.post(
        "/vo/tap/async", data=GOOD, headers={"Authorization": f"Bearer {key}"}, follow_redirects=False
    ).headers["location"]
    assert client.get(f"{job}/owner", headers={"Authorization": f"Bearer {key}"}).text == "vo"
    other = add_key(filled, "other", "read")
    assert client.get(job, headers={"Authorization": f"Bearer {other}"}).status_code == 404
    for name in ("vo", "other"):
        revoke_key(filled, name)


def test_a_catalog_that_does_not_answer(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise sa.exc.OperationalError("SELECT", {}, Exception("server closed the connection"))

    monkeypatch.setattr("service.vo.execute.public_tables", fail)
    response = client.get("/vo/tap/sync", params=GOOD)
    assert response.status_code == 503 and response.headers["retry-after"]
    assert "try again" in infos(response.content)["QUERY_STATUS"][1]
    monkeypatch.setattr("service.vo.execute.public_tables", lambda *_: 1 / 0)
    response = client.get("/vo/tap/sync", params=GOOD)
    assert (
        response.status_code == 500 and "fault of the program" in infos(response.content)["QUERY_STATUS"][1]
    )


def test_formats(client: TestClient) -> None:
    for name, start in (("csv", b"object_id"), ("json", b"{"), ("fits", b"SIMPLE"), ("parquet", b"PAR1")):
        response = client.get("/vo/tap/sync", params=GOOD | {"RESPONSEFORMAT": name})
        assert response.status_code == 200 and response.content.startswith(start)
    ra = table(client.get("/vo/tap/sync", params=GOOD).content).array["ra"]
    assert np.ma.is_masked(ra[-1]) or np.isnan(ra[-1])
