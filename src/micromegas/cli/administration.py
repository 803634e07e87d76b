"""The commands of who runs a deployment, and their flags. Bodies live in modules of their own, imported when a command
runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from micromegas.cli.options import AnyApiKey, Format, Json, Profile, Server

PANEL = "Administration"
KeysFile = Annotated[
    Path,
    typer.Option(
        "--file", envvar="MICROMEGAS_API_KEYS_FILE", help="The file; servers take it from this variable, too."
    ),
]


def doctor(
    *,
    url: Annotated[
        str, typer.Option("--url", envvar="MICROMEGAS_TELEMETRY_URL", help="Address of ingestion.")
    ] = "http://127.0.0.1:9000",
    ingestion_key: Annotated[
        str | None,
        typer.Option("--ingestion-key", envvar="MICROMEGAS_INGESTION_API_KEY", help="Key that senders present."),
    ] = None,
    lake: Annotated[Path | None, typer.Option("--lake", help="Look at the folder of an embedded lake, too.")] = None,
    spool: Annotated[
        str | None,
        typer.Option("--spool", envvar="MICROMEGAS_SPOOL_DIR", help="The spool of programs; else the user's."),
    ] = None,
    format: Format = None,
    as_json: Json = False,
    server: Server = None,
    api_key: AnyApiKey = None,
    profile: Profile = None,
) -> None:
    """Checks a deployment and says what is wrong with it; exit code 1 when something is."""
    from micromegas.cli.connection import Connection
    from micromegas.cli.doctor import DoctorFlags, run_doctor

    run_doctor(Connection(server, api_key, profile), DoctorFlags(url, ingestion_key, lake, spool, format, as_json))


def replicate(
    *,
    source: Annotated[str, typer.Argument(metavar="FROM", help="Address of a server (grpc://…), or a profile.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Likewise; the key must be an administrator's.")],
    source_key: Annotated[str | None, typer.Option("--from-key", help="Key for FROM, where it is an address.")] = None,
    target_key: Annotated[str | None, typer.Option("--to-key", help="Key for TO, likewise.")] = None,
    begin: Annotated[str | None, typer.Option("--begin", "--since", help="Blocks inserted from then on.")] = None,
    end: Annotated[str | None, typer.Option("--end", "--until", help="Blocks that began until then.")] = None,
    process: Annotated[str | None, typer.Option("--process", help="Of this process only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Tell in JSON what was copied.")] = False,
) -> None:
    """Copies telemetry from one server to another; what is there already is left out."""
    from micromegas.cli.replicate import ReplicateFlags, run_replicate

    run_replicate(ReplicateFlags(source, target, source_key, target_key, begin, end, process, as_json))


keys = typer.Typer(help="The file of keys that servers take.", no_args_is_help=True)


@keys.command("add")
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


@keys.command("list")
def keys_list(*, file: KeysFile, format: Format = None, as_json: Json = False) -> None:
    """The names of the keys."""
    from micromegas.cli.keys import run_list
    from micromegas.cli.rows import chosen_format

    run_list(file, chosen_format(format, as_json))


@keys.command("remove")
def keys_remove(*, name: Annotated[str, typer.Argument(help="Whose key it was.")], file: KeysFile) -> None:
    """Takes a key away. Servers refuse it from their next start on."""
    from micromegas.cli.keys import run_remove

    run_remove(file, name)


def add_administration(app: typer.Typer) -> None:
    """Makes them commands of `app`."""
    for function in (doctor, replicate):
        app.command(rich_help_panel=PANEL)(function)
    app.add_typer(keys, name="keys", rich_help_panel=PANEL)
