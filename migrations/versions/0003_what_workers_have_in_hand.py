"""What workers have in hand: the message under which they began on an input."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("run_inputs") as table:
        table.add_column(
            sa.Column(
                "in_hand",
                sa.Text(),
                nullable=True,
                comment="id of the message under which a worker began on it",
            )
        )
        table.alter_column(
            "attempts",
            existing_type=sa.Integer(),
            existing_nullable=False,
            comment="that ended, by a result or with the worker's process",
        )


def downgrade() -> None:
    with op.batch_alter_table("run_inputs") as table:
        table.alter_column("attempts", existing_type=sa.Integer(), existing_nullable=False, comment=None)
        table.drop_column("in_hand")
