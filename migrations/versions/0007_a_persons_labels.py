"""A person's labels by object, for the ranking that they make."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_labels_by", "labels", ["by", "object_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_labels_by", "labels")
