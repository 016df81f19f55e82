"""One object, neighbours, clusters and lens fractions, runs, figures of the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from scipy.stats import beta

from service.catalog.engine import CatalogError, NotFoundError
from service.catalog.labels import Label, record_labels
from service.catalog.queries import (
    AmbiguousError,
    list_clusters,
    list_runs,
    neighbours,
    one_object,
    one_run,
    status,
)  # fmt: skip
from service.catalog.ranking import Filters, outliers
from service.catalog.rows import RejectedRow
from service.catalog.runs import add_inputs, finish_if_complete, open_run
from service.catalog.writer import write_batch


@pytest.fixture
def filled(engine: sa.Engine, run: int, make_row: Callable[..., Any]) -> sa.Engine:
    write_batch(engine, run, [make_row(i) for i in range(12)], [RejectedRow("/data/bad.fits", "truncated")])
    finish_if_complete(engine, run)
    return engine


def name(i: int) -> str:
    return f"0266-51602-{i:04d}"


def label(engine: sa.Engine, i: int, text: str, by: str = "ann") -> None:
    record_labels(engine, [Label(name(i), text, by)])


def test_one_object(filled: sa.Engine) -> None:
    label(filled, 3, "interesting")
    label(filled, 3, "lens")
    found = one_object(filled, name(3))
    assert (found["object_id"], found["kind"], found["ra"]) == (name(3), "spectrum", 13.0)
    assert [row["path"] for row in found["observations"]] == ["/data/spec-0266-51602-0003.fits"]
    assert [row["score"] for row in found["scores"]] == [3.0]
    assert [row["label"] for row in found["labels"]] == ["interesting", "lens"]


def test_objects_that_are_not_there_or_several(
    filled: sa.Engine, run: int, models: dict[str, str], make_row: Callable[..., Any]
) -> None:
    with pytest.raises(NotFoundError, match="no object 'nope'"):
        one_object(filled, "nope")
    write_batch(
        filled, run, [make_row(1, kind="cutout", survey="hsc", model=models["cutout"], path="/c")], []
    )
    with pytest.raises(AmbiguousError) as error:
        one_object(filled, name(1))
    assert error.value.choices == [("spectrum", "sdss"), ("cutout", "hsc")]
    assert one_object(filled, name(1), kind="cutout")["survey"] == "hsc"
    assert one_object(filled, name(1), survey="sdss")["kind"] == "spectrum"


def test_neighbours_are_the_nearest_in_order(
    engine: sa.Engine, run: int, make_row: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.catalog.nearest.ROWS_AT_ONCE", 7)
    latents = np.random.default_rng(3).normal(size=(40, 5)).astype(np.float32)
    write_batch(engine, run, [make_row(i, latent=latents[i]) for i in range(40)], [])
    distance = np.linalg.norm(latents.astype(float) - latents[4], axis=1)
    nearest = np.argsort(distance)[1:6]
    found = neighbours(engine, name(4), 5)
    assert [row["object_id"] for row in found] == [name(i) for i in nearest]
    np.testing.assert_allclose([row["distance"] for row in found], distance[nearest], rtol=1e-6)
    assert len(neighbours(engine, name(4), 100)) == 39


def test_neighbours_that_cannot_be(filled: sa.Engine, models: dict[str, str]) -> None:
    with pytest.raises(NotFoundError, match="of kind cutout"):
        neighbours(filled, name(1), 3, models["cutout"])
    with pytest.raises(NotFoundError, match="no object"):
        neighbours(filled, "nope", 3)


def test_lens_fractions_follow_the_labels(filled: sa.Engine) -> None:
    before = {row["cluster"]: row for row in list_clusters(filled)}
    assert [row["weight"] for row in list_clusters(filled)] == [0.5, 0.3, 0.2]
    assert all(row["lens_fraction"] is None and row["size"] == 4 for row in before.values())
    for i, text in [(0, "lens"), (3, "lens"), (6, "artefact"), (9, "interesting"), (1, "not-lens")]:
        label(filled, i, text)
    label(filled, 3, "not-lens")  # the same person thinks again
    label(filled, 3, "lens", by="bob")  # another disagrees
    after = {row["cluster"]: row for row in list_clusters(filled)}
    assert (after[0]["n_labelled"], after[0]["n_lens"]) == (4, 2)
    assert after[0]["lens_fraction"] == pytest.approx(2.5 / 5)
    low, high = beta(2.5, 2.5).ppf([0.025, 0.975])
    assert after[0]["lens_fraction_low"] == pytest.approx(low)
    assert after[0]["lens_fraction_high"] == pytest.approx(high)
    assert after[1]["lens_fraction"] == pytest.approx(0.5 / 2)
    assert after[2]["lens_fraction"] is None


def test_expected_lens_fractions_of_objects(filled: sa.Engine) -> None:
    label(filled, 0, "lens")
    label(filled, 1, "not-lens")
    rows = {row["object_id"]: row["lens_fraction"] for row in outliers(filled, Filters(), 100).rows}
    # Responsibilities .8 for the own cluster, .2 for the next; fractions .75 in cluster 0, .25 in 1.
    assert rows[name(0)] == pytest.approx(0.8 * 0.75 + 0.2 * 0.25)
    assert rows[name(1)] == pytest.approx(0.25)
    assert rows[name(2)] is None


def test_runs_and_figures_of_the_whole(filled: sa.Engine, run: int, models: dict[str, str]) -> None:
    live = open_run(filled, "score/2", "", "2026-03-02", models)
    add_inputs(filled, live, [("/data/new.fits", 1, 1)])
    listed = list_runs(filled)
    assert [row["id"] for row in listed] == [live, run]
    assert [(row["found"], row["queued"], row["scored"], row["failed"]) for row in listed] == [
        (1, 1, 0, 0),
        (13, 0, 12, 1),
    ]
    assert [row["id"] for row in list_runs(filled, before=live)] == [run]
    assert one_run(filled, run)["reasons"] == {"truncated": 1}
    with pytest.raises(NotFoundError):
        one_run(filled, 999)
    figures = status(filled)
    assert (figures["objects"], figures["scores"], figures["failures"]) == (12, 12, {"truncated": 1})
    assert len(figures["runs"]) == 2


def test_an_empty_catalog(engine: sa.Engine) -> None:
    assert list_clusters(engine) == [] and list_runs(engine) == []
    assert status(engine) == {"objects": 0, "scores": 0, "failures": {}, "runs": []}
    with pytest.raises(CatalogError):
        list_clusters(engine, "nope")
