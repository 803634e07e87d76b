"""Blocks that are copied from another lake: rows and payloads that wait for each other."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    id_type = sa.String(36).with_variant(sa.Uuid(as_uuid=False), "postgresql")
    op.create_table(
        "replicas",
        sa.Column("block_id", id_type, nullable=False),
        sa.Column("stream_id", id_type, nullable=False),
        sa.Column("process_id", id_type, nullable=False),
        sa.Column("begin_time", sa.BigInteger(), nullable=True),
        sa.Column("begin_ticks", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("end_ticks", sa.BigInteger(), nullable=True),
        sa.Column("nb_objects", sa.Integer(), nullable=True),
        sa.Column("object_offset", sa.BigInteger(), nullable=True),
        sa.Column("payload_size", sa.BigInteger(), nullable=True),
        sa.Column("has_payload", sa.Boolean(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("block_id", name="pk_replicas"),
    )
    op.create_index("ix_replicas_received", "replicas", ["received"])
