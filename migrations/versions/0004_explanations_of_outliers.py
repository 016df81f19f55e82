"""What to show of each outlier, so that nobody has to read and score its file again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "explanations",
        sa.Column("observation_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False, comment="what to show of an outlier, packed"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_explanations_model_id"),
        sa.ForeignKeyConstraint(
            ["observation_id"], ["observations.id"], name="fk_explanations_observation_id"
        ),
        sa.PrimaryKeyConstraint("observation_id", "model_id", name="pk_explanations"),
    )


def downgrade() -> None:
    op.drop_table("explanations")
