"""Telemetry that goes straight into a lake, and the check that its partitions hold exactly what they must."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from e2e.made_traffic import MadeProcess, block_request

from micromegas.daemon.fresh_partitions import FreshPartitions
from micromegas.daemon.insert_clock import SECOND
from micromegas.daemon.merge_buckets import TIERS
from micromegas.daemon.merging import Merging
from micromegas.lake import Lake, Partition
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.measures import MEASURES
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet
from micromegas.wire import Batch, Block, Process, Stream

DEADLINE_S = 30.0
# A Sunday at midnight UTC.
MIDNIGHT = 1_800_000_000 * SECOND // (86_400 * SECOND) * (86_400 * SECOND)

Row = tuple[str, str]
"""Block id, and the message or the value as text."""


class HandClock:
    """A wall clock that only moves when it is told to."""

    def __init__(self, now: int = MIDNIGHT) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class Telemetry:
    """A process with one log and one metrics stream; remembers the rows that each block must give."""

    def __init__(self, lake: Lake, seed: int) -> None:
        self._lake = lake
        self._random = Random(seed)
        made = MadeProcess(self._random, exe=f"program {seed}")
        self.process_id = made.process_id
        self._log = made.stream("log")
        self._metrics = made.stream("metrics")
        self._number = 0
        self.logs: dict[str, list[str]] = {}
        self.values: dict[str, list[str]] = {}
        lake.commit(
            Batch(
                [Process.decode(made.request().body)],
                [Stream.decode(self._log.request().body), Stream.decode(self._metrics.request().body)],
            )
        )

    def send_logs(self, count: int = 3) -> Block:
        """Commit a block of messages, each of which occurs once in the lake."""
        messages = [f"message {self._number + place} of {self.process_id}" for place in range(count)]
        self._number += count
        block = self._commit(self._log.logs(messages))
        self.logs[block.block_id] = messages
        return block

    def send_values(self, count: int = 3) -> Block:
        """Commit a block of measures."""
        values = [self._random.random() for _ in range(count)]
        block = self._commit(self._metrics.measures(values))
        self.values[block.block_id] = [str(value) for value in values]
        return block

    def send_broken_logs(self) -> Block:
        """Commit a block whose payload is no telemetry."""
        fields = self._log.logs(["never seen"])
        fields["payload"]["objects"] = b"no lz4 frame"
        block = self._commit(fields)
        self.logs[block.block_id] = []
        return block

    def _commit(self, fields: dict[str, Any]) -> Block:
        block = Block.decode(block_request(fields).body)
        self._lake.commit(Batch(blocks=[block]))
        return block


def global_partitions(lake: Lake, view_set: ViewSet) -> list[Partition]:
    return lake.metadata.partitions(view_set.name, GLOBAL_INSTANCE)


def rows_of(lake: Lake, partition: Partition) -> pa.Table:
    """The file of a partition, checked against its row."""
    if partition.file_path is None:
        assert partition.num_rows == 0
        return LOG_ENTRIES.schema.empty_table()
    data = lake.objects.get(partition.file_path)
    assert len(data) == partition.file_size
    table = pq.read_table(io.BytesIO(data))
    assert table.num_rows == partition.num_rows
    return table


def check_view(lake: Lake, view_set: ViewSet, expected: dict[str, list[str]]) -> int:
    """No overlap, and each file holds the rows of exactly the blocks inserted in its range; returns the blocks that no
    partition covers."""
    partitions = sorted(global_partitions(lake, view_set), key=lambda each: each.begin_insert_time)
    for before, after in itertools.pairwise(partitions):
        assert before.end_insert_time <= after.begin_insert_time, "partitions overlap"
    assert view_set.decoded is not None
    uncovered = {block.block_id: block.insert_time for block in lake.metadata.blocks(tag=view_set.decoded.stream_tag)}
    assert set(uncovered) == set(expected)
    value_column = "msg" if view_set is LOG_ENTRIES else "value"
    for partition in partitions:
        table = rows_of(lake, partition)
        found: Counter[Row] = Counter()
        if table.num_rows:
            texts = [str(value) for value in table[value_column].to_pylist()]
            found = Counter(zip(table["block_id"].to_pylist(), texts, strict=True))
            times = table[view_set.min_column].cast(pa.int64()).to_pylist()
            assert (min(times), max(times)) == (partition.min_event_time, partition.max_event_time)
        inside = {
            block_id
            for block_id, insert_time in uncovered.items()
            if partition.begin_insert_time <= insert_time < partition.end_insert_time
        }
        assert found == Counter((block_id, text) for block_id in inside for text in expected[block_id])
        for block_id in inside:
            del uncovered[block_id]
    return len(uncovered)


def check_lake(lake: Lake, telemetries: list[Telemetry]) -> int:
    """`check_view` of all global views; returns the uncovered blocks of all of them."""
    logs = {key: value for telemetry in telemetries for key, value in telemetry.logs.items()}
    values = {key: value for telemetry in telemetries for key, value in telemetry.values.items()}
    return check_view(lake, LOG_ENTRIES, logs) + check_view(lake, MEASURES, values)


def cover(lake: Lake, view_set: ViewSet, clock: Callable[[], int], begin: int = 0) -> None:
    """One pass of the first tier, which must not fail."""
    assert FreshPartitions(lake, view_set, clock).cover(begin, always) == 0


def merge(lake: Lake, view_set: ViewSet, clock: Callable[[], int]) -> None:
    """One pass of every merging tier, which must not fail."""
    for tier in TIERS:
        assert Merging(lake, view_set, tier, clock).merge(always) == 0


def always() -> bool:
    return True


def objects_of(lake: Lake) -> set[str]:
    """Keys of all objects in the store, packs and files alike."""
    return {each.path for each in lake.objects.list("") if not each.path.startswith("incoming/")}


def needed_objects(lake: Lake) -> set[str]:
    """Keys that a row of the metadata points to."""
    packs = {block.object_key for block in lake.metadata.blocks()}
    return packs | {each.file_path for each in lake.metadata.all_partitions() if each.file_path is not None}
