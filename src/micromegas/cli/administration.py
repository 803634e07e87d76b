"""The commands of who runs a deployment, and their flags. Bodies live in modules of their own, imported when a command
runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from micromegas.cli.flag_groups import command
from micromegas.cli.options import Connection, JsonLines, RowFlags
from micromegas.cli.service_options import EngineFlags, LakeFlags, RetentionFlags

PANEL = "Administration"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFlags:
    """Which partitions an order is about."""

    view_set: Annotated[str, typer.Argument(help="Such as log_entries.")]
    begin: Annotated[
        str, typer.Option("--begin", help="Insert time from which on: 1h, 7d (before now), or 2026-01-31T12:00Z.")
    ]
    end: Annotated[str, typer.Option("--end", help="Insert time up to which, likewise.")]


def materialize(
    *,
    flags: OrderFlags,
    delta: Annotated[int, typer.Option("--delta", help="Seconds of a partition.", min=1)] = 3600,
    again: Annotated[bool, typer.Option("--again", help="Make anew what is there already, too.")] = False,
    as_json: JsonLines = False,
    connection: Connection,
) -> None:
    """Makes the partitions of a view, as the daemon would (administrators only)."""
    from micromegas.cli.orders import run_materialize

    run_materialize(connection, flags, delta, again=again, as_json=as_json)


def retire(
    *,
    flags: OrderFlags,
    instance: Annotated[str, typer.Argument(help="global, or the id of a process or stream.")],
    as_json: JsonLines = False,
    connection: Connection,
) -> None:
    """Retires the partitions of a view that lie within a range (administrators only)."""
    from micromegas.cli.orders import run_retire

    run_retire(connection, flags, instance, as_json=as_json)


def retention(
    *,
    lake: LakeFlags,
    policies: RetentionFlags,
    engine: EngineFlags,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it now, as daemons do by themselves.")] = False,
    rows: RowFlags,
) -> None:
    """Shows what policies would delete now. Opens the lake itself, beside its servers."""
    from micromegas.cli.retention import run_retention
    from micromegas.cli.rows import chosen_format

    run_retention(lake, policies, engine, os.environ, chosen_format(rows), delete=delete)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorFlags:
    """What to look at, beside the server that answers queries."""

    url: Annotated[str, typer.Option("--url", envvar="MICROMEGAS_TELEMETRY_URL", help="Address of ingestion.")] = (
        "http://127.0.0.1:9000"
    )
    ingestion_key: Annotated[
        str | None,
        typer.Option("--ingestion-key", envvar="MICROMEGAS_INGESTION_API_KEY", help="Key that senders present."),
    ] = field(default=None, repr=False)
    api_url: Annotated[
        str | None,
        typer.Option("--api-url", help="Address of queries over HTTP; default: port 3000 beside the server."),
    ] = None
    pg: Annotated[
        str | None,
        typer.Option("--pg", metavar="HOST:PORT", help="Address of the PostgreSQL gateway, where there is one."),
    ] = None
    lake: Annotated[Path | None, typer.Option("--lake", help="Look at the folder of an embedded lake, too.")] = None
    spool: Annotated[
        str | None,
        typer.Option("--spool", envvar="MICROMEGAS_SPOOL_DIR", help="The spool of programs; else the user's."),
    ] = None


def doctor(flags: DoctorFlags, rows: RowFlags, connection: Connection) -> None:
    """Checks a deployment and says what is wrong with it; exit code 1 when something is."""
    from micromegas.cli.doctor import run_doctor

    run_doctor(connection, flags, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicateFlags:
    """From where to where, and what."""

    source: Annotated[str, typer.Argument(metavar="FROM", help="Address of a server (grpc://…), or a profile.")]
    target: Annotated[str, typer.Argument(metavar="TO", help="Likewise; the key must be an administrator's.")]
    source_key: Annotated[str | None, typer.Option("--from-key", help="Key for FROM, where it is an address.")] = field(
        default=None, repr=False
    )
    target_key: Annotated[str | None, typer.Option("--to-key", help="Key for TO, likewise.")] = field(
        default=None, repr=False
    )
    begin: Annotated[str | None, typer.Option("--begin", "--since", help="Blocks inserted from then on.")] = None
    end: Annotated[str | None, typer.Option("--end", "--until", help="Blocks that began until then.")] = None
    process: Annotated[str | None, typer.Option("--process", help="Of this process only.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="Tell in JSON what was copied.")] = False


def replicate(flags: ReplicateFlags) -> None:
    """Copies telemetry from one server to another; what is there already is left out."""
    from micromegas.cli.replicate import run_replicate

    run_replicate(flags)


KeysFile = Annotated[
    Path,
    typer.Option(
        "--file", envvar="MICROMEGAS_API_KEYS_FILE", help="The file; servers take it from this variable, too."
    ),
]
keys = typer.Typer(help="The file of keys that servers take.", no_args_is_help=True)


@command(keys, "add")
def keys_add(
    *,
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    file: KeysFile,
    url: Annotated[
        str | None, typer.Option("--url", help="Print what a sender to this address needs, variable by variable.")
    ] = None,
    shell: Annotated[str, typer.Option("--shell", help="As posix, powershell, cmd or dotenv.")] = "posix",
    as_json: Annotated[bool, typer.Option("--json", help="Print name and key in JSON.")] = False,
) -> None:
    """Makes a key and prints it, this once. Servers know it from their next start on."""
    from micromegas.cli.keys import run_add

    run_add(file, name, url, shell, as_json)


@command(keys, "list")
def keys_list(*, file: KeysFile, rows: RowFlags) -> None:
    """The names of the keys."""
    from micromegas.cli.keys import run_list
    from micromegas.cli.rows import chosen_format

    run_list(file, chosen_format(rows))


@command(keys, "remove")
def keys_remove(*, name: Annotated[str, typer.Argument(help="Whose key it was.")], file: KeysFile) -> None:
    """Takes a key away. Servers refuse it from their next start on."""
    from micromegas.cli.keys import run_remove

    run_remove(file, name)


def add_administration(app: typer.Typer) -> None:
    """Makes them commands of `app`."""
    for function in (retention, materialize, retire, doctor, replicate):
        command(app, panel=PANEL)(function)
    app.add_typer(keys, name="keys", rich_help_panel=PANEL)
