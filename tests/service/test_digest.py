"""A night's digest: what it counts, lists and withholds, as JSON, as a feed and on the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from fastapi.testclient import TestClient

from service.api import make_api
from service.catalog.digest import digest
from service.catalog.engine import NotFoundError, writing
from service.catalog.rows import RejectedRow
from service.catalog.runs import finish_if_complete, open_run
from service.catalog.schema import drift
from service.catalog.writer import write_batch
from service.cli import main
from service.feed import atom
from service.settings import Settings

NAMESPACE = {"a": "http://www.w3.org/2005/Atom"}
ODD = 'x<b>"&\x01y'


@pytest.fixture
def filled(engine: sa.Engine, run: int, models: dict[str, str], make_row: Callable[..., Any]) -> sa.Engine:
    """2026-03-01: 20 spectra, two of them discoveries at .1, and a cutout; the night after: nothing but failures."""
    tiny = {18: 0.001, 19: 0.004}
    rows = [
        make_row(i, p_value=tiny.get(i, 0.5 + i / 100), object_id=ODD if i == 19 else f"0266-51602-{i:04d}")
        for i in range(20)
    ]
    rows.append(
        make_row(30, kind="cutout", survey="hsc", model=models["cutout"], path="/data/c.fits", p_value=0.5)
    )
    write_batch(engine, run, rows, [RejectedRow("/data/bad.fits", "truncated")])
    finish_if_complete(engine, run)
    later = open_run(engine, "sdss/2026-03-02", "sdss", "2026-03-02", models)
    write_batch(engine, later, [], [RejectedRow("/data/worse.fits", "empty")])
    finish_if_complete(engine, later)
    open_run(engine, "sdss/2026-03-03", "sdss", "2026-03-03", models)  # it has not ended
    return engine


@pytest.fixture
def client(filled: sa.Engine, catalog_url: str) -> Iterator[TestClient]:
    api = make_api(Settings(_env_file=None, database_url=catalog_url), keys_required=False)
    with TestClient(api, raise_server_exceptions=False) as client:
        yield client


def test_what_a_night_brought(filled: sa.Engine, run: int) -> None:
    found = digest(filled, "2026-03-01", 0.1)
    assert [one["id"] for one in found["runs"]] == [run] and found["runs"][0]["reasons"] == {"truncated": 1}
    spectra, cutouts = found["models"]
    assert (spectra["kind"], spectra["scored"], spectra["n_discoveries"], spectra["withheld"]) == (
        "spectrum", 20, 2, 0,
    )  # fmt: skip
    assert [row["object_id"] for row in spectra["discoveries"]] == [ODD, "0266-51602-0018"]
    assert {row["q_value"] for row in spectra["discoveries"]} == {0.02, 0.04}
    # smallest p .005: among 20 objects one such p-value has q = .1
    assert (spectra["smallest_p"], spectra["fewest"]) == (0.005, 1)
    assert digest(filled, "2026-03-01", 0.05)["models"][0]["fewest"] == 2
    assert (cutouts["scored"], cutouts["n_discoveries"], cutouts["discoveries"]) == (1, 0, [])
    few = digest(filled, "2026-03-01", 0.1, limit=1)["models"][0]
    assert (few["n_discoveries"], len(few["discoveries"])) == (2, 1)


def test_the_last_night_that_has_ended(filled: sa.Engine) -> None:
    assert digest(filled)["night"] == "2026-03-02"
    assert digest(filled, "2026-03-03")["models"][0]["scored"] == 0
    with pytest.raises(NotFoundError, match="no run of the night 1999-01-01"):
        digest(filled, "1999-01-01")


def test_an_empty_catalog_has_no_night(engine: sa.Engine) -> None:
    with pytest.raises(NotFoundError, match="no run has ended yet"):
        digest(engine)
    assert ElementTree.fromstring(atom(engine, 0.1, 14)).findall("a:entry", NAMESPACE) == []


def test_what_looks_like_an_instrument_problem_is_withheld(
    filled: sa.Engine, run: int, models: dict[str, str]
) -> None:
    with writing(filled) as connection:
        connection.execute(sa.delete(drift))
        row = {
            "run_id": run,
            "model_id": models["spectrum"],
            "figures": {},
            "problem": "the sky is too bright",
        }
        connection.execute(sa.insert(drift), [row])
    spectra = digest(filled, "2026-03-01", 0.1)["models"][0]
    assert (spectra["n_discoveries"], spectra["discoveries"], spectra["withheld"]) == (0, [], 2)
    assert "looks like an instrument problem" in atom(filled, 0.1, 14).decode()


def test_the_digest_over_http(client: TestClient) -> None:
    body = client.get("/digest?night=2026-03-01&q=0.1").json()
    assert [len(model["discoveries"]) for model in body["models"]] == [2, 0]
    assert client.get("/digest").json()["night"] == "2026-03-02"
    for query, status in [("night=x", 422), ("q=0", 422), ("q=2", 422), ("night=1999-01-01", 404)]:
        response = client.get(f"/digest?{query}")
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"


def test_the_feed_is_valid_and_its_ids_stay(client: TestClient, filled: sa.Engine) -> None:
    """Against RFC 4287: each feed and entry has one id, title and updated, and somebody has written it."""
    response = client.get("/digest.atom?q=0.1")
    assert response.headers["content-type"] == "application/atom+xml"
    feed = ElementTree.fromstring(response.content)
    assert feed.tag == "{http://www.w3.org/2005/Atom}feed"
    assert feed.find("a:author/a:name", NAMESPACE) is not None
    entries = feed.findall("a:entry", NAMESPACE)
    for element in [feed, *entries]:
        for name in ("id", "title", "updated"):
            (one,) = element.findall(f"a:{name}", NAMESPACE)
            assert one.text
    ids = [entry.findtext("a:id", "", NAMESPACE) for entry in entries]
    assert len(set(ids)) == 2 and all(one.startswith("urn:uuid:") for one in ids)
    titles = [entry.findtext("a:title", "", NAMESPACE) for entry in entries]
    assert titles[1] == "Night 2026-03-01: 2 discoveries among 21 objects (q ≤ 0.1)"
    content = entries[1].findtext("a:content", "", NAMESPACE)
    assert "0266-51602-0018" in content and "http://testserver/objects/0266-51602-0018" in content
    assert "x&lt;b&gt;" in content and "\x01" not in content, "names are no markup"
    moved = ElementTree.fromstring(atom(filled, 0.1, 14, "https://elsewhere"))
    assert [entry.findtext("a:id", "", NAMESPACE) for entry in moved.findall("a:entry", NAMESPACE)] == ids
    other = ElementTree.fromstring(atom(filled, 0.05, 14))
    assert other.findtext("a:id", "", NAMESPACE) != feed.findtext("a:id", "", NAMESPACE)
    assert len(ElementTree.fromstring(atom(filled, 0.1, 1)).findall("a:entry", NAMESPACE)) == 1


def test_the_digest_on_the_terminal(
    filled: sa.Engine, catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PECULIAR_DATABASE_URL", catalog_url)

    def peculiar(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, ["digest", *arguments])
        assert result.exit_code == code, result.output
        return result.output

    out = peculiar("--night", "2026-03-01")
    assert "Night 2026-03-01: 2 discoveries among 21 objects (q ≤ 0.1)" in out
    assert "22 files, 21 scored, 1 rejected" in out and "0266-51602-0018" in out
    assert "resolves p-values down to 0.005: it takes 1 at" in out
    assert json.loads(peculiar("--json"))["night"] == "2026-03-02"
    assert ElementTree.fromstring(peculiar("--atom")).tag.endswith("feed")
    assert "no run of the night" in peculiar("--night", "1999-01-01", code=1)
    assert "--atom is of the last nights" in peculiar("--atom", "--json", code=2)
    assert "--fdr" in peculiar("--fdr", "0", code=2)
