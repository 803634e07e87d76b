"""The commands that ask a server, and their flags. Bodies live in modules of their own, imported when a command
runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from micromegas.cli.flag_groups import command
from micromegas.cli.options import (
    AnyProcess,
    Begin,
    BeginInLife,
    Connection,
    End,
    ExePart,
    Process,
    RowFlags,
    TargetPart,
)

PANEL = "Questions"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryFlags:
    """What to ask, and where to write the rows."""

    sql: Annotated[str | None, typer.Argument(help="The statement; - reads it from standard input.")] = None
    file: Annotated[Path | None, typer.Option("--file", help="Read the statement from here; - as above.")] = None
    begin: Begin = None
    end: End = None
    limit: Annotated[int | None, typer.Option("--limit", help="At most this many rows.", min=0)] = None
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None


def query(flags: QueryFlags, rows: RowFlags, connection: Connection) -> None:
    """Asks a server in SQL."""
    from micromegas.cli.query import run_query

    run_query(connection, flags, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessesFlags:
    """Which processes."""

    begin: Annotated[str, typer.Option("--begin", "--since", help="Those that sent something from then on.")] = "1d"
    end: Annotated[str, typer.Option("--end", "--until", help="Those that began until then.")] = "now"
    exe: ExePart = None
    username: Annotated[str | None, typer.Option("--username", help="Part of the user's name.")] = None
    computer: Annotated[str | None, typer.Option("--computer", help="Part of the computer's name.")] = None
    limit: Annotated[int, typer.Option("--limit", help="At most this many.", min=0)] = 1000


def processes(flags: ProcessesFlags, rows: RowFlags, connection: Connection) -> None:
    """Which programs sent something, the latest first."""
    from micromegas.cli.processes import run_processes

    run_processes(connection, flags, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsFlags:
    """Which log events, and how they are shown: as lines unless a format is named."""

    process: AnyProcess = None
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what arrives, until Ctrl-C.")] = False
    begin: BeginInLife = None
    end: End = None
    first: Annotated[int | None, typer.Option("--first", help="The first so many events.", min=0)] = None
    last: Annotated[int | None, typer.Option("--last", "-n", help="The last so many; default: 1000.", min=0)] = None
    level: Annotated[str | None, typer.Option("--level", help="This level (such as warn, or 3) and worse.")] = None
    target: TargetPart = None
    text: Annotated[str | None, typer.Option("--msg", help="Part of the text, in any case.")] = None
    exe: ExePart = None
    interval: Annotated[float, typer.Option("--interval", help="Seconds between two looks.", min=0.05)] = 1.0
    color: Annotated[str, typer.Option("--color", help="auto, always or never.")] = "auto"
    format: Annotated[
        str | None, typer.Option("--format", help="table, json, jsonl, csv, arrow or parquet; default: a line each.")
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="As JSON; with --follow an object per line.")] = False


def logs(flags: LogsFlags, connection: Connection) -> None:
    """Log events, of all processes or one."""
    from micromegas.cli.logs import run_logs

    run_logs(connection, flags)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsFlags:
    """Which measures, and whether one is drawn."""

    process: AnyProcess = None
    name: Annotated[str | None, typer.Option("--name", help="Draw this measure over time.")] = None
    statistics: Annotated[bool, typer.Option("--stats", help="Sums instead of the drawing.")] = False
    begin: BeginInLife = None
    end: End = None
    target: TargetPart = None
    exe: ExePart = None
    limit: Annotated[int, typer.Option("--limit", help="At most this many measures in sums.", min=0)] = 1024


def metrics(flags: MetricsFlags, rows: RowFlags, connection: Connection) -> None:
    """Measures, of all processes or one: what they came to, or one of them drawn over time."""
    from micromegas.cli.metrics import run_metrics

    run_metrics(connection, flags, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpansFlags:
    """Which spans of a process, and whether they are summed up."""

    process: Process
    begin: Begin = None
    end: End = None
    types: Annotated[str, typer.Option("--types", help="thread, async or both.")] = "both"
    name: Annotated[str | None, typer.Option("--name", help="Part of the span's name, in any case.")] = None
    thread: Annotated[str | None, typer.Option("--thread", help="Part of the thread's name, in any case.")] = None
    minimum_ms: Annotated[float | None, typer.Option("--min-ms", help="Spans of at least this long.", min=0)] = None
    longest: Annotated[bool, typer.Option("--longest", help="Spans one by one, the longest first.")] = False
    limit: Annotated[int, typer.Option("--limit", help="At most this many rows.", min=0)] = 50


def spans(flags: SpansFlags, rows: RowFlags, connection: Connection) -> None:
    """Where the time of a process went, by name of span."""
    from micromegas.cli.spans import run_spans

    run_spans(connection, flags, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFlags:
    """What of a process goes into the file, and which file."""

    process: Process
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file; default: PROCESS.perfetto-trace.")
    ] = None
    begin: Begin = None
    end: End = None
    types: Annotated[
        str, typer.Option("--types", help="thread, async, both, measures, logs or all; several with commas.")
    ] = "all"
    as_json: Annotated[bool, typer.Option("--json", help="Tell of the file in JSON.")] = False


def trace(flags: TraceFlags, connection: Connection) -> None:
    """Writes what a process did as a file for ui.perfetto.dev; without times, all of it."""
    from micromegas.cli.trace import run_trace

    run_trace(connection, flags)


def views(
    *,
    name: Annotated[str | None, typer.Argument(help="The view whose columns to show; default: all views.")] = None,
    rows: RowFlags,
    connection: Connection,
) -> None:
    """What can be asked: the views, or the columns of one."""
    from micromegas.cli.views import run_views

    run_views(connection, name, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionsFlags:
    """Which partitions."""

    view_set: Annotated[str | None, typer.Argument(help="List those of this view; default: sums of each.")] = None
    instance: Annotated[str | None, typer.Option("--instance", help="global, or id of process or stream.")] = None
    begin: Annotated[str | None, typer.Option("--begin", "--since", help="Inserted from this time on.")] = None
    end: Annotated[str | None, typer.Option("--end", "--until", help="Inserted until then.")] = None


def partitions(flags: PartitionsFlags, rows: RowFlags, connection: Connection) -> None:
    """Which rows are kept in files: of which view, since when, how many."""
    from micromegas.cli.views import run_partitions

    run_partitions(connection, flags, rows)


ProfileName = Annotated[
    str | None, typer.Option("--profile", help="Whose issuer it is about; else MICROMEGAS_PROFILE, or the default's.")
]


def login(
    *,
    profile: ProfileName = None,
    device: Annotated[
        bool, typer.Option("--device", help="By a code that is typed in on another device, not in a browser here.")
    ] = False,
) -> None:
    """Signs in as a person at the issuer of a profile, anew; the commands that follow are theirs."""
    from micromegas.cli.sign_in import run_login

    run_login(profile, device=device)


def logout(*, profile: ProfileName = None) -> None:
    """Forgets who is signed in by a profile, or without one by any."""
    from micromegas.cli.sign_in import run_logout

    run_logout(profile)


def add_questions(app: typer.Typer) -> None:
    """Makes them commands of `app`."""
    for function in (query, processes, logs, metrics, spans, trace, views, partitions, login, logout):
        command(app, panel=PANEL)(function)
