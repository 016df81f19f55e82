"""API keys, which model is in force and its history, the drift of runs, and seconds by stage of the work.

The newest model of each kind was in force until now; it is promoted, so that an upgrade changes no score.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("models", sa.Column("reference", JSON, comment="what drift is measured against"))
    op.create_table(
        "api_keys",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False, comment="read, label, submit or admin"),
        sa.Column("sha256", sa.Text(), nullable=False, comment="of the key"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True, comment="null while it is good"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("sha256", name="uq_api_keys_sha256"),
    )
    op.create_table(
        "promotions",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("withdrawn_by", sa.Text(), nullable=True),
        sa.Column(
            "withdrawn_at", sa.DateTime(timezone=True), nullable=True, comment="null unless rolled back"
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_promotions_model_id"),
        sa.PrimaryKeyConstraint("id", name="pk_promotions"),
    )
    op.create_index("ix_promotions_kind", "promotions", ["kind"])
    op.create_table(
        "drift",
        sa.Column("run_id", BIG_ID, nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("figures", JSON, nullable=False, comment="each measure with its limit"),
        sa.Column("problem", sa.Text(), nullable=False, comment="what is wrong; empty for a good night"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_drift_model_id"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_drift_run_id"),
        sa.PrimaryKeyConstraint("run_id", "model_id", name="pk_drift"),
    )
    op.create_table(
        "stage_seconds",
        sa.Column("run_id", BIG_ID, nullable=False),
        sa.Column("stage", sa.Text(), nullable=False, comment="read, score or write"),
        sa.Column("seconds", sa.Double(), nullable=False, comment="of all workers together"),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_stage_seconds_run_id"),
        sa.PrimaryKeyConstraint("run_id", "stage", name="pk_stage_seconds"),
    )
    op.execute(
        "INSERT INTO promotions (kind, model_id, by, at) "
        "SELECT kind, id, 'upgrade', created_at FROM models AS m WHERE NOT EXISTS ("
        "SELECT 1 FROM models AS n WHERE n.kind = m.kind "
        "AND (n.created_at > m.created_at OR (n.created_at = m.created_at AND n.id < m.id)))"
    )


def downgrade() -> None:
    for table in ("stage_seconds", "drift", "promotions", "api_keys"):
        op.drop_table(table)
    op.drop_column("models", "reference")
