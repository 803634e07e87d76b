"""A materialized slice of a view instance: one Parquet file, or an empty marker, over a range of insert time.

It must never be changed in place: a new partition replaces old ones in one transaction.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field


def new_partition_id() -> str:
    """A fresh random partition id."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class PartitionRange:
    """What names a partition that may have no file: its view instance and its exact insert range (ns, half-open)."""

    view_set: str
    instance_id: str
    begin_insert_time: int
    end_insert_time: int
    schema_hash: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Row of a partition.

    The insert range is half-open, the event range inclusive (None when there are no rows). `file_path` is the key in
    the object store, None for an empty partition. `schema_hash` and `source_hash` are opaque digests made by the view,
    and so is `carries`, which sums up what the partition hands on to the next one (None when rows never reach over).
    Times in ns since the epoch.
    """

    view_set: str
    instance_id: str
    begin_insert_time: int
    end_insert_time: int
    min_event_time: int | None
    max_event_time: int | None
    updated: int
    file_path: str | None
    file_size: int
    num_rows: int
    schema_hash: bytes
    source_hash: bytes
    failed_blocks: int = 0
    carries: bytes | None = None
    partition_id: str = field(default_factory=new_partition_id)

    def __post_init__(self) -> None:
        if self.begin_insert_time >= self.end_insert_time:
            raise ValueError(
                f"partition of {self.view_set}/{self.instance_id}: "
                f"insert range [{self.begin_insert_time}, {self.end_insert_time}) is empty"
            )
        if (self.file_path is None) != (self.num_rows == 0):
            raise ValueError(
                f"partition of {self.view_set}/{self.instance_id}: {self.num_rows} rows in file {self.file_path}"
            )
