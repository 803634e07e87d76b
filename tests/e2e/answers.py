"""SQL answers in the form of the reference's rows, and the comparison of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import pyarrow as pa
from e2e.reference import EventRows, ProcessReference, Properties, Row, comparable_double, in_seconds

from micromegas.lake import Metadata, clock_of

LOG_COLUMNS = (
    "process_id, stream_id, block_id, exe, username, computer, time, target, level, msg, properties, process_properties"
)
MEASURE_COLUMNS = (
    "process_id, stream_id, block_id, exe, username, computer, time, target, name, unit, value, properties, "
    "process_properties"
)
ASYNC_COLUMNS = (
    "stream_id, block_id, time, event_type, span_id, parent_span_id, depth, hash, name, filename, target, line"
)
SPAN_COLUMNS = 'id, parent, depth, hash, begin, "end", duration, name, target, filename, line'
SHOWN_DIFFERENCES = 5

JSONB_OBJECT = 0x40000000
JSONB_STRING = 1


@cache
def properties_of(jsonb: bytes) -> Properties:
    """The pairs of a JSONB object whose values are all strings; `ValueError` for anything else."""
    header = int.from_bytes(jsonb[:4], "big")
    count = header & 0x1FFFFFFF
    if header & 0xE0000000 != JSONB_OBJECT:
        raise ValueError(f"no jsonb object: {jsonb!r}")
    entries = [int.from_bytes(jsonb[at : at + 4], "big") for at in range(4, 4 + 8 * count, 4)]
    if any(entry >> 28 != JSONB_STRING for entry in entries):
        raise ValueError(f"a jsonb object of more than strings: {jsonb!r}")
    texts = []
    at = 4 + 8 * count
    for entry in entries:
        length = entry & 0x0FFFFFFF
        texts.append(jsonb[at : at + length].decode())
        at += length
    if at != len(jsonb) or texts[:count] != sorted(texts[:count], key=str.encode) or len(set(texts[:count])) != count:
        raise ValueError(f"keys of a jsonb object unsorted, repeated, or bytes left: {jsonb!r}")
    return frozenset(zip(texts[:count], texts[count:], strict=True))


def rows_of(table: pa.Table) -> list[Row]:
    """The rows of an answer: times as ns, doubles by their bits, property sets as frozen sets."""
    columns = []
    units = table["unit"].to_pylist() if "unit" in table.column_names else []
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        if pa.types.is_timestamp(kind):
            assert (kind.unit, kind.tz) == ("ns", "+00:00"), f"column {name} is {kind}"
            columns.append(column.cast(pa.int64()).to_pylist())
        elif pa.types.is_binary(kind):
            columns.append([properties_of(value) for value in column.to_pylist()])
        elif name == "value":
            columns.append(
                [
                    in_seconds(value) if unit == "seconds" else comparable_double(value)
                    for value, unit in zip(column.to_pylist(), units, strict=True)
                ]
            )
        else:
            columns.append(column.to_pylist())
    return list(zip(*columns, strict=True))


def assert_same_rows(actual: Iterable[Row], expected: Counter[Row], what: str) -> None:
    """Both hold the same rows, each as often."""
    found = Counter(actual)
    if found == expected:
        return
    missing, extra = expected - found, found - expected
    lines = [f"{what}: {missing.total()} of {expected.total()} rows missing, {extra.total()} too many"]
    lines += [f"  missing {row!r}"[:600] for row in list(missing)[:SHOWN_DIFFERENCES]]
    lines += [f"  extra   {row!r}"[:600] for row in list(extra)[:SHOWN_DIFFERENCES]]
    raise AssertionError("\n".join(lines))


def assert_event_rows(
    actual: Iterable[Row],
    block_column: int,
    processes: Mapping[str, ProcessReference],
    tag: str,
    rows_of_block: EventRows,
) -> None:
    """`actual` holds exactly the rows of all events of the processes' streams with a tag."""
    by_block: dict[str, list[Row]] = {}
    for row in actual:
        by_block.setdefault(row[block_column], []).append(row)
    for process in processes.values():
        for block in process.blocks_tagged(tag):
            block_id = block.header["block_id"]
            found = Counter(by_block.pop(block_id, []))
            expected = Counter(rows_of_block(process, block))
            assert_same_rows(found.elements(), expected, f"block {block_id} of process {process.process_id}")
    assert not by_block, f"rows of blocks that nobody sent: {list(by_block)[:SHOWN_DIFFERENCES]}"


def know_clocks(metadata: Metadata, processes: Mapping[str, ProcessReference]) -> None:
    """Tells the references what a lake measured while their blocks came in."""
    for process_id, row in metadata.processes(processes).items():
        clock = clock_of(row)
        assert clock is not None, f"no clock of process {process_id}"
        processes[process_id].know_clock(clock.frequency, clock.later_rates)


def records(table: pa.Table) -> list[dict[str, Any]]:
    """An answer as dicts, times as ns."""
    columns = {
        name: (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
