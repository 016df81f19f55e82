"""The first schema: objects, observations, models, runs, scores, embeddings, clusters, labels, failures."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("id", sa.Text(), nullable=False, comment="name@hash12"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False, comment="folder of the bundle"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("n_training", sa.BigInteger(), nullable=False),
        sa.Column("held_out", JSON, nullable=False, comment="held-out figures by name"),
        sa.Column(
            "smallest_p", sa.Double(), nullable=True, comment="the smallest that its calibration resolves"
        ),
        sa.Column("domain", JSON, nullable=False, comment="what the training set covered"),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
    )
    op.create_index("ix_models_name", "models", ["name"])
    op.create_table(
        "objects",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("survey", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False, comment="the survey's own identity"),
        sa.Column("ra", sa.Double(), nullable=True, comment="ICRS, degrees"),
        sa.Column("dec", sa.Double(), nullable=True, comment="ICRS, degrees"),
        sa.Column("x", sa.Double(), nullable=True),
        sa.Column("y", sa.Double(), nullable=True),
        sa.Column("z", sa.Double(), nullable=True),
        sa.Column("healpix29", sa.BigInteger(), nullable=True, comment="nested HEALPix of order 29"),
        sa.PrimaryKeyConstraint("id", name="pk_objects"),
        sa.UniqueConstraint("kind", "survey", "object_id", name="uq_objects_kind_survey_object_id"),
    )
    op.create_index("ix_objects_healpix29", "objects", ["healpix29"])
    op.create_index("ix_objects_object_id", "objects", ["object_id"])
    op.create_table(
        "runs",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("survey", sa.Text(), nullable=False),
        sa.Column("night", sa.Text(), nullable=False),
        sa.Column("models", JSON, nullable=False, comment="model id by kind"),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "ended_at", sa.DateTime(timezone=True), nullable=True, comment="null while inputs are queued"
        ),
        sa.Column("summary", JSON, nullable=True, comment="found, scored, failed, reasons"),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("key", name="uq_runs_key"),
    )
    op.create_table(
        "clusters",
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("cluster", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("weight", sa.Double(), nullable=False, comment="share of the training set"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_clusters_model_id"),
        sa.PrimaryKeyConstraint("model_id", "cluster", name="pk_clusters"),
    )
    op.create_table(
        "failures",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="empty where unknown"),
        sa.Column("model", sa.Text(), nullable=False, comment="model id, or empty where none was at fault"),
        sa.Column("run_id", BIG_ID, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_failures_run_id"),
        sa.PrimaryKeyConstraint("id", name="pk_failures"),
        sa.UniqueConstraint("path", "model", name="uq_failures_path_model"),
    )
    op.create_index("ix_failures_run_id", "failures", ["run_id"])
    op.create_table(
        "labels",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("object_id", BIG_ID, nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["object_id"], ["objects.id"], name="fk_labels_object_id"),
        sa.PrimaryKeyConstraint("id", name="pk_labels"),
    )
    op.create_index("ix_labels_object_id", "labels", ["object_id"])
    op.create_table(
        "observations",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("object_id", BIG_ID, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("night", sa.Text(), nullable=False, comment="YYYY-MM-DD, of the first scoring"),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("redshift", sa.Double(), nullable=True),
        sa.Column("spectral_class", sa.Text(), nullable=False),
        sa.Column("zwarning", sa.BigInteger(), nullable=False),
        sa.Column("reader_flags", sa.Text(), nullable=False, comment="comma-joined, sorted"),
        sa.Column("duplicate", sa.Boolean(), nullable=False, comment="equal bytes lie under another path"),
        sa.Column("superseded", sa.Boolean(), nullable=False, comment="the file has other bytes by now"),
        sa.ForeignKeyConstraint(["object_id"], ["objects.id"], name="fk_observations_object_id"),
        sa.PrimaryKeyConstraint("id", name="pk_observations"),
        sa.UniqueConstraint("path", "sha256", name="uq_observations_path_sha256"),
    )
    op.create_index("ix_observations_night", "observations", ["night"])
    op.create_index("ix_observations_object_id", "observations", ["object_id"])
    op.create_index("ix_observations_sha256", "observations", ["sha256"])
    op.create_table(
        "embeddings",
        sa.Column("observation_id", BIG_ID, nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("latent", sa.LargeBinary(), nullable=False, comment="float32, little-endian"),
        sa.Column("latent_var", sa.LargeBinary(), nullable=False, comment="float32, little-endian"),
        sa.Column("responsibilities", sa.LargeBinary(), nullable=False, comment="float32, little-endian"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_embeddings_model_id"),
        sa.ForeignKeyConstraint(["observation_id"], ["observations.id"], name="fk_embeddings_observation_id"),
        sa.PrimaryKeyConstraint("observation_id", "model_id", name="pk_embeddings"),
    )
    op.create_table(
        "run_inputs",
        sa.Column("run_id", BIG_ID, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False, comment="queued, scored or failed"),
        sa.Column("observation_id", BIG_ID, nullable=True, comment="where it was scored"),
        sa.Column(
            "reason", sa.Text(), nullable=True, comment="where it failed; outlives the failure's own row"
        ),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True, comment="bytes"),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["observation_id"], ["observations.id"], name="fk_run_inputs_observation_id"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_inputs_run_id"),
        sa.PrimaryKeyConstraint("run_id", "path", name="pk_run_inputs"),
    )
    op.create_index("ix_run_inputs_observation_id", "run_inputs", ["observation_id"])
    op.create_index("ix_run_inputs_path", "run_inputs", ["path"])
    op.create_index("ix_run_inputs_run_id_status", "run_inputs", ["run_id", "status"])
    op.create_table(
        "scores",
        sa.Column("observation_id", BIG_ID, nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("run_id", BIG_ID, nullable=False, comment="the last to write it"),
        sa.Column("scored_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("elbo", sa.Double(), nullable=False, comment="nats"),
        sa.Column("log_px", sa.Double(), nullable=False, comment="nats"),
        sa.Column("log_density", sa.Double(), nullable=False, comment="nats"),
        sa.Column("chi2", sa.Double(), nullable=False, comment="per degree of freedom"),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("p_value", sa.Double(), nullable=False),
        sa.Column("q_value", sa.Double(), nullable=True, comment="null until the run has ended"),
        sa.Column("cluster", sa.Integer(), nullable=False),
        sa.Column("cluster_probability", sa.Double(), nullable=False),
        sa.Column("snr", sa.Double(), nullable=False),
        sa.Column("flags", sa.Text(), nullable=False, comment="comma-joined, sorted"),
        sa.Column("parts", JSON, nullable=False, comment="score components by name"),
        sa.Column(
            "windows", JSON, nullable=False, comment="what departs most from the reconstruction, for outliers"
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_scores_model_id"),
        sa.ForeignKeyConstraint(["observation_id"], ["observations.id"], name="fk_scores_observation_id"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_scores_run_id"),
        sa.PrimaryKeyConstraint("observation_id", "model_id", name="pk_scores"),
    )
    op.create_index("ix_scores_cluster", "scores", ["model_id", "cluster"])
    op.create_index(
        "ix_scores_ranking", "scores", ["model_id", sa.literal_column("score DESC"), "observation_id"]
    )
    op.create_index("ix_scores_run_id", "scores", ["run_id"])


def downgrade() -> None:
    names = "scores run_inputs embeddings observations labels failures clusters runs objects models"
    for table in names.split():
        op.drop_table(table)
