"""Which partitions a query may read as they are. Must never refuse one that would be made again just as it is."""

from __future__ import annotations

from micromegas.lake import Partition
from micromegas.views.block_decoding import decoded_from
from micromegas.views.carried import CarriedSummary
from micromegas.views.view_set import ViewSet


def is_good(partition: Partition, view_set: ViewSet) -> bool:
    """Whether a partition needs not be built again for its schema, for blocks that an older decoder failed at, nor for
    what it should hand on. One that hands its state on need not have rows."""
    if decoded_from(view_set).carries and CarriedSummary.read(partition.carries) is None:
        return False
    if partition.schema_hash in (view_set.schema_hash, view_set.state_hash):
        return True
    return partition.schema_hash in view_set.readable and not partition.failed_blocks
