"""The first schema: processes, streams, blocks, partitions, expiring objects, leases, block errors."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _id() -> sa.types.TypeEngine[str]:
    return sa.String(36).with_variant(sa.Uuid(as_uuid=False), "postgresql")


def upgrade() -> None:
    op.create_table(
        "processes",
        sa.Column("process_id", _id(), nullable=False),
        sa.Column("exe", sa.String(255), nullable=False),
        sa.Column("username", sa.String(255), nullable=False),
        sa.Column("realname", sa.String(255), nullable=False),
        sa.Column("computer", sa.String(255), nullable=False),
        sa.Column("distro", sa.String(255), nullable=False),
        sa.Column("cpu_brand", sa.String(255), nullable=False),
        sa.Column("tsc_frequency", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("start_ticks", sa.BigInteger(), nullable=False),
        sa.Column("insert_time", sa.BigInteger(), nullable=False),
        sa.Column("parent_process_id", _id(), nullable=True),
        sa.Column("properties", sa.JSON(), nullable=False),
        sa.Column("last_update_time", sa.BigInteger(), nullable=False),
        sa.Column("last_block_end_ticks", sa.BigInteger(), nullable=True),
        sa.Column("last_block_end_time", sa.BigInteger(), nullable=True),
        sa.Column("clock_end_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("process_id", name="pk_processes"),
    )
    op.create_index("ix_processes_parent_process_id", "processes", ["parent_process_id"])
    op.create_table(
        "streams",
        sa.Column("stream_id", _id(), nullable=False),
        sa.Column("process_id", _id(), nullable=False),
        sa.Column("dependencies_metadata", sa.LargeBinary(), nullable=False),
        sa.Column("objects_metadata", sa.LargeBinary(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("properties", sa.JSON(), nullable=False),
        sa.Column("insert_time", sa.BigInteger(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("last_update_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream_id", name="pk_streams"),
    )
    op.create_index("ix_streams_process_id", "streams", ["process_id"])
    op.create_table(
        "stream_tags",
        sa.Column("stream_id", _id(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("stream_id", "tag", name="pk_stream_tags"),
    )
    op.create_index("ix_stream_tags_tag", "stream_tags", ["tag"])
    op.create_table(
        "blocks",
        sa.Column("block_id", _id(), nullable=False),
        sa.Column("stream_id", _id(), nullable=False),
        sa.Column("process_id", _id(), nullable=False),
        sa.Column("begin_time", sa.BigInteger(), nullable=False),
        sa.Column("begin_ticks", sa.BigInteger(), nullable=False),
        sa.Column("end_time", sa.BigInteger(), nullable=False),
        sa.Column("end_ticks", sa.BigInteger(), nullable=False),
        sa.Column("nb_objects", sa.Integer(), nullable=False),
        sa.Column("object_offset", sa.BigInteger(), nullable=False),
        sa.Column("payload_size", sa.BigInteger(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=True),
        sa.Column("payload_offset", sa.BigInteger(), nullable=False),
        sa.Column("insert_time", sa.BigInteger(), nullable=True),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("block_id", name="pk_blocks"),
    )
    op.create_index("ix_blocks_insert_time", "blocks", ["insert_time"])
    op.create_index("ix_blocks_process_insert", "blocks", ["process_id", "insert_time"])
    op.create_index("ix_blocks_stream_insert", "blocks", ["stream_id", "insert_time"])
    op.create_index("ix_blocks_end_time", "blocks", ["end_time"])
    op.create_index("ix_blocks_object_key", "blocks", ["object_key"])
    clock = op.create_table(
        "commit_clock",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_commit_clock"),
    )
    op.bulk_insert(clock, [{"id": 1, "last": 0}])
    op.create_table(
        "partitions",
        sa.Column("partition_id", _id(), nullable=False),
        sa.Column("view_set", sa.Text(), nullable=False),
        sa.Column("instance_id", sa.Text(), nullable=False),
        sa.Column("begin_insert_time", sa.BigInteger(), nullable=False),
        sa.Column("end_insert_time", sa.BigInteger(), nullable=False),
        sa.Column("min_event_time", sa.BigInteger(), nullable=True),
        sa.Column("max_event_time", sa.BigInteger(), nullable=True),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("file_path", sa.Text(), nullable=True),
        sa.Column("file_size", sa.BigInteger(), nullable=False),
        sa.Column("num_rows", sa.BigInteger(), nullable=False),
        sa.Column("schema_hash", sa.LargeBinary(), nullable=False),
        sa.Column("source_hash", sa.LargeBinary(), nullable=False),
        sa.Column("failed_blocks", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("partition_id", name="pk_partitions"),
        sa.UniqueConstraint("file_path", name="uq_partitions_file_path"),
    )
    op.create_index("ix_partitions_begin", "partitions", ["view_set", "instance_id", "begin_insert_time"])
    op.create_index("ix_partitions_event", "partitions", ["view_set", "instance_id", "min_event_time"])
    op.create_table(
        "expiring_objects",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("doomed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("path", name="pk_expiring_objects"),
    )
    op.create_index("ix_expiring_objects_expires", "expiring_objects", ["expires"])
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.create_table(
        "block_errors",
        sa.Column("view_set", sa.Text(), nullable=False),
        sa.Column("block_id", _id(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("decoder_version", sa.Integer(), nullable=False),
        sa.Column("recorded", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("view_set", "block_id", name="pk_block_errors"),
    )
    op.create_table(
        "sweep_marks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("swept_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_sweep_marks"),
    )
    op.create_table(
        "lake_generation",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("current", sa.Integer(), nullable=False),
        sa.Column("min_compatible", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lake_generation"),
    )
