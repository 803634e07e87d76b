"""All that a daemon would do with a lake in the days to come, done at once:  python -m e2e.merge_everything LAKE_DIR

The lake must not be in use by a server of an earlier clock meanwhile.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from micromegas.config import LakeSettings
from micromegas.daemon.fresh_partitions import FreshPartitions
from micromegas.daemon.merge_buckets import TIERS
from micromegas.daemon.merging import Merging
from micromegas.lake import Lake
from micromegas.views.catalogue import GLOBAL_VIEW_SETS

DAY = 86_400_000_000_000
FEW = 10


def merge_everything(settings: LakeSettings) -> None:
    """Cover what is not covered, and every merge of every tier."""
    with Lake.open(settings, clock=lambda: time.time_ns() + 3 * DAY) as lake:
        for view_set in GLOBAL_VIEW_SETS:
            if view_set.decoded is None:
                continue
            assert FreshPartitions(lake, view_set, lake.clock).cover(0, lambda: True) == 0
            for tier in TIERS:
                assert Merging(lake, view_set, tier, lake.clock).merge(lambda: True) == 0
            partitions = lake.metadata.partitions(view_set.name, "global")
            assert len(partitions) < FEW, f"{view_set.name}: {len(partitions)} partitions are left after all merges"


if __name__ == "__main__":
    merge_everything(LakeSettings(lake_dir=Path(sys.argv[1])))
    # The most bytes of memory that this process ever had.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")))
