"""Latents in an index of approximate nearest neighbours: PostgreSQL's pgvector, where that extension is installed.

The index (HNSW; Malkov & Yashunin 2020, IEEE TPAMI 42, 824) is made by ``peculiar db upgrade`` beside the catalog's own
tables, holds nothing that is not in ``embeddings``, and may be dropped at any time. Rows come into it from whoever asks
for neighbours, not from the workers: an insertion takes a millisecond, a hundred times what writing the row takes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from service.catalog.engine import writing
from service.catalog.schema import embeddings

TABLE = sa.table("latent_vectors", sa.column("observation_id"), sa.column("model_id"), sa.column("latent"))
EFFORT = 100
"""Of a search, pgvector's hnsw.ef_search: how many candidates it follows."""
ROWS_AT_ONCE = 20_000
MEMORY = "1GB"
"""For making an index, at most; one that does not fit, of more than a million latents, is made several times slower."""


def prepare(engine: sa.Engine) -> str | None:
    """Make table and indices where the database can have them, and bring them up to date; a remark for the operator.

    None where the extension is not installed or all is well.
    """
    if engine.dialect.name != "postgresql":
        return None
    with engine.connect() as connection:
        known = connection.scalar(sa.text("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"))
    if not known:
        return None
    try:
        with writing(engine) as connection:
            connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS vector"))
    except DBAPIError:
        return (
            "pgvector is installed, but this account may not enable it: have an administrator run "
            "CREATE EXTENSION vector in this database, then `peculiar db upgrade` again"
        )
    with writing(engine) as connection:
        connection.execute(
            sa.text(
                "CREATE TABLE IF NOT EXISTS latent_vectors (model_id text NOT NULL, observation_id bigint NOT NULL, "
                "latent vector NOT NULL, PRIMARY KEY (model_id, observation_id))"
            )
        )
        models = list(connection.scalars(sa.select(embeddings.c.model_id).distinct()))
    for model_id in models:
        refresh(engine, model_id)
    return None


def exist(connection: sa.Connection) -> bool:
    """Whether ``prepare`` has made the table."""
    if connection.dialect.name != "postgresql":
        return False
    return connection.scalar(sa.text("SELECT to_regclass('latent_vectors')")) is not None


def refresh(engine: sa.Engine, model_id: str) -> int:
    """Add the latents of a model that are not there yet; how many. Its index is made when the first have come."""
    e = embeddings.c
    there = sa.exists().where(TABLE.c.model_id == model_id, TABLE.c.observation_id == e.observation_id)
    wanted = sa.select(e.observation_id, e.latent).where(e.model_id == model_id, ~there)
    n = 0
    with engine.connect() as reading:
        result = reading.execute(wanted, execution_options={"yield_per": ROWS_AT_ONCE})
        for part in result.partitions():
            n += len(part)
            with writing(engine) as connection:
                _copy(connection, model_id, part)
    with engine.connect() as connection:
        latent = connection.scalar(sa.select(e.latent).where(e.model_id == model_id).limit(1))
    if latent is not None:
        _index(engine, model_id, len(latent) // 4)
    return n


def nearest(model_id: str, connection: sa.Connection, latent: np.ndarray, k: int) -> dict[int, float]:
    """Distance by observation id of about the ``k`` nearest: the index may miss some (docs/performance.md)."""
    v = TABLE.c
    asked = "[" + ",".join(map(repr, latent.astype(float).tolist())) + "]"
    # The index is one of a model's alone, so the planner has to read which: no parameter there.
    mine = v.model_id == sa.bindparam("model", model_id, literal_execute=True)
    distance = sa.literal_column(f"latent::vector({len(latent)})").op("<->")(
        sa.text("CAST(:asked AS vector)")
    )
    wanted = sa.select(v.observation_id, sa.cast(v.latent, sa.Text)).where(mine).order_by(distance).limit(k)
    connection.execute(sa.text(f"SET hnsw.ef_search = {min(max(EFFORT, 2 * k), 1000)}"))
    found: Sequence[Any] = connection.execute(wanted, {"asked": asked}).all()
    there = np.array([text.strip("[]").split(",") for _, text in found], dtype=np.float32)
    apart = np.sqrt(np.square(there.reshape(len(found), -1).astype(float) - latent).sum(axis=1))
    pairs = zip((id_ for id_, _ in found), apart.tolist(), strict=True)
    return dict(sorted(pairs, key=lambda pair: (pair[1], pair[0])))


def _copy(connection: sa.Connection, model_id: str, rows: Iterable[Any]) -> None:
    """Rows by COPY; those that another process has added meanwhile stay as they are."""
    connection.execute(sa.text("CREATE TEMP TABLE new_vectors (LIKE latent_vectors) ON COMMIT DROP"))
    raw: Any = connection.connection.dbapi_connection
    with raw.cursor() as cursor, cursor.copy("COPY new_vectors FROM STDIN (FORMAT BINARY)") as copy:
        model = model_id.encode()
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for observation_id, latent in rows:
            values = np.frombuffer(latent, "<f4").astype(">f4").tobytes()
            vector = struct.pack(">HH", len(values) // 4, 0) + values
            fields = (model, struct.pack(">q", observation_id), vector)
            copy.write(struct.pack(">H", 3) + b"".join(struct.pack(">i", len(f)) + f for f in fields))
        copy.write(struct.pack(">h", -1))
    connection.execute(
        sa.text(
            "INSERT INTO latent_vectors SELECT * FROM new_vectors ORDER BY observation_id ON CONFLICT DO NOTHING"
        )
    )


def _index(engine: sa.Engine, model_id: str, n_dimensions: int) -> None:
    name = "ix_latent_vectors_" + hashlib.sha256(model_id.encode()).hexdigest()[:12]
    quoted = str(sa.literal(model_id).compile(engine, compile_kwargs={"literal_binds": True}))
    with writing(engine) as connection:
        if connection.scalar(sa.text("SELECT to_regclass(:name)"), {"name": name}) is not None:
            return
        connection.execute(sa.text(f"SET LOCAL maintenance_work_mem = '{MEMORY}'"))
        # Several processes would share that memory through /dev/shm, of which a container has 64 MB.
        connection.execute(sa.text("SET LOCAL max_parallel_maintenance_workers = 0"))
        connection.exec_driver_sql(
            f"CREATE INDEX IF NOT EXISTS {name} ON latent_vectors USING hnsw "
            f"((latent::vector({n_dimensions})) vector_l2_ops) WHERE model_id = {quoted}"
        )
