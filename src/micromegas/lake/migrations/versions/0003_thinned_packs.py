"""Packs that lost some of their blocks, for the repacking of those that are mostly dead."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "thinned_packs",
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("live_bytes", sa.BigInteger(), nullable=False),
        sa.Column("lost_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("object_key", name="pk_thinned_packs"),
    )
