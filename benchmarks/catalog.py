"""How fast a large catalog on PostgreSQL is written and read.

    tests/services.sh python -m benchmarks.catalog [--rows 1000000] [--calls 200]

Writing: the scores table by ORM ``add_all`` and by ``service.catalog.bulk`` in like rows, then complete batches, on
PostgreSQL and on SQLite. Reading: fastest, p50 and p99 of what the API answers, and the CPU time of this process, from
a catalog of ``--rows`` scores that PostgreSQL makes by itself, positions at random over the sky.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from service.catalog import healpix, schema, vectors
from service.catalog.engine import open_catalog, writing
from service.catalog.nearest import LatentCache, Latents, read_latents
from service.catalog.queries import neighbours
from service.catalog.ranking import Filters, outliers
from service.catalog.registry import register_model
from service.catalog.rows import ModelRow, ScoredRow
from service.catalog.runs import open_run
from service.catalog.writer import SCORES, write_batch

MODEL, N_CLUSTERS, N_LATENT, BATCH = "bench@0123456789ab", 24, 16, 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=200)
    options = parser.parse_args()
    engine, run = new_catalog(fresh_database())
    print("writing, rows per second of wall time")
    compare_scores(engine, run)
    with tempfile.TemporaryDirectory() as folder:
        for other, number in ((engine, run), new_catalog(f"sqlite:///{folder}/catalog.db")):
            whole_batches(other, number)
    engine.dispose()
    engine, run = new_catalog(fresh_database())
    started = time.perf_counter()
    fill(engine, run, options.rows)
    print(f"\n{options.rows} rows made in {time.perf_counter() - started:.0f} s; milliseconds a call, warm")
    read(engine, options.calls)


def fresh_database() -> str:
    """URL of an empty database ``bench`` on the server of PECULIAR_TEST_POSTGRES."""
    server = sa.make_url(os.environ["PECULIAR_TEST_POSTGRES"]).set(drivername="postgresql+psycopg")
    with sa.create_engine(server, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text("DROP DATABASE IF EXISTS bench WITH (FORCE)"))
        connection.execute(sa.text("CREATE DATABASE bench"))
    return server.set(database="bench").render_as_string(hide_password=False)


def new_catalog(url: str) -> tuple[sa.Engine, int]:
    engine = open_catalog(url, create=True)
    register_model(
        engine, ModelRow(MODEL, "bench", "spectrum", "/nowhere", 100, 0.01, [1 / N_CLUSTERS] * N_CLUSTERS)
    )
    return engine, open_run(engine, "bench", "all", "2026-01-01", {"spectrum": MODEL})


def compare_scores(engine: sa.Engine, run: int, n: int = 20_000) -> None:
    """The scores table alone: ORM objects against one upsert of the same rows, each into an empty table."""
    from sqlalchemy import orm

    registry = orm.registry()

    class Score:
        pass

    registry.map_imperatively(Score, schema.scores)
    columns = score_columns(run, n)
    with engine.begin() as connection:
        fill_observations(connection, n)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rates, costs = {}, {}
    for name in ("ORM add_all", "bulk upsert"):
        start, cpu = time.perf_counter(), cpu_seconds(engine)
        if name == "bulk upsert":
            with writing(engine) as connection:
                SCORES.write(connection, columns)
        else:
            with orm.Session(engine) as session:
                scores = []
                for row in rows:
                    score = Score()
                    for key, value in row.items():
                        setattr(score, key, value)
                    scores.append(score)
                session.add_all(scores)
                session.commit()
        rates[name] = n / (time.perf_counter() - start)
        costs[name] = n / (cpu_seconds(engine) - cpu)
        with engine.begin() as connection:
            connection.execute(sa.delete(schema.scores))
    for unit, figures in (("wall time", rates), ("CPU time of client and server", costs)):
        ratio = figures["bulk upsert"] / figures["ORM add_all"]
        listed = "; ".join(f"{name} {figure:.0f}" for name, figure in figures.items())
        print(f"  scores alone, postgresql, a second of {unit}: {listed}; ratio {ratio:.1f}")


def cpu_seconds(engine: sa.Engine) -> float:
    """Of this process and of the server's that the next connection will meet, which runs on this machine."""
    with engine.connect() as connection:
        server = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    nanoseconds = int(Path(f"/proc/{server}/schedstat").read_text().split()[0])
    return time.process_time() + 1e-9 * nanoseconds


def score_columns(run: int, n: int) -> dict[str, list[Any]]:
    values = np.random.default_rng(1).normal(size=n).tolist()
    numbers = ("elbo", "log_px", "log_density", "chi2", "score", "p_value", "cluster_probability", "snr")
    return {
        "observation_id": list(range(1, n + 1)), "model_id": [MODEL] * n, "run_id": [run] * n,
        "scored_at": [datetime.now(UTC)] * n, "q_value": [None] * n, "cluster": [i % N_CLUSTERS for i in range(n)],
        "flags": [""] * n, "parts": [{"density": v, "density_p": 0.5} for v in values], "windows": [[]] * n,
    } | dict.fromkeys(numbers, values)  # fmt: skip


def whole_batches(engine: sa.Engine, run: int, n: int = 20_480) -> None:
    """``write_batch`` as workers call it, BATCH rows a transaction."""
    latent, shares = np.ones(N_LATENT, np.float32), np.full(N_CLUSTERS, 1 / N_CLUSTERS, np.float32)
    rows = [
        ScoredRow(
            kind="spectrum", survey="SDSS", object_id=f"w{i}", path=f"/data/w{i}.fits", sha256=f"{i:064x}",
            ra=i * 0.017 % 360, dec=i * 0.0071 % 90, night="2026-01-01", redshift=0.1, spectral_class="GALAXY",
            zwarning=0, reader_flags=set(), model=MODEL, elbo=-1.0, log_px=-1.0, log_density=-1.0, chi2=1.0,
            score=float(i), p_value=0.5, cluster=i % N_CLUSTERS, cluster_probability=0.8, snr=9.0, flags=set(),
            parts={f"part{k}": 0.1 * k for k in range(10)}, latent=latent, latent_var=latent, responsibilities=shares,
        )
        for i in range(n)
    ]  # fmt: skip
    write_batch(engine, run, rows[:BATCH], [])
    wall, cpu = time.perf_counter(), time.process_time()
    for start in range(0, n, BATCH):
        write_batch(engine, run, rows[start : start + BATCH], [])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"  complete batches, {engine.dialect.name}: {n / wall:.0f}, per CPU-second of this process {n / cpu:.0f}"
    )


def fill_observations(connection: sa.Connection, n: int) -> None:
    """Objects and observations 1 … n, made by the server."""
    connection.execute(
        sa.text(
            "INSERT INTO objects (id, kind, survey, object_id) "
            "SELECT i, 'spectrum', 'SDSS', 'o' || i FROM generate_series(1, :n) i"
        ), {"n": n}
    )  # fmt: skip
    connection.execute(
        sa.text(
            "INSERT INTO observations (id, object_id, path, sha256, kind, night, first_seen, spectral_class, zwarning, "
            "reader_flags, duplicate, superseded) SELECT i, i, '/data/' || i || '.fits', md5(i::text), 'spectrum', "
            "'2026-01-01', now(), 'GALAXY', 0, '', false, false FROM generate_series(1, :n) i"
        ), {"n": n}
    )  # fmt: skip
    for table in ("objects", "observations"):
        # later rows get numbers of their own
        connection.execute(sa.text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), :n)"), {"n": n})


def fill(engine: sa.Engine, run: int, n: int) -> None:
    """A catalog of n objects, each observed and scored once."""
    with engine.begin() as connection:
        fill_observations(connection, n)
        connection.execute(
            sa.text(
                "INSERT INTO scores (observation_id, model_id, run_id, scored_at, elbo, log_px, log_density, chi2, "
                "score, p_value, q_value, cluster, cluster_probability, snr, flags, parts, windows) "
                "SELECT i, :model, :run, "
                "now(), -1, -1, -1, 1, random() * 10, random(), random(), i % :clusters, 0.8, 9, '', "
                "'{\"density\": 0.5, \"density_p\": 0.1}', '[]' FROM generate_series(1, :n) i"
            ), {"n": n, "model": MODEL, "run": run, "clusters": N_CLUSTERS},
        )  # fmt: skip
    rng = np.random.default_rng(2)
    driver = engine.raw_connection()
    size = 100_000
    with driver.cursor() as cursor:
        cursor.execute(
            "CREATE TEMP TABLE place AS SELECT id, ra, dec, x, y, z, healpix29 h FROM objects WITH NO DATA"
        )
        with cursor.copy("COPY place FROM STDIN") as copy:  # type: ignore[attr-defined]  # psycopg's
            for start in range(0, n, size):
                m = min(size, n - start)
                ra, dec = rng.uniform(0, 360, m), np.degrees(np.arcsin(rng.uniform(-1, 1, m)))
                columns = [ra, dec, *healpix.unit_vectors(ra, dec).T, healpix.healpix29(ra, dec)]
                for row in zip(range(start + 1, start + m + 1), *(c.tolist() for c in columns), strict=True):
                    copy.write_row(row)
        cursor.execute(
            "UPDATE objects o SET ra = p.ra, dec = p.dec, x = p.x, y = p.y, z = p.z, healpix29 = p.h FROM place p "
            "WHERE p.id = o.id"
        )
        with cursor.copy("COPY embeddings FROM STDIN (FORMAT BINARY)") as copy:  # type: ignore[attr-defined]  # psycopg's
            copy.set_types(["int8", "text", "bytea", "bytea", "bytea"])
            ones, shares = (
                np.ones(N_LATENT, "<f4").tobytes(),
                np.full(N_CLUSTERS, 1 / N_CLUSTERS, "<f4").tobytes(),
            )
            for i in range(1, n + 1):
                copy.write_row((i, MODEL, rng.standard_normal(N_LATENT, np.float32).tobytes(), ones, shares))
    driver.commit()
    driver.close()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE"))


def read(engine: sa.Engine, calls: int) -> None:
    rng = np.random.default_rng(3)

    def cone() -> healpix.Cone:
        return healpix.Cone(float(rng.uniform(0, 360)), float(rng.uniform(-80, 80)), 0.5)

    page = outliers(engine, Filters(model=MODEL), 100)
    for _ in range(50):
        page = outliers(engine, Filters(model=MODEL), 1000, page.next)
    deep = page.next
    questions: dict[str, Callable[[], Any]] = {
        "100 most anomalous": lambda: outliers(engine, Filters(model=MODEL), 100),
        "cone of 0.5 degrees": lambda: outliers(engine, Filters(model=MODEL, cone=cone()), 100),
        "a cluster's first 100": lambda: outliers(
            engine, Filters(model=MODEL, cluster=int(rng.integers(24))), 100
        ),
        "q-value up to 0.05": lambda: outliers(engine, Filters(model=MODEL, q=0.05), 100),
        "q-value up to 0.0001": lambda: outliers(engine, Filters(model=MODEL, q=1e-4), 100),
        "a page 50,000 rows down": lambda: outliers(engine, Filters(model=MODEL), 100, deep),
    }
    few: dict[str, Callable[[], Any]] = {
        "10 neighbours, uncached": lambda: neighbours(engine, "o5", 10),
    }
    questions |= nearest_latents(engine)
    for name, ask in (questions | few).items():
        ask()
        times = []
        cpu = time.process_time()
        for _ in range(calls if name in questions else 5):
            start = time.perf_counter()
            ask()
            times.append(1e3 * (time.perf_counter() - start))
        cpu = 1e3 * (time.process_time() - cpu) / len(times)
        fastest, p50, p99 = np.percentile(times, [0, 50, 99])
        print(
            f"  {name:26s} fastest {fastest:7.1f}   p50 {p50:7.1f}   p99 {p99:7.1f}   CPU {cpu:7.1f}",
            flush=True,
        )


def nearest_latents(engine: sa.Engine) -> dict[str, Callable[[], Any]]:
    """Neighbours as a service finds them, and the search for latents alone; prints the recall of pgvector's index."""
    rng = np.random.default_rng(4)
    connection = engine.connect()
    latents = Latents.of(*map(np.concatenate, zip(*read_latents(engine, MODEL), strict=True)))
    start = time.perf_counter()
    vectors.prepare(engine)
    cache = LatentCache(engine)

    def latent() -> np.ndarray:
        return rng.standard_normal(N_LATENT, np.float32)

    if vectors.exist(connection):
        print(f"  pgvector's index made in {time.perf_counter() - start:.0f} s")
        found = []
        for _ in range(100):
            asked = latent()
            near = vectors.nearest(MODEL, connection, asked, 10)
            found.append(len(near.keys() & latents.nearest(asked, 10).keys()) / 10)
        print(f"  its recall of the 10 nearest: {np.mean(found):.4f}")
    return {
        "26 nearest, from memory": lambda: latents.nearest(latent(), 26),
        "26 nearest, as configured": lambda: cache.nearest(connection, MODEL, latent(), 26),
        "10 neighbours": lambda: neighbours(engine, f"o{rng.integers(1, 10_000)}", 10, cache=cache),
    }


if __name__ == "__main__":
    main()
