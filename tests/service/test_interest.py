"""A person's ranking: what their labels change, its pages, and what is left as it was."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from fastapi.testclient import TestClient

from service.api import make_api
from service.catalog import schema
from service.catalog.engine import CatalogError
from service.catalog.interest import NEEDED, outliers_for
from service.catalog.labels import Label, record_labels
from service.catalog.ranking import Filters, outliers
from service.catalog.writer import write_batch
from service.cli.outliers import command
from service.settings import Settings

SPECTRA = Filters(kind="spectrum")


@pytest.fixture
def filled(engine: sa.Engine, run: int, models: dict[str, str], make_row: Callable[..., Any]) -> sa.Engine:
    """60 spectra of falling score, of two sorts in turn that lie apart in the latent space, and a cutout."""
    rng = np.random.default_rng(1)
    rows = []
    for i in range(60):
        latent = rng.normal(size=3) / 5 + i % 2
        parts = {"misfit": 1.0, "misfit_p": 0.01, "rarity": 1.0, "rarity_p": 0.01}
        rows.append(make_row(i, score=100.0 - i, latent=latent.astype(np.float32), parts=parts))
    rows.append(make_row(99, kind="cutout", model=models["cutout"], path="/data/cutout.fits"))
    write_batch(engine, run, rows, [])
    return engine


def name(i: int) -> str:
    return f"0266-51602-{i:04d}"


def number(row: dict[str, Any]) -> int:
    return int(row["object_id"][-4:])


def say(engine: sa.Engine, *numbers: int, by: str = "ann", like: int = 1) -> None:
    """Of these spectra, those of the sort ``like`` are interesting and the others artefacts."""
    record_labels(
        engine, [Label(name(i), "interesting" if i % 2 == like else "artefact", by) for i in numbers]
    )


def test_few_labels_leave_the_raw_ranking(filled: sa.Engine) -> None:
    say(filled, *range(NEEDED - 3))
    page = outliers_for(filled, SPECTRA, "ann", 20)
    raw = outliers(filled, SPECTRA, 20)
    assert page.labels_needed == 3
    assert page.rows == [row | {"interest": None} for row in raw.rows]
    rest = outliers_for(filled, SPECTRA, "ann", 100, page.next)
    assert [number(row) for row in page.rows + rest.rows] == list(range(60)) and rest.next is None


def test_ten_labels_change_it_for_their_author_alone(filled: sa.Engine) -> None:
    say(filled, *range(10))
    page = outliers_for(filled, SPECTRA, " ann ", 100)
    assert page.labels_needed == 0 and page.next is None and len(page.rows) == 60
    # every object of the wanted sort comes before all of the other
    assert [number(row) % 2 for row in page.rows] == [1] * 30 + [0] * 30
    values = [row["interest"] for row in page.rows]
    assert values == sorted(values, reverse=True)
    assert outliers_for(filled, SPECTRA, "bob", 5).labels_needed == NEEDED
    assert [number(row) for row in outliers(filled, SPECTRA, 100).rows] == list(range(60))
    say(filled, *range(10), by="bob", like=0)
    assert number(outliers_for(filled, SPECTRA, "bob", 1).rows[0]) % 2 == 0


def test_the_newest_label_counts_and_can_be_withdrawn(filled: sa.Engine) -> None:
    say(filled, *range(10), like=0)
    say(filled, *range(10), like=1)
    assert number(outliers_for(filled, SPECTRA, "ann", 1).rows[0]) % 2 == 1
    record_labels(filled, [Label(name(3), "withdrawn", "ann")])
    assert outliers_for(filled, SPECTRA, "ann", 1).labels_needed == 1


def test_one_sided_labels_rank_too(filled: sa.Engine) -> None:
    record_labels(filled, [Label(name(i), "artefact", "ann") for i in range(0, 20, 2)])
    assert number(outliers_for(filled, SPECTRA, "ann", 1).rows[0]) % 2 == 1


def test_pages_join_although_labels_come_in_between(filled: sa.Engine) -> None:
    say(filled, *range(10))
    whole = [number(row) for row in outliers_for(filled, SPECTRA, "ann", 100).rows]
    page = outliers_for(filled, SPECTRA, "ann", 25)
    seen = [number(row) for row in page.rows]
    say(filled, *range(10, 40), like=0)
    while page.next:
        page = outliers_for(filled, SPECTRA, "ann", 25, page.next)
        seen += [number(row) for row in page.rows]
    assert seen == whole
    assert [number(row) for row in outliers_for(filled, SPECTRA, "ann", 100).rows] != whole


def test_a_list_that_began_raw_goes_on_so(filled: sa.Engine) -> None:
    page = outliers_for(filled, SPECTRA, "ann", 30)
    say(filled, *range(10))
    rest = outliers_for(filled, SPECTRA, "ann", 30, page.next)
    assert [number(row) for row in page.rows + rest.rows] == list(range(60))


def test_filters_choose_what_is_ranked_not_what_is_learnt(filled: sa.Engine) -> None:
    say(filled, *range(10))
    few = outliers_for(filled, Filters(kind="spectrum", cluster=0), "ann", 100)
    assert len(few.rows) == 20 and {row["cluster"] for row in few.rows} == {0}
    assert [number(row) % 2 for row in few.rows] == [1] * 10 + [0] * 10
    nothing = outliers_for(filled, Filters(kind="spectrum", night="1999-01-01"), "ann", 5)
    assert nothing.rows == [] and nothing.next is None


def test_a_superseded_observation_is_not_learnt_from(
    filled: sa.Engine, run: int, make_row: Callable[..., Any]
) -> None:
    say(filled, *range(10))
    new = make_row(
        1, sha256="other", score=99.0, latent=np.zeros(3, np.float32), parts={"misfit_p": math.nan}
    )
    write_batch(filled, run, [new], [])
    assert len(outliers_for(filled, SPECTRA, "ann", 100).rows) == 60


def test_one_model_is_needed(filled: sa.Engine, engine: sa.Engine) -> None:
    with pytest.raises(CatalogError, match="which kind or model"):
        outliers_for(filled, Filters(), "ann", 5)


def test_an_empty_catalog_has_nothing_to_rank(engine: sa.Engine) -> None:
    assert outliers_for(engine, SPECTRA, "ann", 5).rows == []


def test_tokens_that_are_none(filled: sa.Engine) -> None:
    say(filled, *range(10))
    for token in ["for.", "for.x", "for.bnVsbA", "for.WzEsMiwzXQ", "for.é", "x", "FOR.WzEsMS41LDNd"]:
        with pytest.raises(CatalogError, match="first page"):
            outliers_for(filled, SPECTRA, "ann", 5, token)


def test_a_hundred_thousand_labels_on_one_object(filled: sa.Engine) -> None:
    said = [Label(name(0), "artefact" if i % 2 else "interesting", f"p{i % 7}") for i in range(100_000)]
    record_labels(filled, said)
    say(filled, *range(10))
    assert outliers_for(filled, SPECTRA, "ann", 100).labels_needed == 0
    # seven people, one object each
    assert outliers_for(filled, SPECTRA, "p3", 100).labels_needed == NEEDED - 1
    with filled.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.labels)) == 100_010


def test_labels_given_at_once_are_all_kept(filled: sa.Engine) -> None:
    errors: list[Exception] = []

    def give(who: str) -> None:
        try:
            for i in range(20):
                record_labels(filled, [Label(name(0), f"label {i}", who)])
        except Exception as error:
            errors.append(error)

    people = [threading.Thread(target=give, args=(f"p{k}",)) for k in range(8)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert not errors
    with filled.connect() as connection:
        found = connection.execute(
            sa.select(schema.labels.c.by, sa.func.count()).group_by(schema.labels.c.by)
        ).all()
    assert sorted(map(tuple, found)) == [(f"p{k}", 20) for k in range(8)]


@pytest.fixture
def client(filled: sa.Engine, catalog_url: str) -> Iterator[TestClient]:
    settings = Settings(_env_file=None, database_url=catalog_url)
    with TestClient(make_api(settings, keys_required=False), raise_server_exceptions=False) as client:
        yield client


def test_the_api_ranks_for_a_person(filled: sa.Engine, client: TestClient) -> None:
    def get(query: str) -> Any:
        return client.get(f"/outliers?kind=spectrum{query}").json()

    raw = get("&limit=60")
    assert raw["labels_needed"] is None and {row["interest"] for row in raw["items"]} == {None}
    assert get("&limit=60&for=ann") == raw | {"labels_needed": NEEDED}
    for i in range(10):
        label = "interesting" if i % 2 else "artefact"
        said = client.post(f"/objects/{name(i)}/labels", json={"label": label, "by": "ann"})
        assert said.status_code == 201
    page = get("&limit=7&for=ann")
    seen = page["items"]
    assert page["labels_needed"] == 0
    while page["next"]:
        page = get(f"&limit=7&for=ann&page={page['next']}")
        seen += page["items"]
    assert len(seen) == 60 and all(number(row) % 2 for row in seen[:30])
    assert [number(row) for row in get("&limit=60")["items"]] == list(range(60))


@pytest.mark.parametrize(
    "query", ["for=ann", "kind=spectrum&for=ann&page=for.x", "kind=spectrum&for=", "for_=ann"]
)
def test_questions_that_cannot_be_answered(client: TestClient, query: str) -> None:
    response = client.get(f"/outliers?{query}")
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


def test_the_command_ranks_for_a_person(
    filled: sa.Engine, catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PECULIAR_DATABASE_URL", catalog_url)
    arguments = ["--kind", "spectrum", "--for", "ann", "--limit", "60"]
    few = CliRunner().invoke(command, arguments)
    assert few.exit_code == 0 and "until ann has labelled 10 more objects" in few.stderr
    say(filled, *range(10))
    found = CliRunner().invoke(command, [*arguments, "--json"])
    rows = json.loads(found.stdout)
    assert [number(row) % 2 for row in rows] == [1] * 30 + [0] * 30 and rows[0]["interest"] > 0.3
    assert "as ann's labels rank it" in CliRunner().invoke(command, arguments).stdout
