"""Asynchronous queries of the Virtual Observatory's clients, and their results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "vo_jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True, comment="name of the key; null without keys"),
        sa.Column("phase", sa.Text(), nullable=False, comment="as UWS has them"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seconds", sa.Integer(), nullable=False, comment="that it may run"),
        sa.Column("destruction", sa.DateTime(timezone=True), nullable=False, comment="when it is forgotten"),
        sa.Column("parameters", sa.Text(), nullable=False, comment="JSON: [[name, value], …]"),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_vo_jobs"),
    )
    op.create_index("ix_vo_jobs_destruction", "vo_jobs", ["destruction"])
    op.create_table(
        "vo_results",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["vo_jobs.id"], name="fk_vo_results_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name="pk_vo_results"),
    )


def downgrade() -> None:
    op.drop_table("vo_results")
    op.drop_table("vo_jobs")
