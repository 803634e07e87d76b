"""Tables of the metadata database for SQLite and PostgreSQL alike; the migrations bring a database to exactly this.

Ids are hyphenated texts (native UUID in PostgreSQL), times ns since the epoch. It must never be used to create tables
directly: `migration.py` is the only way.
"""

from __future__ import annotations

import sqlalchemy as sa

GENERATION = 8
"""Number of this schema. Raised by every migration."""

MIN_COMPATIBLE_GENERATION = 8
"""The oldest program generation that may still use a database of this schema. Raised by breaking migrations only."""

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = sa.MetaData(naming_convention=NAMES)


def _id_type() -> sa.types.TypeEngine[str]:
    return sa.String(36).with_variant(sa.Uuid(as_uuid=False), "postgresql")


processes = sa.Table(
    "processes",
    metadata,
    sa.Column("process_id", _id_type(), primary_key=True),
    sa.Column("exe", sa.String(255), nullable=False),
    sa.Column("username", sa.String(255), nullable=False),
    sa.Column("realname", sa.String(255), nullable=False),
    sa.Column("computer", sa.String(255), nullable=False),
    sa.Column("distro", sa.String(255), nullable=False),
    sa.Column("cpu_brand", sa.String(255), nullable=False),
    sa.Column("tsc_frequency", sa.BigInteger, nullable=False),
    sa.Column("start_time", sa.BigInteger, nullable=False),
    sa.Column("start_ticks", sa.BigInteger, nullable=False),
    sa.Column("insert_time", sa.BigInteger, nullable=False),
    sa.Column("parent_process_id", _id_type()),
    sa.Column("properties", sa.JSON, nullable=False),
    # Kept up to date by every commit, so that listing processes never scans their blocks.
    sa.Column("last_update_time", sa.BigInteger, nullable=False),
    sa.Column("last_block_end_ticks", sa.BigInteger),
    sa.Column("last_block_end_time", sa.BigInteger),
    # NULL: the process told its frequency, or nothing tells it yet.
    sa.Column("clock", sa.JSON(none_as_null=True)),
    sa.Index(None, "parent_process_id"),
)
"""`clock` is a `MeasuredClock`."""

streams = sa.Table(
    "streams",
    metadata,
    sa.Column("stream_id", _id_type(), primary_key=True),
    sa.Column("process_id", _id_type(), nullable=False),
    sa.Column("dependencies_metadata", sa.LargeBinary, nullable=False),
    sa.Column("objects_metadata", sa.LargeBinary, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("properties", sa.JSON, nullable=False),
    sa.Column("insert_time", sa.BigInteger, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("last_update_time", sa.BigInteger, nullable=False),
    sa.Index(None, "process_id"),
)

stream_tags = sa.Table(
    "stream_tags",
    metadata,
    sa.Column("stream_id", _id_type(), primary_key=True),
    sa.Column("tag", sa.Text, primary_key=True),
    sa.Index(None, "tag"),
)
"""The tags of `streams` once more, one a row, to select by."""

blocks = sa.Table(
    "blocks",
    metadata,
    sa.Column("block_id", _id_type(), primary_key=True),
    sa.Column("stream_id", _id_type(), nullable=False),
    sa.Column("process_id", _id_type(), nullable=False),
    sa.Column("begin_time", sa.BigInteger, nullable=False),
    sa.Column("begin_ticks", sa.BigInteger, nullable=False),
    sa.Column("end_time", sa.BigInteger, nullable=False),
    sa.Column("end_ticks", sa.BigInteger, nullable=False),
    sa.Column("nb_objects", sa.Integer, nullable=False),
    sa.Column("object_offset", sa.BigInteger, nullable=False),
    sa.Column("payload_size", sa.BigInteger, nullable=False),
    # NULL: one object of its own at blobs/<process>/<stream>/<block>, as older lakes have it.
    sa.Column("object_key", sa.Text),
    sa.Column("payload_offset", sa.BigInteger, nullable=False),
    # NULL: pending, the stream or the process was not announced yet.
    sa.Column("insert_time", sa.BigInteger),
    # Between which times the events are, by the clock of the process. NULL: nothing tells, they may be at any.
    sa.Column("min_event_time", sa.BigInteger),
    sa.Column("max_event_time", sa.BigInteger),
    sa.Column("received", sa.BigInteger, nullable=False),
    sa.Index("ix_blocks_insert_time", "insert_time"),
    sa.Index("ix_blocks_process_insert", "process_id", "insert_time"),
    sa.Index("ix_blocks_stream_insert", "stream_id", "insert_time"),
    sa.Index("ix_blocks_end_time", "end_time"),
    sa.Index("ix_blocks_max_event_time", "max_event_time"),
    sa.Index(
        "ix_blocks_set_back",
        "begin_time",
        sqlite_where=sa.text("begin_time > end_time"),
        postgresql_where=sa.text("begin_time > end_time"),
    ),
    sa.Index("ix_blocks_object_key", "object_key"),
)

replicas = sa.Table(
    "replicas",
    metadata,
    sa.Column("block_id", _id_type(), primary_key=True),
    sa.Column("stream_id", _id_type(), nullable=False),
    sa.Column("process_id", _id_type(), nullable=False),
    # NULL, all of them: the payload came first.
    sa.Column("begin_time", sa.BigInteger),
    sa.Column("begin_ticks", sa.BigInteger),
    sa.Column("end_time", sa.BigInteger),
    sa.Column("end_ticks", sa.BigInteger),
    sa.Column("nb_objects", sa.Integer),
    sa.Column("object_offset", sa.BigInteger),
    sa.Column("payload_size", sa.BigInteger),
    # The payload lies in an object of its own, as those of `blocks` without a key.
    sa.Column("has_payload", sa.Boolean, nullable=False),
    sa.Column("received", sa.BigInteger, nullable=False),
    sa.Index(None, "received"),
)
"""Blocks copied from another lake of which only the row or only the payload has come."""

commit_clock = sa.Table(
    "commit_clock",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("last", sa.BigInteger, nullable=False),
)
"""One row: the insert time of the newest commit. Updating it first makes commits take turns in the clock's order."""

partitions = sa.Table(
    "partitions",
    metadata,
    sa.Column("partition_id", _id_type(), primary_key=True),
    sa.Column("view_set", sa.Text, nullable=False),
    sa.Column("instance_id", sa.Text, nullable=False),
    sa.Column("begin_insert_time", sa.BigInteger, nullable=False),
    sa.Column("end_insert_time", sa.BigInteger, nullable=False),
    sa.Column("min_event_time", sa.BigInteger),
    sa.Column("max_event_time", sa.BigInteger),
    sa.Column("updated", sa.BigInteger, nullable=False),
    sa.Column("file_path", sa.Text),
    sa.Column("file_size", sa.BigInteger, nullable=False),
    sa.Column("num_rows", sa.BigInteger, nullable=False),
    sa.Column("schema_hash", sa.LargeBinary, nullable=False),
    sa.Column("source_hash", sa.LargeBinary, nullable=False),
    sa.Column("failed_blocks", sa.Integer, nullable=False),
    # For views whose rows reach over partitions: a digest, listed with the row, and the state, which may be large.
    sa.Column("carries", sa.LargeBinary),
    sa.Column("carried_state", sa.LargeBinary),
    sa.Index("ix_partitions_begin", "view_set", "instance_id", "begin_insert_time"),
    sa.Index("ix_partitions_event", "view_set", "instance_id", "min_event_time"),
    sa.Index("ix_partitions_instance_id", "instance_id"),
    sa.UniqueConstraint("file_path"),
)

partition_changes = sa.Table(
    "partition_changes",
    metadata,
    sa.Column("view_set", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("begin_insert_time", sa.BigInteger, nullable=False),
)
"""The newest changes of partitions of global instances, written by triggers on `partitions`: at which insert time one
came, went or changed. Versions of a view set have no holes."""

thinned_packs = sa.Table(
    "thinned_packs",
    metadata,
    sa.Column("object_key", sa.Text, primary_key=True),
    sa.Column("live_bytes", sa.BigInteger, nullable=False),
    sa.Column("lost_bytes", sa.BigInteger, nullable=False),
)
"""Packs that lost some of their blocks: the bytes of the payloads that are left, and of those that are gone."""

expiring_objects = sa.Table(
    "expiring_objects",
    metadata,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("expires", sa.BigInteger, nullable=False),
    # Once true, somebody is deleting the object: it can't be adopted by a partition any more.
    sa.Column("doomed", sa.Boolean, nullable=False),
    sa.Index(None, "expires"),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
)

block_errors = sa.Table(
    "block_errors",
    metadata,
    sa.Column("view_set", sa.Text, primary_key=True),
    sa.Column("block_id", _id_type(), primary_key=True),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("decoder_version", sa.Integer, nullable=False),
    sa.Column("recorded", sa.BigInteger, nullable=False),
)

query_denials = sa.Table(
    "query_denials",
    metadata,
    sa.Column("rule_id", _id_type(), primary_key=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("match_expr", sa.Text, nullable=False),
    sa.Column("last_hit_at", sa.BigInteger),
)

sweep_marks = sa.Table(
    "sweep_marks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("swept_until", sa.BigInteger, nullable=False),
)
"""How far (ns) the search for objects without rows has got."""

lake_generation = sa.Table(
    "lake_generation",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("current", sa.Integer, nullable=False),
    sa.Column("min_compatible", sa.Integer, nullable=False),
)
