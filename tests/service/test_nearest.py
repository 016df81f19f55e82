"""Nearest latents: the same answers from memory, from the database and, where it is there, from pgvector's index."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from service.catalog import nearest as module
from service.catalog import vectors
from service.catalog.engine import make_engine, open_catalog
from service.catalog.figures import add_seconds
from service.catalog.nearest import LatentCache, Latents, scan
from service.catalog.queries import neighbours, neighbours_of
from service.catalog.registry import register_model
from service.catalog.rows import ModelRow
from service.catalog.runs import open_run
from service.catalog.writer import write_batch

MODEL = "sdss@0123456789ab"


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3000), st.integers(1, 24), st.integers(1, 40), st.integers(0, 99),
    st.sampled_from([1e-3, 1.0, 1e4]), st.sampled_from([0.0, 1.0, 1e3]),
)  # fmt: skip
def test_what_memory_says_is_exact(n: int, width: int, k: int, seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    values = (shift + scale * rng.standard_normal((n, width))).astype(np.float32)
    values[rng.integers(0, n, n // 10)] = values[0]  # some of them equal
    latent = values[n // 2] if seed % 2 else (shift + scale * rng.standard_normal(width)).astype(np.float32)
    ids = rng.permutation(10 * n)[:n]
    found = Latents.of(ids, values).nearest(latent, k)
    distance = np.sqrt(np.square(values.astype(float) - latent).sum(axis=1))
    order = np.lexsort((ids, distance))[:k]
    assert list(found) == ids[order].tolist()
    np.testing.assert_array_equal(list(found.values()), distance[order])


@pytest.fixture
def latents() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(60, 5)).astype(np.float32)


@pytest.fixture
def filled(engine: sa.Engine, run: int, make_row: Callable[..., Any], latents: np.ndarray) -> sa.Engine:
    write_batch(engine, run, [make_row(i, latent=latents[i]) for i in range(60)], [])
    return engine


class Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


class AtOnce:
    """A thread that does its work when it is started."""

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...], daemon: bool) -> None:
        self.start = lambda: target(*args)


def test_a_cache_answers_as_the_database_does(filled: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    kept, small = LatentCache(filled, few=10), LatentCache(filled)
    for i in (4, 17):
        plain = neighbours(filled, f"0266-51602-{i:04d}", 8)
        assert neighbours(filled, f"0266-51602-{i:04d}", 8, cache=kept) == plain
        assert neighbours(filled, f"0266-51602-{i:04d}", 8, cache=small) == plain
    assert kept._kept and not small._kept


def test_a_cache_learns_what_was_written(
    filled: sa.Engine,
    run: int,
    make_row: Callable[..., Any],
    latents: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.threading, "Thread", AtOnce)
    clock = Clock()
    cache = LatentCache(filled, clock, few=10)

    def first() -> str:
        return str(neighbours_of(filled, MODEL, np.full(5, 9, np.float32), 1, cache)[0]["object_id"])

    add_seconds(filled, run, {"write": 1.0})
    old = first()
    write_batch(filled, run, [make_row(99, latent=np.full(5, 9, np.float32))], [])
    add_seconds(filled, run, {"write": 1.0})
    assert first() == old, "it is kept for a while"
    clock.time = 61
    first()
    assert first() == "0266-51602-0099"
    reads = []
    monkeypatch.setattr(module, "read_latents", lambda *args: reads.append(args))
    clock.time = 130
    assert first() == "0266-51602-0099" and reads == [], "nothing was written since"


def test_observations_that_are_not_current_are_left_out(
    filled: sa.Engine, run: int, make_row: Callable[..., Any], latents: np.ndarray
) -> None:
    """Thirty times the file of object 5 changed, more often than the margin; all its latents lie at the very place."""
    for i in range(30):
        write_batch(filled, run, [make_row(5, sha256=f"{i}", latent=latents[5])], [])
    cache = LatentCache(filled, few=10)
    for one in (None, cache):
        near = neighbours_of(filled, MODEL, latents[5], 3, one)
        assert [row["object_id"] for row in near].count("0266-51602-0005") == 1 and len(near) == 3
        assert len(neighbours(filled, "0266-51602-0005", 100, cache=one)) == 59
        assert "0266-51602-0005" not in {
            row["object_id"] for row in neighbours(filled, "0266-51602-0005", 5, cache=one)
        }


@pytest.fixture
def pgvector() -> Iterator[sa.Engine]:
    """An empty catalog in a PostgreSQL that has pgvector: PECULIAR_TEST_PGVECTOR names one, else the usual server."""
    server = os.environ.get("PECULIAR_TEST_PGVECTOR") or os.environ.get("PECULIAR_TEST_POSTGRES")
    if not server:
        pytest.skip("no PostgreSQL is named")
    admin = sa.create_engine(
        sa.make_url(server).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    name = f"peculiar_{uuid.uuid4().hex[:12]}"
    with admin.connect() as connection:
        if not connection.scalar(sa.text("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")):
            pytest.skip("this PostgreSQL has no pgvector: PECULIAR_TEST_PGVECTOR may name one that has")
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    url = admin.url.set(database=name).render_as_string(hide_password=False)
    open_catalog(url, create=True).dispose()
    engine = make_engine(url)
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(sa.text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    admin.dispose()


def test_pgvector_gives_the_same_answers(pgvector: sa.Engine, make_row: Callable[..., Any]) -> None:
    engine = pgvector
    names = [MODEL, "it's@00000000000%"]
    for model in names:
        register_model(engine, ModelRow(model, model[:4], "spectrum", "/m", 1, 0.1, [1.0]))
    run = open_run(engine, "k", "sdss", "2026-03-01", {"spectrum": MODEL})
    values = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)
    write_batch(engine, run, [make_row(i, latent=values[i]) for i in range(400)], [])
    write_batch(engine, run, [make_row(i, latent=values[i, :3], model=names[1]) for i in range(50)], [])
    assert vectors.prepare(engine) is None
    cache = LatentCache(engine, few=10)
    with engine.connect() as connection:
        for _ in range(8):  # as often as makes the driver prepare its statements
            found = cache.nearest(connection, MODEL, values[450], 10)
            assert found == scan(connection, MODEL, values[450], 10)
            few = cache.nearest(connection, names[1], values[7, :3], 5)
            assert few == scan(connection, names[1], values[7, :3], 5)
        assert cache._kept[MODEL].source.func is vectors.nearest  # type: ignore[attr-defined]  # a partial
        # As in a large table, where sorting is dear.
        connection.execute(sa.text("SET LOCAL enable_sort = off"))
        plan = "\n".join(
            connection.scalars(
                sa.text(
                    "EXPLAIN SELECT observation_id FROM latent_vectors WHERE model_id = 'sdss@0123456789ab' "
                    "ORDER BY latent::vector(6) <-> '[1,2,3,4,5,6]' LIMIT 5"
                )
            )
        )
    assert "ix_latent_vectors_" in plan
    write_batch(engine, run, [make_row(i, latent=values[i]) for i in range(400, 500)], [])
    assert [vectors.refresh(engine, MODEL), vectors.refresh(engine, MODEL)] == [100, 0]
    assert neighbours(engine, "0266-51602-0450", 5, MODEL, cache=cache) == neighbours(
        engine, "0266-51602-0450", 5, MODEL
    )
    assert vectors.prepare(engine) is None, "a second time changes nothing"


def test_a_database_without_pgvector_goes_without(filled: sa.Engine) -> None:
    with filled.connect() as connection:
        if connection.dialect.name == "postgresql" and connection.scalar(
            sa.text("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")
        ):
            pytest.skip("it has")
        assert vectors.prepare(filled) is None and not vectors.exist(connection)
