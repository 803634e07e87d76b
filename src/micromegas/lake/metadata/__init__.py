"""The metadata database: who was recorded, which blocks exist, where their bytes are, and what was derived from them.

SQLite on one machine, PostgreSQL beyond; one schema, one history of migrations. It must never hold event content.
"""

from micromegas.lake.metadata.block_errors import CLOCK_UNKNOWN
from micromegas.lake.metadata.block_records import BLOCK_RECORD_SCHEMA
from micromegas.lake.metadata.blocks import STAMP_MARGIN, BlockConditions
from micromegas.lake.metadata.metadata import Metadata
from micromegas.lake.metadata.partitions import ViewSetConditions
from micromegas.lake.metadata.tails import Tail, TailConditions

__all__ = [
    "BLOCK_RECORD_SCHEMA",
    "CLOCK_UNKNOWN",
    "STAMP_MARGIN",
    "BlockConditions",
    "Metadata",
    "Tail",
    "TailConditions",
    "ViewSetConditions",
]
