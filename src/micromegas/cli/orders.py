"""`micromegas materialize` and `micromegas retire`: orders to a server, written as the SQL that they are. Their log
appears as the work goes on: an order over a long range is given hour by hour."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

import pyarrow as pa

from micromegas.cli.administration import OrderFlags
from micromegas.cli.connection import connected
from micromegas.cli.options import Connection
from micromegas.cli.progress import progress
from micromegas.cli.rows import write_rows
from micromegas.cli.times import parse_time
from micromegas.client.sql_literal import text_literal
from micromegas.wire import rfc3339_text
from micromegas.wire.row_formats import iso_time

_PIECE_SECONDS = 3600


def run_materialize(connection: Connection, flags: OrderFlags, delta: int, *, again: bool, as_json: bool) -> None:
    """Prints the log of the order; raises `CliError` for whatever goes wrong."""
    first, last = _range(flags)
    name = "regenerate_partitions" if again else "materialize_partitions"
    pieces = [(first, last)]
    if not again:  # what is made again is checked as a whole before anything is done
        step = delta * 1_000_000_000
        longest = -(-_PIECE_SECONDS // delta) * step
        # a rest that is shorter than a partition is ignored, as it is of a whole range
        whole = first + (last - first) // step * step
        pieces = [(piece, min(piece + longest, whole)) for piece in range(first, whole, longest)] or pieces
    calls = [f"{name}({text_literal(flags.view_set)}, {_times(*piece)}, {delta})" for piece in pieces]
    _print_log(connection, calls, as_json)


def run_retire(connection: Connection, flags: OrderFlags, instance: str, *, as_json: bool) -> None:
    """Prints the log of the order; raises `CliError` for whatever goes wrong."""
    texts = f"{text_literal(flags.view_set)}, {text_literal(instance)}"
    call = f"retire_partitions({texts}, {_times(*_range(flags))})"
    _print_log(connection, [call], as_json)


def _print_log(connection: Connection, calls: list[str], as_json: bool) -> None:
    """A line per step, or an object of JSON."""
    with connected(connection) as client, progress("orders", len(calls)) as advance:
        for call in calls:
            with client.stream(f"SELECT time, msg FROM {call}") as log:
                if as_json:
                    write_rows(log, log.schema, "jsonl")
                else:
                    _write_lines(log)
            advance(1)


def _write_lines(log: Iterable[pa.RecordBatch]) -> None:
    for batch in log:
        for moment, line in zip(batch["time"], batch["msg"], strict=True):
            sys.stdout.write(f"{iso_time(moment.value, utc=True)}  {line}\n")
        sys.stdout.flush()


def _range(flags: OrderFlags) -> tuple[int, int]:
    now = time.time_ns()
    return parse_time("--begin", flags.begin, now), parse_time("--end", flags.end, now)


def _times(begin: int, end: int) -> str:
    return f"{text_literal(rfc3339_text(begin))}, {text_literal(rfc3339_text(end))}"
