"""Partitions by instance, whatever their view: processes and streams stay as long as there are some."""

from alembic import op

revision = "0006"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_partitions_instance_id", "partitions", ["instance_id"])
