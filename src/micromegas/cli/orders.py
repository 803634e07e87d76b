"""`micromegas materialize` and `micromegas retire`: orders to a server, written as the SQL that they are."""

from __future__ import annotations

import time

from micromegas.cli.query import QueryFlags, run_query
from micromegas.cli.times import parse_time
from micromegas.client.sql_literal import text_literal
from micromegas.wire import rfc3339_text


def run_materialize(
    view_set: str, begin: str, end: str, delta: int, *, again: bool, server: str, api_key: str | None
) -> None:
    """Prints the log of the order; raises `CliError` for whatever goes wrong."""
    name = "regenerate_partitions" if again else "materialize_partitions"
    _print_log(f"{name}({text_literal(view_set)}, {_range(begin, end)}, {delta})", server, api_key)


def run_retire(view_set: str, instance: str, begin: str, end: str, *, server: str, api_key: str | None) -> None:
    """Prints the log of the order; raises `CliError` for whatever goes wrong."""
    _print_log(
        f"retire_partitions({text_literal(view_set)}, {text_literal(instance)}, {_range(begin, end)})", server, api_key
    )


def _print_log(call: str, server: str, api_key: str | None) -> None:
    run_query(QueryFlags(f"SELECT * FROM {call}", None, None, None, None, None, server, api_key))


def _range(begin: str, end: str) -> str:
    now = time.time_ns()
    return ", ".join(
        text_literal(rfc3339_text(parse_time(flag, text, now))) for flag, text in (("--begin", begin), ("--end", end))
    )
