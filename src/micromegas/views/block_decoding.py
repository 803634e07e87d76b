"""Blocks into rows, in bounded memory: payloads are fetched ahead in a thread while the builders decode.

A block that can't be decoded is named in `failures` and never hides its neighbours.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa

from micromegas.lake import CLOCK_UNKNOWN, BlockConditions, BlockRow, Lake, LakeCorrupt
from micromegas.views.block_rows import CarryingRows, RowsRequest
from micromegas.views.block_source import BlockContext, ClockUnknown
from micromegas.views.carried import CarriedIn, CarriedOut, in_tick_order
from micromegas.views.view_set import GLOBAL_INSTANCE, DecodedFrom, InstanceKind, ViewSet

ROW_GROUP_ROWS = 128 * 1024
# Rows may be long, and a few bytes of a block can stand for much text: rows alone would not bound a row group.
ROW_GROUP_BYTES = 64 * 1024 * 1024
# Two chunks are in memory at once: the one being decoded and the one being fetched.
_PAYLOAD_CHUNK_BYTES = 32 * 1024 * 1024
_PAYLOAD_CHUNK_BLOCKS = 2048

Payload = bytes | LakeCorrupt


@dataclass(frozen=True, slots=True)
class BlockFailure:
    """A block that gave no rows, or fewer than it should."""

    block_id: str
    error: str
    decoder_version: int
    """Of the view; `CLOCK_UNKNOWN` where it could not even begin."""


@dataclass(slots=True)
class DecodedBlocks:
    """Iterate to get record batches of the view's schema, each of at most about `row_group_rows` rows or
    `ROW_GROUP_BYTES` bytes plus one block.

    `failures` grows while iterating and is complete at the end; so is `carried_out`, for a view whose rows reach over
    partitions when `carried_in` tells what was before.
    """

    lake: Lake
    view_set: ViewSet
    instance_id: str
    blocks: Sequence[BlockRow]
    row_group_rows: int = ROW_GROUP_ROWS
    failures: list[BlockFailure] = field(default_factory=list)
    carried_in: CarriedIn | None = None
    carried_out: CarriedOut | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        decoded = decoded_from(self.view_set)
        blocks = self.blocks
        if decoded.sorted_by_ticks:
            blocks = sorted(blocks, key=in_tick_order)
        context = BlockContext.read(self.lake.metadata, blocks)
        properties: dict[str, str] = {}
        if self.view_set.instance_kind is InstanceKind.STREAM and self.instance_id in context.streams:
            properties = context.streams[self.instance_id].properties
        request = RowsRequest(self.instance_id, properties, self.carried_in)
        rows = decoded.new_rows(request)
        with closing(_payloads_ahead(self.lake, blocks)) as payloads:
            for block, payload in payloads:
                version = decoded.decoder_version
                try:
                    if isinstance(payload, LakeCorrupt):
                        raise payload
                    problems = rows.append(context.source(block, payload))
                except ClockUnknown as error:
                    problems, version = [str(error)], CLOCK_UNKNOWN
                except (ValueError, LakeCorrupt) as error:
                    problems = [str(error)]
                if problems:
                    self.failures.append(BlockFailure(block.block_id, "; ".join(problems), version))
                if rows.pending >= self.row_group_rows or (rows.pending and rows.estimated_bytes >= ROW_GROUP_BYTES):
                    yield self._checked(rows.take())
        last = rows.finish()
        if last.num_rows:
            yield self._checked(last)
        if isinstance(rows, CarryingRows):
            self.carried_out = rows.carried_out()

    def _checked(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if not batch.schema.equals(self.view_set.schema):
            raise TypeError(f"the builder of {self.view_set.name} made the schema {batch.schema}")
        return batch


def decoded_from(view_set: ViewSet) -> DecodedFrom:
    """How the view is decoded; `ValueError` for a view that isn't made of blocks."""
    if view_set.decoded is None:
        raise ValueError(f"view set {view_set.name} is not made of blocks")
    return view_set.decoded


def blocks_of(view_set: ViewSet, instance_id: str) -> BlockConditions:
    """Which blocks an instance is made of."""
    source: BlockConditions = {"tag": decoded_from(view_set).stream_tag}
    if instance_id == GLOBAL_INSTANCE:
        return source
    if view_set.instance_kind is InstanceKind.PROCESS:
        source["process_id"] = instance_id
    if view_set.instance_kind is InstanceKind.STREAM:
        source["stream_id"] = instance_id
    return source


def record_failures(lake: Lake, view_set: ViewSet, failures: Iterable[BlockFailure]) -> None:
    """Lists blocks among those without rows."""
    errors = [(failure.block_id, failure.error, failure.decoder_version) for failure in failures]
    if errors:
        lake.metadata.record_block_errors(view_set.name, errors)


def _payloads_ahead(lake: Lake, blocks: Sequence[BlockRow]) -> Generator[tuple[BlockRow, Payload], None, None]:
    chunks = _chunks(blocks)
    chunk = next(chunks, [])
    following = next(chunks, None)
    if following is None:
        # A thread costs more than it to fetch a few payloads.
        yield from zip(chunk, _fetch(lake, chunk), strict=True)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="payload-fetch") as fetcher:
        ahead = chunk, fetcher.submit(_fetch, lake, chunk)
        for chunk in itertools.chain([following], chunks):
            fetch = chunk, fetcher.submit(_fetch, lake, chunk)
            yield from zip(ahead[0], ahead[1].result(), strict=True)
            ahead = fetch
        yield from zip(ahead[0], ahead[1].result(), strict=True)


def _chunks(blocks: Sequence[BlockRow]) -> Iterator[list[BlockRow]]:
    chunk: list[BlockRow] = []
    size = 0
    for block in blocks:
        if chunk and (size + block.payload_size > _PAYLOAD_CHUNK_BYTES or len(chunk) >= _PAYLOAD_CHUNK_BLOCKS):
            yield chunk
            chunk, size = [], 0
        chunk.append(block)
        size += block.payload_size
    if chunk:
        yield chunk


def _fetch(lake: Lake, chunk: list[BlockRow]) -> list[Payload]:
    try:
        return list(lake.read_payloads(chunk))
    except LakeCorrupt:
        # At least one payload is missing or short: find out which, the others are good.
        return [_fetch_one(lake, block) for block in chunk]


def _fetch_one(lake: Lake, block: BlockRow) -> Payload:
    try:
        return lake.read_payload(block)
    except LakeCorrupt as error:
        return error
