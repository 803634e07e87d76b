"""What it costs to turn blocks into Parquet, per view, beside the writer alone with the same settings on the same rows.

`python bench/materialize.py FOLDER` multiplies a recorded scenario (the service): every copy is another process with
its own ids, times, values and texts. Prints CPU seconds (all threads) per million events of the whole way (payloads
read, decoded, sorted, encoded, stored durably, row committed) and of pyarrow alone, and bytes per row; the aim is 1.
"""

from __future__ import annotations

import argparse
import statistics
import struct
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cbor2
import lz4.frame
import numpy as np
import pyarrow as pa
from traffic import load_scenario

from micromegas.config import LakeSettings
from micromegas.lake import BlockRow, Lake
from micromegas.views.async_events import ASYNC_EVENTS
from micromegas.views.block_decoding import DecodedBlocks, decoded_from
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.measures import MEASURES
from micromegas.views.partition_writer import InsertRange, PartitionSlot, RowFile, build_partition
from micromegas.views.thread_spans import THREAD_SPANS
from micromegas.views.time_order import in_time_order
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet
from micromegas.wire import Batch, Block, Stream

AIM = 1.0
SHIFT_NS = 100_000_000
STRING_HEADER = 5
ASYNC_OF_THREAD = {"BeginThreadSpanEvent": "BeginAsyncSpanEvent", "EndThreadSpanEvent": "EndAsyncSpanEvent"}


@dataclass(frozen=True)
class Recorded:
    """A recorded block, its uncompressed events, and where in them numbers stand that a copy may change."""

    block: Block
    dependencies: bytes
    events: bytes
    times: np.ndarray
    floats: np.ndarray
    digits: np.ndarray


def recorded(block: Block, stream: Stream) -> Recorded:
    payload = cbor2.loads(block.payload)
    events = lz4.frame.decompress(payload["objects"])
    times, floats, digits = [], [], []
    for layout, begin, end in walk(events, cbor2.loads(stream.objects_metadata)):
        members = {member["name"]: member["offset"] for member in layout["members"]}
        if layout["size"]:
            times.append(begin + members["time"])
            if layout["name"].endswith("FloatMetricEvent"):
                floats.append(begin + members["value"])
        else:
            # Description, maybe a property set, then the time and the text.
            text = begin + (24 if layout["name"] == "TaggedLogString" else 16)
            times.append(text - 8)
            digits += [at for at in range(text + STRING_HEADER, end) if 0x30 <= events[at] <= 0x39]
    places = (np.array(each, dtype=np.int64) for each in (times, floats, digits))
    return Recorded(block, lz4.frame.decompress(payload["dependencies"]), events, *places)


def walk(events: bytes, layouts: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Layout, begin and end of each event's body."""
    position = 0
    while position < len(events):
        layout = layouts[events[position]]
        position += 1
        size = layout["size"]
        if size == 0:
            (size,) = struct.unpack_from("<I", events, position)
            position += 4
        yield layout, position, position + size
        position += size


def as_async(spans: Recorded, stream: Stream) -> Recorded:
    """The same spans as asynchronous ones, each a child of the one around it; named spans are left out."""
    layouts = cbor2.loads(stream.objects_metadata)
    index = {layout["name"]: number for number, layout in enumerate(layouts)}
    out = bytearray()
    times: list[int] = []
    stack: list[int] = []
    last = 0
    for layout, begin, _ in walk(spans.events, layouts):
        name = ASYNC_OF_THREAD.get(layout["name"])
        if name is None:
            continue
        description, ticks = struct.unpack_from("<Qq", spans.events, begin)
        if name.startswith("Begin"):
            last += 1
            stack.append(last)
        elif not stack:
            continue
        parent = stack[-2] if len(stack) > 1 else 0
        times.append(len(out) + 25)
        out += struct.pack("<BQQQqII", index[name], description, stack[-1], parent, ticks, len(stack), 0)
        if name.startswith("End"):
            stack.pop()
    empty = np.empty(0, dtype=np.int64)
    block = replace(spans.block, nb_objects=len(times))
    return Recorded(block, spans.dependencies, bytes(out), np.array(times), empty, empty)


def changed(original: Recorded, random: np.random.Generator, ids: dict[str, str], shift: int) -> Block:
    """A copy with other ids, times `shift` ns and some jitter later, other values and other digits in texts."""
    events = np.frombuffer(original.events, dtype=np.uint8).copy()

    def numbers(places: np.ndarray, kind: str) -> np.ndarray:
        return events[places[:, None] + np.arange(8)].view(kind)[:, 0]

    def put(places: np.ndarray, values: np.ndarray) -> None:
        events[places[:, None] + np.arange(8)] = values[:, None].view(np.uint8).reshape(-1, 8)

    times = numbers(original.times, "<i8")
    gaps = np.diff(times, append=times[-1] + 2)
    put(original.times, times + (random.random(len(times)) * np.maximum(gaps, 0) * 0.9).astype(np.int64))
    if len(original.floats):
        values = numbers(original.floats, "<f8")
        put(original.floats, values * (1 + random.random(len(values))))
    events[original.digits] = 0x30 + random.integers(0, 10, len(original.digits))
    buffers = {"dependencies": original.dependencies, "objects": events.tobytes()}
    block = original.block
    return replace(
        block,
        block_id=str(uuid.UUID(bytes=random.bytes(16), version=4)),
        stream_id=ids[block.stream_id],
        process_id=ids[block.process_id],
        begin_time=block.begin_time + shift,
        end_time=block.end_time + shift,
        payload=cbor2.dumps({name: lz4.frame.compress(buffer) for name, buffer in buffers.items()}),
    )


def ingest(lake: Lake, scenario: Batch, copies: int, *, asynchronous: bool) -> list[str]:
    """Put copies of the recorded process into the lake; returns the ids of the processes."""
    random = np.random.default_rng(1)
    process = scenario.processes[0]
    streams = {stream.stream_id: stream for stream in scenario.streams}
    originals = [recorded(block, streams[block.stream_id]) for block in scenario.blocks]
    if asynchronous:
        spans = [each for each in originals if "cpu" in streams[each.block.stream_id].tags]
        originals = [as_async(each, streams[each.block.stream_id]) for each in spans]
    processes = []
    for copy in range(copies):
        ids = {old: str(uuid.UUID(bytes=random.bytes(16), version=4)) for old in (process.process_id, *streams)}
        shift = copy * SHIFT_NS
        processes.append(ids[process.process_id])
        lake.commit(
            Batch(
                [replace(process, process_id=processes[-1], start_time=process.start_time + shift)],
                [replace(each, stream_id=ids[each.stream_id], process_id=processes[-1]) for each in scenario.streams],
                [changed(each, random, ids, shift) for each in originals],
            )
        )
    return processes


@dataclass(frozen=True)
class Cost:
    """CPU seconds of the whole way and of pyarrow alone, for the same rows."""

    events: int
    rows: int
    file_bytes: int
    whole: float
    alone: float


def measure(lake: Lake, view_set: ViewSet, instance_id: str, blocks: list[BlockRow]) -> Cost:
    """Build a partition of the blocks; then write its rows again, taken from the decoder beforehand."""
    insert_range = InsertRange(blocks[0].insert_time, blocks[-1].insert_time + 1)
    replaces = frozenset(each.partition_id for each in lake.metadata.partitions(view_set.name, instance_id))
    begin = time.process_time()
    partition = build_partition(lake, PartitionSlot(view_set, instance_id, insert_range, replaces), blocks)
    whole = time.process_time() - begin
    tables = [pa.Table.from_batches([batch]) for batch in DecodedBlocks(lake, view_set, instance_id, blocks)]
    if instance_id == GLOBAL_INSTANCE:
        tables = [in_time_order(table, view_set.min_column) for table in tables]
    with tempfile.TemporaryDirectory() as folder:
        row_file = RowFile(Path(folder) / "rows.parquet", view_set)
        begin = time.process_time()
        for table in tables:
            row_file.write(table)
        row_file.close()
        alone = time.process_time() - begin
    events = sum(block.nb_objects for block in blocks)
    return Cost(events, partition.num_rows, partition.file_size, whole, alone)


def report(view_set: ViewSet, runs: list[list[Cost]]) -> bool:
    """One line: medians over the runs of the sums over the instances. Whether the aim is met."""
    whole = statistics.median(sum(cost.whole for cost in run) for run in runs)
    alone = statistics.median(sum(cost.alone for cost in run) for run in runs)
    events, rows, file_bytes = (
        sum(getattr(cost, name) for cost in runs[0]) for name in ("events", "rows", "file_bytes")
    )
    per_million = whole / events * 1e6
    print(
        f"{view_set.name:<13}{events:>11,} events{rows:>11,} rows {per_million:6.2f} CPU-s/M events, "
        f"pyarrow alone {alone / events * 1e6:5.2f}, ratio {whole / alone:4.2f}, {file_bytes / rows:5.1f} bytes/row"
    )
    return per_million <= AIM


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("scenario", type=Path, help="folder of recorded requests (the service vector)")
    arguments.add_argument("--copies", type=int, default=20, help="processes made of the recorded one")
    arguments.add_argument("--runs", type=int, default=3)
    options = arguments.parse_args()
    scenario = load_scenario(options.scenario)
    within = True
    with tempfile.TemporaryDirectory(prefix="micromegas-bench-") as folder:
        with Lake.open(LakeSettings(lake_dir=Path(folder) / "lake")) as lake:
            processes = ingest(lake, scenario, options.copies, asynchronous=False)
            for view_set in (LOG_ENTRIES, MEASURES):
                blocks = lake.metadata.blocks(tag=decoded_from(view_set).stream_tag)
                runs = [[measure(lake, view_set, GLOBAL_INSTANCE, blocks)] for _ in range(options.runs)]
                within &= report(view_set, runs)
            threads = {
                stream.stream_id: lake.metadata.blocks(stream_id=stream.stream_id)
                for process_id in processes[: max(options.copies // 4, 1)]
                for stream in lake.metadata.stream_rows(process_id=process_id, tag="cpu")
            }
            runs = [
                [measure(lake, THREAD_SPANS, stream_id, blocks) for stream_id, blocks in threads.items() if blocks]
                for _ in range(options.runs)
            ]
            within &= report(THREAD_SPANS, runs)
        with Lake.open(LakeSettings(lake_dir=Path(folder) / "async")) as lake:
            processes = ingest(lake, scenario, max(options.copies // 4, 1), asynchronous=True)
            runs = [
                [
                    measure(lake, ASYNC_EVENTS, process_id, lake.metadata.blocks(process_id=process_id, tag="cpu"))
                    for process_id in processes
                ]
                for _ in range(options.runs)
            ]
            within &= report(ASYNC_EVENTS, runs)
    print(f"within {AIM} CPU-s per million events: {'yes' if within else 'no'}")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
