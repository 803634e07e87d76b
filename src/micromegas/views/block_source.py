"""A block with everything that is needed to make rows of it: its process, its stream, its payload and its clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from micromegas.lake import BlockRow, Metadata, ProcessRow, StreamRow
from micromegas.wire import READABLE_FORMATS

SECOND = 1_000_000_000

Clock = tuple[int, int]
"""`(end_ticks, end_time)` of the newest block of a process: relative ticks, ns since the epoch."""


@dataclass(frozen=True, slots=True)
class BlockSource:
    """One block as the native builders read it.

    Times are ns since the epoch. `begin_ticks` and `end_ticks` are relative to `start_ticks`, events carry the absolute
    counter. `frequency` is in ticks per second and positive. `format` says how the payload is encoded. In blocks of
    OTLP all ticks are ns since the epoch.
    """

    process_id: str
    stream_id: str
    block_id: str
    insert_time: int
    exe: str
    username: str
    computer: str
    process_properties: dict[str, str]
    start_time: int
    start_ticks: int
    frequency: int
    begin_ticks: int
    end_ticks: int
    begin_time: int
    end_time: int
    nb_objects: int
    object_offset: int
    format: str
    dependencies_metadata: bytes
    objects_metadata: bytes
    payload: bytes


def clock_frequency(process: ProcessRow, latest: Clock | None, widest: BlockRow | None = None) -> int:
    """Ticks per second of a process's counter: as announced, or estimated once per build from its newest block, so that
    all views of a process agree. As long as that block tells nothing (the first one of a process may end before the
    process has looked at its clock), from the begin and end of `widest`. Raises `ValueError` when nothing gives a
    positive number."""
    if process.tsc_frequency > 0:
        return process.tsc_frequency
    if latest is None:
        raise ValueError(f"process {process.process_id}: clock frequency unknown and no block to estimate it from")
    end_ticks, end_time = latest
    frequency = _estimate(end_ticks, end_time - process.start_time)
    if frequency <= 0 and widest is not None:
        frequency = _estimate(widest.end_ticks - widest.begin_ticks, widest.end_time - widest.begin_time)
    if frequency <= 0:
        raise ValueError(
            f"process {process.process_id}: no frequency can be estimated "
            f"from {end_ticks} ticks in {end_time - process.start_time} nanoseconds"
        )
    return frequency


def _estimate(ticks: int, elapsed: int) -> int:
    """round(ticks / seconds), halves up, without going through doubles; 0 or less when it can't be."""
    return (2 * ticks * SECOND + elapsed) // (2 * elapsed) if elapsed > 0 else 0


@dataclass(frozen=True, slots=True)
class BlockContext:
    """The processes, streams and clocks behind a set of blocks, read once for all of them."""

    processes: Mapping[str, ProcessRow]
    streams: Mapping[str, StreamRow]
    clocks: Mapping[str, Clock]
    widest: Mapping[str, BlockRow]
    """By process, the block of the set with most ticks from begin to end."""

    @staticmethod
    def read(metadata: Metadata, blocks: Sequence[BlockRow]) -> BlockContext:
        processes = metadata.processes(_distinct(block.process_id for block in blocks))
        streams = metadata.streams(_distinct(block.stream_id for block in blocks))
        unknown = [process_id for process_id, process in processes.items() if process.tsc_frequency <= 0]
        widest: dict[str, BlockRow] = {}
        for block in blocks:
            known = widest.setdefault(block.process_id, block)
            if block.end_ticks - block.begin_ticks > known.end_ticks - known.begin_ticks:
                widest[block.process_id] = block
        return BlockContext(processes, streams, metadata.latest_clock(unknown) if unknown else {}, widest)

    def source(self, block: BlockRow, payload: bytes) -> BlockSource:
        """The block with its surroundings; `ValueError` when it can't be decoded for want of them."""
        process = self.processes.get(block.process_id)
        stream = self.streams.get(block.stream_id)
        if process is None or stream is None:
            raise ValueError(f"block {block.block_id}: its process or stream is not in the lake any more")
        if stream.format not in READABLE_FORMATS:
            raise ValueError(
                f"block {block.block_id} of stream {block.stream_id}: format {stream.format!r} is not known"
            )
        return BlockSource(
            process_id=block.process_id,
            stream_id=block.stream_id,
            block_id=block.block_id,
            insert_time=block.insert_time,
            exe=process.exe,
            username=process.username,
            computer=process.computer,
            process_properties=process.properties,
            start_time=process.start_time,
            start_ticks=process.start_ticks,
            frequency=clock_frequency(process, self.clocks.get(block.process_id), self.widest.get(block.process_id)),
            begin_ticks=block.begin_ticks,
            end_ticks=block.end_ticks,
            begin_time=block.begin_time,
            end_time=block.end_time,
            nb_objects=block.nb_objects,
            object_offset=block.object_offset,
            format=stream.format,
            dependencies_metadata=stream.dependencies_metadata,
            objects_metadata=stream.objects_metadata,
            payload=payload,
        )


def _distinct(ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(ids))
