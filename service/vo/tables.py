"""The public tables: what each column is, and the query over the catalog's own tables that stands behind each name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.catalog.columns import ROW, Column, part_columns
from service.catalog.labels import newest_label
from service.catalog.lens import LensFraction, lens_fractions
from service.catalog.ranking import CURRENT, INSTRUMENT, WHOLE
from service.catalog.registry import holders
from service.catalog.schema import (
    clusters,
    drift,
    embeddings,
    labels,
    models,
    objects,
    observations,
    scores,
)  # fmt: skip
from service.catalog.statements import rows_as_json

SCHEMA = "peculiar"
POSITION = ("x", "y", "z")
"""Hidden columns of tables with positions: the unit vector, which makes an angular distance arithmetic."""
KEY = "object_key"
"""Column of tables with positions: the object, by which the HEALPix index finds the rows in a cone."""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
"""Of a column that can be written without quotes."""


@dataclass(frozen=True, slots=True)
class Table:
    """A public table."""

    name: str
    """With its schema"""
    description: str
    columns: tuple[Column, ...]
    select: Callable[[sa.Connection, set[str] | None], sa.Select[Any]]
    """Makes the query behind it for this database; the set names what is wanted of it, None everything."""
    indexed: frozenset[str] = frozenset()
    principal: frozenset[str] = frozenset()
    keys: tuple[tuple[str, str, str], ...] = ()
    """Foreign keys: (column, table, its column)"""
    positions: bool = False
    """Whether it has ra and dec with POSITION and KEY behind them."""


OBJECT = Column(KEY, "int", "number of the object in this catalog", ucd="meta.id")
OBSERVATION = Column("observation_key", "int", "number of the observation in this catalog", ucd="meta.id")
ROW_BY_NAME = {column.name: column for column in ROW}
OBJECT_COLUMNS = (OBJECT, *(ROW_BY_NAME[name] for name in ("object_id", "kind", "survey", "ra", "dec")))


def public_tables(connection: sa.Connection) -> dict[str, Table]:
    """Every public table but those of TAP_SCHEMA, by its name in lower case.

    The score components are columns, so what there is depends on the models in the catalog.
    """
    tables = (_scores(part_names(connection)), OBJECTS, OBSERVATIONS, MODELS, CLUSTERS, LABELS)
    return {table.name.lower(): table for table in tables}


def part_names(connection: sa.Connection) -> list[str]:
    """The score components that the models of this catalog write, as one row of each has them."""
    one = (
        sa.select(scores.c.parts).where(scores.c.model_id == models.c.id).limit(1).scalar_subquery()
    )  # a subquery for each model, answered by the ranking's index
    found = connection.execute(sa.select(sa.type_coerce(one, scores.c.parts.type)).select_from(models))
    names = {name for (parts,) in found if parts for name in parts}
    return sorted(name for name in names if NAME.fullmatch(name))


def _scores(parts: list[str]) -> Table:
    def select(connection: sa.Connection, wanted: set[str] | None) -> sa.Select[Any]:
        """As `service.catalog.ranking.select_rows` and `finish_rows`, but whole in SQL."""
        direct = [scores.c[c.name] for c in ROW if c.name in scores.c and c.name != "flags"]
        fractions: dict[str, dict[int, LensFraction]] = {}
        if wanted is None or "lens_fraction" in wanted:
            fractions = lens_fractions(connection, list(connection.scalars(sa.select(models.c.id))))
        return (
            sa.select(
                objects.c.id.label(KEY),
                observations.c.id.label("observation_key"),
                *(objects.c[name] for name in ("object_id", "kind", "survey", "ra", "dec", *POSITION)),
                observations.c.path,
                scores.c.model_id.label("model"),
                *direct,
                expected_lens_fraction(connection.dialect.name, fractions).label("lens_fraction"),
                _flags().label("flags"),
                *(
                    scores.c.parts[name].as_float().label(column.name)
                    for name, column in zip(parts, part_columns(parts), strict=True)
                ),
            )
            .select_from(WHOLE)
            .where(CURRENT)
        )

    return Table(
        f"{SCHEMA}.scores",
        "Every current observation as each model scored it; the larger the score, the more anomalous.",
        (OBJECT, OBSERVATION, *ROW, *part_columns(parts)),
        select,
        indexed=frozenset({KEY, "object_id", "ra", "dec", "model", "score", "cluster"}),
        principal=frozenset({"object_id", "kind", "ra", "dec", "model", "score", "p_value", "q_value"}),
        keys=(
            (KEY, f"{SCHEMA}.objects", KEY),
            ("observation_key", f"{SCHEMA}.observations", "observation_key"),
            ("model", f"{SCHEMA}.models", "model"),
        ),
        positions=True,
    )


def _flags() -> sa.ColumnElement[str]:
    """Remarks of the scorer and the reader, and what the catalog knows, comma-joined without gaps."""
    none = sa.literal("", sa.Text)
    every = (
        scores.c.flags
        + sa.case((observations.c.reader_flags != "", "," + observations.c.reader_flags), else_=none)
        + sa.case((observations.c.duplicate, ",duplicate"), else_=none)
        + sa.case((sa.func.coalesce(drift.c.problem, "") != "", f",{INSTRUMENT}"), else_=none)
    )
    return sa.func.ltrim(every, ",", type_=sa.Text)


def expected_lens_fraction(
    dialect: str, fractions: dict[str, dict[int, LensFraction]]
) -> sa.ColumnElement[float]:
    """`service.catalog.lens.expected_lens_fractions` in SQL: Σ_k r_k f_k / Σ_k r_k over the labelled clusters.

    The responsibilities r are read out of their float32 bytes.
    """
    cases = []
    for model_id, known in fractions.items():
        if not known:
            continue
        terms = [(_responsibility(dialect, k), f.mean) for k, f in known.items()]
        weight = sum((r for r, _ in terms), start=sa.literal(0.0, sa.Double))
        total = sum((r * sa.literal(f, sa.Double) for r, f in terms), start=sa.literal(0.0, sa.Double))
        mine = sa.and_(scores.c.model_id == model_id, scores.c.cluster.in_(list(known)))
        cases.append((mine, total / sa.func.nullif(weight, 0.0)))
    return sa.case(*cases, else_=sa.null()) if cases else sa.cast(sa.null(), sa.Double)


def _responsibility(dialect: str, k: int) -> sa.ColumnElement[float]:
    """The k-th little-endian float32 of the responsibilities, 0 beyond their end; they lie in [0, 1].

    PostgreSQL has its bytes put together, (2²³ + mantissa) · 2^(exponent − 150); SQLite asks a function of
    `execute.py`.
    """
    data = embeddings.c.responsibilities
    if dialect == "sqlite":
        return sa.func.float32_at(data, k, type_=sa.Double)

    def byte(i: int) -> sa.ColumnElement[int]:
        return sa.func.get_byte(data, 4 * k + i, type_=sa.BigInteger)

    mantissa = byte(0) + byte(1) * 256 + (byte(2) % 128) * 65536 + 8388608
    exponent = (byte(3) % 128) * 2 + byte(2) // 128
    power = sa.func.power(sa.literal(2.0, sa.Double), sa.cast(exponent - 150, sa.Double), type_=sa.Double)
    there = sa.and_(sa.func.length(data) >= 4 * k + 4, exponent > 0)
    return sa.case((there, sa.cast(mantissa, sa.Double) * power), else_=sa.literal(0.0, sa.Double))


def _objects(connection: sa.Connection, wanted: set[str] | None) -> sa.Select[Any]:
    named = (objects.c[name] for name in ("object_id", "kind", "survey", "ra", "dec", *POSITION))
    return sa.select(objects.c.id.label(KEY), *named)


OBJECTS = Table(
    f"{SCHEMA}.objects",
    "Every object, whether scored or not.",
    OBJECT_COLUMNS,
    _objects,
    indexed=frozenset({KEY, "object_id", "ra", "dec"}),
    principal=frozenset({"object_id", "kind", "ra", "dec"}),
    positions=True,
)


def _observations(connection: sa.Connection, wanted: set[str] | None) -> sa.Select[Any]:
    names = ("path", "sha256", "night", "first_seen", "redshift", "spectral_class", "zwarning")
    named = (objects.c[name] for name in ("object_id", "kind", "survey", "ra", "dec", *POSITION))
    return sa.select(
        observations.c.id.label("observation_key"),
        objects.c.id.label(KEY),
        *named,
        *(observations.c[name] for name in names),
        observations.c.reader_flags.label("flags"),
        *(sa.cast(observations.c[name], sa.Integer).label(name) for name in ("duplicate", "superseded")),
    ).join(objects, objects.c.id == observations.c.object_id)


OBSERVATIONS = Table(
    f"{SCHEMA}.observations",
    "Every file in which an object was seen.",
    (
        OBSERVATION,
        *OBJECT_COLUMNS,
        ROW_BY_NAME["path"],
        Column("sha256", "text", "SHA-256 of the file's bytes", ucd="meta.checksum"),
        Column("night", "text", "YYYY-MM-DD, of the first scoring", ucd="time.epoch;obs"),
        Column("first_seen", "time", "when it was read first, UTC", ucd="time.processing"),
        Column("redshift", "float", "as the survey's pipeline has it", ucd="src.redshift"),
        Column("spectral_class", "text", "as the survey's pipeline has it", ucd="src.class"),
        Column("zwarning", "int", "warning bits of the survey's redshift", ucd="meta.code.qual"),
        Column("flags", "text", "remarks of the reader, comma-joined", ucd="meta.code.qual"),
        Column("duplicate", "int", "1 where equal bytes lie under another path", ucd="meta.code"),
        Column("superseded", "int", "1 where the file has other bytes by now", ucd="meta.code"),
    ),
    _observations,
    indexed=frozenset({"observation_key", KEY, "object_id", "path", "night", "ra", "dec"}),
    principal=frozenset({"object_id", "path", "night", "redshift"}),
    keys=((KEY, f"{SCHEMA}.objects", KEY),),
    positions=True,
)


def _models(connection: sa.Connection, wanted: set[str] | None) -> sa.Select[Any]:
    named = (models.c[name] for name in ("name", "kind", "created_at", "n_training", "smallest_p"))
    holding = models.c.id.in_(list(holders(connection).values()))
    return sa.select(models.c.id.label("model"), *named, sa.case((holding, 1), else_=0).label("in_force"))


MODELS = Table(
    f"{SCHEMA}.models",
    "Every trained model.",
    (
        Column("model", "text", "name@version", ucd="meta.id;meta.main"),
        Column("name", "text", "its name without the version", ucd="meta.title"),
        Column("kind", "text", "spectrum or cutout", ucd="meta.code.class"),
        Column("created_at", "time", "when it was registered, UTC", ucd="time.creation"),
        Column("n_training", "int", "objects that it was trained on", ucd="meta.number"),
        Column("smallest_p", "float", "the smallest p-value that its calibration resolves", ucd="stat.probability"),
        Column("in_force", "int", "1 where it scores what comes in now", ucd="meta.code"),
    ),
    _models,
    indexed=frozenset({"model"}),
    principal=frozenset({"model", "kind", "in_force"}),
)  # fmt: skip


def _clusters(connection: sa.Connection, wanted: set[str] | None) -> sa.Select[Any]:
    fractions = lens_fractions(connection, list(connection.scalars(sa.select(models.c.id))))
    known: list[tuple[str | int | None, ...]] = [
        (model_id, k, f.n_labelled, f.n_lens, repr(f.mean), *map(repr, f.interval))
        for model_id, mine in fractions.items()
        for k, f in mine.items()
    ]
    lens = rows_as_json(connection, known or [(None,) * 7])
    n = (
        sa.select(sa.func.count())
        .select_from(scores.join(observations, observations.c.id == scores.c.observation_id))
        .where(
            scores.c.model_id == clusters.c.model_id,
            scores.c.cluster == clusters.c.cluster,
            observations.c.superseded.is_(False),
        )
        .correlate(clusters)
        .scalar_subquery()
    )
    numbers = {2: "n_labelled", 3: "n_lens"}
    values = {4: "lens_fraction", 5: "lens_fraction_low", 6: "lens_fraction_high"}
    return sa.select(
        clusters.c.model_id.label("model"),
        clusters.c.cluster,
        clusters.c.weight,
        n.label("n_members"),
        *(
            sa.func.coalesce(sa.cast(lens.c[f"c{i}"], sa.BigInteger), 0).label(name)
            for i, name in numbers.items()
        ),
        *(sa.cast(lens.c[f"c{i}"], sa.Double).label(name) for i, name in values.items()),
    ).outerjoin(
        lens,
        sa.and_(lens.c.c0 == clusters.c.model_id, sa.cast(lens.c.c1, sa.BigInteger) == clusters.c.cluster),
    )


CLUSTERS = Table(
    f"{SCHEMA}.clusters",
    "The clusters of each model's latent space, with what labels say of them.",
    (
        Column("model", "text", "the model whose latent space it is", ucd="meta.id"),
        Column("cluster", "int", "its number", ucd="meta.id"),
        Column("weight", "float", "share of the training set", ucd="stat.weight"),
        Column("n_members", "int", "current observations in it", ucd="meta.number"),
        Column("n_labelled", "int", "members that labels say are lenses or not", ucd="meta.number"),
        Column("n_lens", "int", "lenses among these", ucd="meta.number"),
        Column("lens_fraction", "float", "posterior mean, empty without labels", ucd="stat.probability"),
        Column("lens_fraction_low", "float", "2.5 % point", ucd="stat.probability;stat.min"),
        Column("lens_fraction_high", "float", "97.5 % point", ucd="stat.probability;stat.max"),
    ),
    _clusters,
    indexed=frozenset({"model", "cluster"}),
    principal=frozenset({"model", "cluster", "weight", "lens_fraction"}),
    keys=(("model", f"{SCHEMA}.models", "model"),),
)


def _labels(connection: sa.Connection, wanted: set[str] | None) -> sa.Select[Any]:
    return sa.select(
        objects.c.id.label(KEY),
        *(objects.c[name] for name in ("object_id", "kind", "survey")),
        labels.c.label,
        labels.c.by.label("author"),
        labels.c.created_at.label("said_at"),
        sa.case((newest_label(), 1), else_=0).label("newest"),
    ).join(objects, objects.c.id == labels.c.object_id)


LABELS = Table(
    f"{SCHEMA}.labels",
    "What people said about objects, with its whole history.",
    (
        *(column for column in OBJECT_COLUMNS if column.name not in ("ra", "dec")),
        Column("label", "text", "lens, not-lens, interesting, artefact, or another word", ucd="meta.code.class"),
        Column("author", "text", "who says so", ucd="meta.id;obs.observer"),
        Column("said_at", "time", "when, UTC", ucd="time.creation"),
        Column("newest", "int", "1 for the newest of its author on its object, which counts", ucd="meta.code"),
    ),
    _labels,
    indexed=frozenset({KEY, "object_id"}),
    principal=frozenset({"object_id", "label", "author", "said_at"}),
    keys=((KEY, f"{SCHEMA}.objects", KEY),),
)  # fmt: skip
