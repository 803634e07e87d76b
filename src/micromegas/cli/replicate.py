"""`micromegas replicate FROM TO`: copies what one server has to another, by what every server offers: SQL and bulk
ingestion. It may be ended and given again at any time: blocks that are there already are left out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from micromegas.cli.administration import ReplicateFlags
from micromegas.cli.connection import connected
from micromegas.cli.errors import CliError
from micromegas.cli.options import Connection
from micromegas.cli.process_lookup import known_process
from micromegas.cli.progress import progress
from micromegas.cli.times import parse_time
from micromegas.client import Client
from micromegas.client.sql_literal import text_literal

_BLOCK = """block_id, stream_id, process_id, begin_time, begin_ticks, end_time, end_ticks, nb_objects, object_offset,
    payload_size"""
_CHUNK_BLOCKS = 256
_CHUNK_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class Replicated:
    """What was copied; `present` blocks were there already."""

    processes: int = 0
    streams: int = 0
    blocks: int = 0
    payload_bytes: int = 0
    present: int = 0


def run_replicate(flags: ReplicateFlags) -> None:
    """Copies and tells how much; raises `CliError` with the next step for whatever goes wrong."""
    now = time.time_ns()
    begin = None if flags.begin is None else parse_time("--begin", flags.begin, now)
    end = None if flags.end is None else parse_time("--end", flags.end, now)
    with ExitStack() as stack:
        source = stack.enter_context(connected(_named(flags.source, flags.source_key)))
        target = stack.enter_context(connected(_named(flags.target, flags.target_key)))
        condition = "true"
        if flags.process is not None:
            condition = f"process_id = {text_literal(known_process(source, flags.process).process_id)}"
        done = _copy(source, target, condition, begin, end)
    if flags.as_json:
        print(json.dumps(asdict(done)))
    else:
        sys.stdout.write(
            f"{done.blocks} blocks ({done.payload_bytes} bytes) of {done.streams} streams"
            f" and {done.processes} processes copied, {done.present} blocks were there already\n"
        )


def _named(place: str, key: str | None) -> Connection:
    """An address has its key beside it, a profile within. What the environment says of servers is of neither."""
    if "://" in place:
        return Connection(place, key, None, uses_environment=False)
    return Connection(None, key, place, uses_environment=False)


def _copy(source: Client, target: Client, condition: str, begin: int | None, end: int | None) -> Replicated:
    blocks = source.query(f"SELECT {_BLOCK} FROM blocks WHERE {condition} ORDER BY insert_time", begin, end)
    # what was copied there was inserted later than here, so that the same range holds it
    there = target.query(f"SELECT block_id FROM blocks WHERE {condition}", begin, end)["block_id"]
    missing = blocks.filter(pc.invert(pc.is_in(blocks["block_id"], value_set=there.combine_chunks())))
    done = Replicated(present=blocks.num_rows - missing.num_rows)
    done.processes = _copy_announcements("processes", "process_id", source, target, missing)
    done.streams = _copy_announcements("streams", "stream_id", source, target, missing)
    with progress("replicate", pc.sum(missing["payload_size"]).as_py() or 0, is_bytes=True) as advance:
        for chunk in _chunks(missing):
            target.bulk_ingest("blocks", chunk)
            payloads = _payloads(source, chunk)
            target.bulk_ingest("payloads", payloads)
            size = sum(len(each.as_buffer()) for each in payloads["payload"])
            done.blocks += chunk.num_rows
            done.payload_bytes += size
            advance(size)
    return done


def _copy_announcements(table: str, key: str, source: Client, target: Client, blocks: pa.Table) -> int:
    """The processes or streams of the blocks; how many."""
    wanted = pc.unique(blocks[key]).to_pylist()
    for first in range(0, len(wanted), _CHUNK_BLOCKS):
        ids = ", ".join(map(text_literal, wanted[first : first + _CHUNK_BLOCKS]))
        target.bulk_ingest(table, source.query(f"SELECT * FROM {table} WHERE {key} IN ({ids})"))
    return len(wanted)


def _chunks(blocks: pa.Table) -> Iterator[pa.Table]:
    """Not too many blocks at once, nor too many bytes; a large one goes by itself."""
    begin = size = 0
    for position, each in enumerate(blocks["payload_size"].to_pylist()):
        if position > begin and (size + each > _CHUNK_BYTES or position - begin == _CHUNK_BLOCKS):
            yield blocks.slice(begin, position - begin)
            begin, size = position, 0
        size += each
    if begin < blocks.num_rows:
        yield blocks.slice(begin)


def _payloads(source: Client, blocks: pa.Table) -> pa.Table:
    """Asked for by their ids alone, so that the source has nothing to search."""
    keys = ("process_id", "stream_id", "block_id")
    rows = ", ".join(
        f"({', '.join(map(text_literal, ids))})" for ids in zip(*(blocks[key].to_pylist() for key in keys), strict=True)
    )
    names = ", ".join(keys)
    payloads = source.query(f"SELECT {names}, get_payload({names}) AS payload FROM (VALUES {rows}) AS b ({names})")
    if payloads.num_rows != blocks.num_rows:
        raise CliError(f"the source sent {payloads.num_rows} payloads for {blocks.num_rows} blocks: try again")
    return payloads
