"""Everything that was ingested and everything derived from it: metadata database, object store, packs, partitions.

It must never know SQL views or decode events: payloads and partition files are bytes in here.
"""

from micromegas.lake.errors import (
    LakeCorrupt,
    LakeError,
    LakeTooNew,
    LakeUnavailable,
    PartitionConflict,
    TooManyDenials,
    UnknownPartitions,
)
from micromegas.lake.lake import Lake
from micromegas.lake.metadata import (
    BLOCK_RECORD_SCHEMA,
    CLOCK_UNKNOWN,
    STAMP_MARGIN,
    BlockConditions,
    Metadata,
    TailConditions,
    ViewSetConditions,
)
from micromegas.lake.objects import DataFusionStore, ObjectInfo, Objects, open_objects
from micromegas.lake.partition import Partition, PartitionRange, new_partition_id
from micromegas.lake.partition_index import ChosenPartitions, PartitionIndex, TooManyPartitions
from micromegas.lake.process_clock import ProcessClock, Rate, clock_of
from micromegas.lake.replication import ReplicaMismatch, Replication
from micromegas.lake.rows import (
    BlockError,
    BlockHeader,
    BlockIds,
    BlockRow,
    ClocklessBlock,
    ExpiringObject,
    LeaseClaim,
    ProcessRow,
    QueryDenial,
    StreamRow,
)
from micromegas.lake.scratch import Scratch

__all__ = [
    "BLOCK_RECORD_SCHEMA",
    "CLOCK_UNKNOWN",
    "STAMP_MARGIN",
    "BlockConditions",
    "BlockError",
    "BlockHeader",
    "BlockIds",
    "BlockRow",
    "ChosenPartitions",
    "ClocklessBlock",
    "DataFusionStore",
    "ExpiringObject",
    "Lake",
    "LakeCorrupt",
    "LakeError",
    "LakeTooNew",
    "LakeUnavailable",
    "LeaseClaim",
    "Metadata",
    "ObjectInfo",
    "Objects",
    "Partition",
    "PartitionConflict",
    "PartitionIndex",
    "PartitionRange",
    "ProcessClock",
    "ProcessRow",
    "QueryDenial",
    "Rate",
    "ReplicaMismatch",
    "Replication",
    "Scratch",
    "StreamRow",
    "TailConditions",
    "TooManyDenials",
    "TooManyPartitions",
    "UnknownPartitions",
    "ViewSetConditions",
    "clock_of",
    "new_partition_id",
    "open_objects",
]
