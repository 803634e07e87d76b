"""Options that several commands have, so that they are called and told alike."""

from __future__ import annotations

from typing import Annotated

import typer

Server = Annotated[
    str | None,
    typer.Option("--server", help="Address of the server; else MICROMEGAS_ANALYTICS_URI, the profile, localhost."),
]
AnyApiKey = Annotated[
    str | None, typer.Option("--api-key", help="Key to sign in; else MICROMEGAS_API_KEY, or that of the profile.")
]
Profile = Annotated[
    str | None,
    typer.Option("--profile", help="Server and key of ~/.micromegas/config.json; else MICROMEGAS_PROFILE."),
]
Format = Annotated[
    str | None, typer.Option("--format", help="table, json, jsonl, csv, arrow or parquet; default: table.")
]
Json = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
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
