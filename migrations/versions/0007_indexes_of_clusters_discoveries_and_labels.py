"""Indexes: a cluster by score, discoveries by q-value, a person's labels by object."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_labels_by", "labels", ["by", "object_id", "id"])
    op.drop_index("ix_scores_cluster", "scores")
    op.create_index(
        "ix_scores_cluster", "scores", ["model_id", "cluster", sa.text("score DESC"), "observation_id"]
    )
    known = sa.text("q_value IS NOT NULL")
    op.create_index(
        "ix_scores_q_value", "scores", ["model_id", "q_value"], postgresql_where=known, sqlite_where=known
    )


def downgrade() -> None:
    op.drop_index("ix_scores_q_value", "scores")
    op.drop_index("ix_scores_cluster", "scores")
    op.create_index("ix_scores_cluster", "scores", ["model_id", "cluster"])
    op.drop_index("ix_labels_by", "labels")
