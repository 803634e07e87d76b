"""Options that several commands have, so that they are called and told alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import typer

JsonLines = Annotated[bool, typer.Option("--json", help="An object of JSON per line.")]
Process = Annotated[str, typer.Argument(help="Id of the process, or the beginning of it.")]
AnyProcess = Annotated[
    str | None, typer.Argument(help="Id of the process, or the beginning of it; default: all processes.")
]
Begin = Annotated[
    str | None,
    typer.Option("--begin", "--since", help="From this time on: 1h, 7d (before now), or 2026-01-31T12:00Z."),
]
End = Annotated[str | None, typer.Option("--end", "--until", help="Up to this time, likewise.")]
BeginInLife = Annotated[
    str | None,
    typer.Option("--begin", "--since", help="From this time on; default: 1h, or the life of the process."),
]
TargetPart = Annotated[str | None, typer.Option("--target", help="Part of the target, in any case.")]
ExePart = Annotated[str | None, typer.Option("--exe", help="Part of the program's path, in any case.")]


@dataclass(frozen=True, slots=True)
class Connection:
    """Where to ask. What the flags don't say, the environment does (unless it isn't to be used), or the profile."""

    server: Annotated[
        str | None,
        typer.Option("--server", help="Address of the server; else MICROMEGAS_ANALYTICS_URI, the profile, localhost."),
    ] = None
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", help="Key to sign in; else MICROMEGAS_API_KEY, or that of the profile."),
    ] = field(default=None, repr=False)
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="Server and key of ~/.micromegas/config.json; else MICROMEGAS_PROFILE."),
    ] = None
    uses_environment: bool = True


@dataclass(frozen=True, slots=True)
class RowFlags:
    """How rows are written."""

    format: Annotated[
        str | None, typer.Option("--format", help="table, json, jsonl, csv, arrow or parquet; default: table.")
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False
