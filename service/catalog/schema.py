"""The tables of the catalog, the same for SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator


def clean(text: str) -> str:
    """Text without what a database refuses.

    File names and FITS headers may hold NULs, which are dropped, and bytes that are not UTF-8, which Python
    marks with lone surrogates and this writes as ``\\udcXX``.
    """
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "").encode("utf-8", "backslashreplace").decode("utf-8")


def clean_or_none(text: str | None) -> str | None:
    return None if text is None else clean(text)


class CleanText(TypeDecorator[str]):
    """Text that any database takes.

    Values to compare with are cleaned alike.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return clean_or_none(value)


class UTCDateTime(TypeDecorator[datetime]):
    """An instant, always with UTC as its zone on the Python side (SQLite has no zones)."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite numbers rows by itself only where the key is called INTEGER.
BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Json = sa.JSON().with_variant(JSONB(), "postgresql")

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

objects = sa.Table(
    "objects",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("kind", CleanText, nullable=False),
    sa.Column("survey", CleanText, nullable=False),
    sa.Column("object_id", CleanText, nullable=False, comment="the survey's own identity"),
    sa.Column("ra", sa.Double, comment="ICRS, degrees"),
    sa.Column("dec", sa.Double, comment="ICRS, degrees"),
    # The unit vector of the position makes an exact angular distance plain arithmetic in any SQL.
    sa.Column("x", sa.Double),
    sa.Column("y", sa.Double),
    sa.Column("z", sa.Double),
    sa.Column("healpix29", sa.BigInteger, index=True, comment="nested HEALPix of order 29"),
    sa.UniqueConstraint("kind", "survey", "object_id"),
    sa.Index(None, "object_id"),
)

observations = sa.Table(
    "observations",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("object_id", BigId, sa.ForeignKey("objects.id"), nullable=False, index=True),
    sa.Column("path", CleanText, nullable=False),
    sa.Column("sha256", CleanText, nullable=False, index=True),
    sa.Column("kind", CleanText, nullable=False),
    sa.Column("night", CleanText, nullable=False, index=True, comment="YYYY-MM-DD, of the first scoring"),
    sa.Column("first_seen", UTCDateTime, nullable=False),
    sa.Column("redshift", sa.Double),
    sa.Column("spectral_class", CleanText, nullable=False),
    sa.Column("zwarning", sa.BigInteger, nullable=False),
    sa.Column("reader_flags", CleanText, nullable=False, comment="comma-joined, sorted"),
    sa.Column("duplicate", sa.Boolean, nullable=False, comment="equal bytes lie under another path"),
    sa.Column("superseded", sa.Boolean, nullable=False, comment="the file has other bytes by now"),
    sa.UniqueConstraint("path", "sha256"),
)

models = sa.Table(
    "models",
    metadata,
    sa.Column("id", CleanText, primary_key=True, comment="name@hash12"),
    sa.Column("name", CleanText, nullable=False, index=True),
    sa.Column("kind", CleanText, nullable=False),
    sa.Column("path", CleanText, nullable=False, comment="folder of the bundle"),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("n_training", sa.BigInteger, nullable=False),
    sa.Column("held_out", Json, nullable=False, comment="held-out figures by name"),
    sa.Column("smallest_p", sa.Double, comment="the smallest that its calibration resolves"),
    sa.Column("domain", Json, nullable=False, comment="what the training set covered"),
    sa.Column("reference", Json, comment="what drift is measured against"),
)

promotions = sa.Table(
    "promotions",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("kind", CleanText, nullable=False, index=True),
    sa.Column("model_id", CleanText, sa.ForeignKey("models.id"), nullable=False),
    sa.Column("by", CleanText, nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Column("withdrawn_by", CleanText),
    sa.Column("withdrawn_at", UTCDateTime, comment="null unless rolled back"),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("key", CleanText, nullable=False, unique=True),
    sa.Column("survey", CleanText, nullable=False),
    sa.Column("night", CleanText, nullable=False),
    sa.Column("models", Json, nullable=False, comment="model id by kind"),
    sa.Column("started_at", UTCDateTime, nullable=False),
    sa.Column("ended_at", UTCDateTime, comment="null while inputs are queued"),
    sa.Column("summary", Json, comment="found, scored, failed, reasons"),
)

run_inputs = sa.Table(
    "run_inputs",
    metadata,
    sa.Column("run_id", BigId, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("path", CleanText, primary_key=True),
    sa.Column("status", CleanText, nullable=False, comment="queued, scored or failed"),
    sa.Column("observation_id", BigId, sa.ForeignKey("observations.id"), comment="where it was scored"),
    sa.Column("reason", CleanText, comment="where it failed; outlives the failure's own row"),
    sa.Column(
        "attempts", sa.Integer, nullable=False, comment="that ended, by a result or with the worker's process"
    ),
    sa.Column("in_hand", CleanText, comment="id of the message under which a worker began on it"),
    sa.Column("size", sa.BigInteger, comment="bytes"),
    sa.Column("mtime_ns", sa.BigInteger),
    sa.Index(None, "run_id", "status"),
    sa.Index(None, "path"),
    sa.Index(None, "observation_id"),
)

scores = sa.Table(
    "scores",
    metadata,
    sa.Column("observation_id", BigId, sa.ForeignKey("observations.id"), primary_key=True),
    sa.Column("model_id", CleanText, sa.ForeignKey("models.id"), primary_key=True),
    sa.Column(
        "run_id", BigId, sa.ForeignKey("runs.id"), nullable=False, index=True, comment="the last to write it"
    ),
    sa.Column("scored_at", UTCDateTime, nullable=False),
    sa.Column("elbo", sa.Double, nullable=False, comment="nats"),
    sa.Column("log_px", sa.Double, nullable=False, comment="nats"),
    sa.Column("log_density", sa.Double, nullable=False, comment="nats"),
    sa.Column("chi2", sa.Double, nullable=False, comment="per degree of freedom"),
    sa.Column("score", sa.Double, nullable=False),
    sa.Column("p_value", sa.Double, nullable=False),
    sa.Column("q_value", sa.Double, comment="null until the run has ended"),
    sa.Column("cluster", sa.Integer, nullable=False),
    sa.Column("cluster_probability", sa.Double, nullable=False),
    sa.Column("snr", sa.Double, nullable=False),
    sa.Column("flags", CleanText, nullable=False, comment="comma-joined, sorted"),
    sa.Column("parts", Json, nullable=False, comment="score components by name"),
    sa.Column(
        "windows", Json, nullable=False, comment="what departs most from the reconstruction, for outliers"
    ),
)
# Keyset pages of one model's ranking walk this index.
sa.Index("ix_scores_ranking", scores.c.model_id, scores.c.score.desc(), scores.c.observation_id)
sa.Index(
    "ix_scores_cluster",
    scores.c.model_id,
    scores.c.cluster,
    scores.c.score.desc(),
    scores.c.observation_id,
)
# Discoveries are few among many; what is written before its run has ended costs nothing here.
sa.Index(
    "ix_scores_q_value",
    scores.c.model_id,
    scores.c.q_value,
    postgresql_where=scores.c.q_value.is_not(None),
    sqlite_where=scores.c.q_value.is_not(None),
)

embeddings = sa.Table(
    "embeddings",
    metadata,
    sa.Column("observation_id", BigId, sa.ForeignKey("observations.id"), primary_key=True),
    sa.Column("model_id", CleanText, sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("latent", sa.LargeBinary, nullable=False, comment="float32, little-endian"),
    sa.Column("latent_var", sa.LargeBinary, nullable=False, comment="float32, little-endian"),
    sa.Column("responsibilities", sa.LargeBinary, nullable=False, comment="float32, little-endian"),
)

explanations = sa.Table(
    "explanations",
    metadata,
    sa.Column("observation_id", BigId, sa.ForeignKey("observations.id"), primary_key=True),
    sa.Column("model_id", CleanText, sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False, comment="what to show of an outlier, packed"),
)

clusters = sa.Table(
    "clusters",
    metadata,
    sa.Column("model_id", CleanText, sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("cluster", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("weight", sa.Double, nullable=False, comment="share of the training set"),
)

labels = sa.Table(
    "labels",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("object_id", BigId, sa.ForeignKey("objects.id"), nullable=False, index=True),
    sa.Column("label", CleanText, nullable=False),
    sa.Column("by", CleanText, nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
)
# A person's newest label on each object is read from this index alone.
sa.Index("ix_labels_by", labels.c.by, labels.c.object_id, labels.c.id)

failures = sa.Table(
    "failures",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("path", CleanText, nullable=False),
    sa.Column("reason", CleanText, nullable=False),
    sa.Column("detail", CleanText, nullable=False),
    sa.Column("kind", CleanText, nullable=False, comment="empty where unknown"),
    sa.Column("model", CleanText, nullable=False, comment="model id, or empty where none was at fault"),
    sa.Column("run_id", BigId, sa.ForeignKey("runs.id"), nullable=False, index=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("first_seen", UTCDateTime, nullable=False),
    sa.Column("last_seen", UTCDateTime, nullable=False),
    sa.UniqueConstraint("path", "model"),
)

drift = sa.Table(
    "drift",
    metadata,
    sa.Column("run_id", BigId, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("model_id", CleanText, sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("figures", Json, nullable=False, comment="each measure with its limit"),
    sa.Column("problem", CleanText, nullable=False, comment="what is wrong; empty for a good night"),
)

stage_seconds = sa.Table(
    "stage_seconds",
    metadata,
    sa.Column("run_id", BigId, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("stage", CleanText, primary_key=True, comment="read, score or write"),
    sa.Column("seconds", sa.Double, nullable=False, comment="of all workers together"),
    sa.Column("last_at", UTCDateTime, nullable=False),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("name", CleanText, nullable=False),
    sa.Column("role", CleanText, nullable=False, comment="read, label, submit or admin"),
    sa.Column("sha256", CleanText, nullable=False, unique=True, comment="of the key"),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("revoked_at", UTCDateTime, comment="null while it is good"),
)

searches = sa.Table(
    "searches",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("name", CleanText, nullable=False, unique=True),
    sa.Column("by", CleanText, nullable=False),
    sa.Column("query", Json, nullable=False, comment="parameters of GET /outliers"),
    sa.Column("created_at", UTCDateTime, nullable=False),
)

vo_jobs = sa.Table(
    "vo_jobs",
    metadata,
    sa.Column("id", CleanText, primary_key=True),
    sa.Column("owner", CleanText, comment="name of the key; null without keys"),
    sa.Column("phase", CleanText, nullable=False, comment="as UWS has them"),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("started_at", UTCDateTime),
    sa.Column("ended_at", UTCDateTime),
    sa.Column("seconds", sa.Integer, nullable=False, comment="that it may run"),
    sa.Column("destruction", UTCDateTime, nullable=False, index=True, comment="when it is forgotten"),
    sa.Column("parameters", CleanText, nullable=False, comment="JSON: [[name, value], …]"),
    sa.Column("error", CleanText),
)

vo_results = sa.Table(
    "vo_results",
    metadata,
    sa.Column("job_id", CleanText, sa.ForeignKey("vo_jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("media_type", CleanText, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
