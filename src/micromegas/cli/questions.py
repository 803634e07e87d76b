"""The commands that ask a server, and their flags. Bodies live in modules of their own, imported when a command
runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from micromegas.cli.options import (
    AnyApiKey,
    AnyProcess,
    Begin,
    End,
    Format,
    Json,
    Process,
    Profile,
    Server,
)

PANEL = "Questions"


def query(
    *,
    sql: Annotated[str | None, typer.Argument(help="The statement; - reads it from standard input.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Read the statement from here; - as above.")] = None,
    begin: Begin = None,
    end: End = None,
    limit: Annotated[int | None, typer.Option("--limit", help="At most this many rows.", min=0)] = None,
    format: Format = None,
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    server: Server = None,
    api_key: AnyApiKey = None,
    profile: Profile = None,
) -> None:
    """Asks a server in SQL."""
    from micromegas.cli.connection import Connection
    from micromegas.cli.query import QueryFlags, run_query

    run_query(Connection(server, api_key, profile), QueryFlags(sql, file, begin, end, limit, format, as_json, output))


def processes(
    *,
    begin: Annotated[str, typer.Option("--begin", "--since", help="Those that sent something from then on.")] = "1d",
    end: Annotated[str, typer.Option("--end", "--until", help="Those that began until then.")] = "now",
    exe: Annotated[str | None, typer.Option("--exe", help="Part of the program's path, in any case.")] = None,
    username: Annotated[str | None, typer.Option("--username", help="Part of the user's name.")] = None,
    computer: Annotated[str | None, typer.Option("--computer", help="Part of the computer's name.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="At most this many.", min=0)] = 1000,
    format: Format = None,
    as_json: Json = False,
    server: Server = None,
    api_key: AnyApiKey = None,
    profile: Profile = None,
) -> None:
    """Which programs sent something, the latest first."""
    from micromegas.cli.connection import Connection
    from micromegas.cli.processes import ProcessesFlags, run_processes

    flags = ProcessesFlags(begin, end, exe, username, computer, limit, format, as_json)
    run_processes(Connection(server, api_key, profile), flags)


def logs(
    *,
    process: AnyProcess = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what arrives, until Ctrl-C.")] = False,
    begin: Annotated[
        str | None,
        typer.Option("--begin", "--since", help="From this time on; default: 1h, or the life of the process."),
    ] = None,
    end: End = None,
    first: Annotated[int | None, typer.Option("--first", help="The first so many events.", min=0)] = None,
    last: Annotated[int | None, typer.Option("--last", "-n", help="The last so many; default: 1000.", min=0)] = None,
    level: Annotated[str | None, typer.Option("--level", help="This level (such as warn, or 3) and worse.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Part of the target, in any case.")] = None,
    text: Annotated[str | None, typer.Option("--msg", help="Part of the text, in any case.")] = None,
    exe: Annotated[str | None, typer.Option("--exe", help="Part of the program's path, in any case.")] = None,
    interval: Annotated[float, typer.Option("--interval", help="Seconds between two looks.", min=0.05)] = 1.0,
    color: Annotated[str, typer.Option("--color", help="auto, always or never.")] = "auto",
    format: Annotated[
        str | None, typer.Option("--format", help="table, json, jsonl, csv, arrow or parquet; default: a line each.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON; with --follow an object per line.")] = False,
    server: Server = None,
    api_key: AnyApiKey = None,
    profile: Profile = None,
) -> None:
    """Log events, of all processes or one."""
    from micromegas.cli.connection import Connection
    from micromegas.cli.logs import LogsFlags, run_logs

    flags = LogsFlags(
        process, begin, end, first, last, level, target, text, exe, follow, interval, color, format, as_json
    )
    run_logs(Connection(server, api_key, profile), flags)


def metrics(
    *,
    process: AnyProcess = None,
    name: Annotated[str | None, typer.Option("--name", help="Draw this measure over time.")] = None,
    statistics: Annotated[bool, typer.Option("--stats", help="Sums instead of the drawing.")] = False,
    begin: Annotated[
        str | None,
        typer.Option("--begin", "--since", help="From this time on; default: 1h, or the life of the process."),
    ] = None,
    end: End = None,
    target: Annotated[str | None, typer.Option("--target", help="Part of the target, in any case.")] = None,
    exe: Annotated[str | None, typer.Option("--exe", help="Part of the program's path, in any case.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="At most this many measures in sums.", min=0)] = 1024,
    format: Format = None,
    as_json: Json = False,
    server: Server = None,
    api_key: AnyApiKey = None,
    profile: Profile = None,
) -> None:
    """Measures, of all processes or one: what they came to, or one of them drawn over time."""
    from micromegas.cli.connection import Connection
    from micromegas.cli.metrics import MetricsFlags, run_metrics

    flags = MetricsFlags(process, begin, end, name, target, exe, statistics, limit, format, as_json)
    run_metrics(Connection(server, api_key, profile), flags)


def spans(
    *,
    process: Process,
    begin: Begin = None,
    end: End = None,
    types: Annotated[str, typer.Option("--types", help="thread, async or both.")] = "both",
    name: Annotated[str | None, typer.Option("--name", help="Part of the span's name, in any case.")] = None,
    thread: Annotated[str | None, typer.Option("--thread", help="Part of the thread's name, in any case.")] = None,
    minimum_ms: Annotated[float | None, typer.Option("--min-ms", help="Spans of at least this long.", min=0)] = None,
    longest: Annotated[bool, typer.Option("--longest", help="Spans one by one, the longest first.")] = False,
    limit: Annotated[int, typer.Option("--limit", help="At most this many rows.", min=0)] = 50,
    format: Format = None,
    as_json: Json = False,
    server: Server = None,
    api_key: AnyApiKey = None,
    profile: Profile = None,
) -> None:
    """Where the time of a process went, by name of span."""
    from micromegas.cli.connection import Connection
    from micromegas.cli.spans import SpansFlags, run_spans

    flags = SpansFlags(process, begin, end, types, name, thread, minimum_ms, longest, limit, format, as_json)
    run_spans(Connection(server, api_key, profile), flags)


def trace(
    *,
    process: Process,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file; default: PROCESS.perfetto-trace.")
    ] = None,
    begin: Begin = None,
    end: End = None,
    types: Annotated[
        str, typer.Option("--types", help="thread, async, both, measures, logs or all; several with commas.")
    ] = "all",
    as_json: Annotated[bool, typer.Option("--json", help="Tell of the file in JSON.")] = False,
    server: Server = None,
    api_key: AnyApiKey = None,
    profile: Profile = None,
) -> None:
    """Writes what a process did as a file for ui.perfetto.dev; without times, all of it."""
    from micromegas.cli.connection import Connection
    from micromegas.cli.trace import TraceFlags, run_trace

    run_trace(Connection(server, api_key, profile), TraceFlags(process, output, begin, end, types, as_json))


def views(
    *,
    name: Annotated[str | None, typer.Argument(help="The view whose columns to show; default: all views.")] = None,
    format: Format = None,
    as_json: Json = False,
    server: Server = None,
    api_key: AnyApiKey = None,
    profile: Profile = None,
) -> None:
    """What can be asked: the views, or the columns of one."""
    from micromegas.cli.connection import Connection
    from micromegas.cli.views import run_views

    run_views(Connection(server, api_key, profile), name, format, as_json)


def partitions(
    *,
    view_set: Annotated[str | None, typer.Argument(help="List those of this view; default: sums of each.")] = None,
    instance: Annotated[str | None, typer.Option("--instance", help="global, or id of process or stream.")] = None,
    begin: Annotated[str | None, typer.Option("--begin", "--since", help="Inserted from this time on.")] = None,
    end: Annotated[str | None, typer.Option("--end", "--until", help="Inserted until then.")] = None,
    format: Format = None,
    as_json: Json = False,
    server: Server = None,
    api_key: AnyApiKey = None,
    profile: Profile = None,
) -> None:
    """Which rows are kept in files: of which view, since when, how many."""
    from micromegas.cli.connection import Connection
    from micromegas.cli.views import PartitionsFlags, run_partitions

    run_partitions(
        Connection(server, api_key, profile), PartitionsFlags(view_set, instance, begin, end, format, as_json)
    )


def add_questions(app: typer.Typer) -> None:
    """Makes them commands of `app`."""
    for function in (query, processes, logs, metrics, spans, trace, views, partitions):
        app.command(rich_help_panel=PANEL)(function)
