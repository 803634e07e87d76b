"""Rules by which administrators refuse queries."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "query_denials",
        sa.Column("rule_id", sa.String(36).with_variant(sa.Uuid(as_uuid=False), "postgresql"), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("match_expr", sa.Text(), nullable=False),
        sa.Column("last_hit_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("rule_id", name="pk_query_denials"),
    )
