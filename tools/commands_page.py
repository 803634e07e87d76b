"""Writes docs/commands.md from the command line itself: python tools/commands_page.py"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from micromegas.cli import errors
from micromegas.cli.app import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
HEAD = """\
# Commands

Written by `python tools/commands_page.py` from the command line itself; `micromegas COMMAND --help` says the same.

- Rows are a table for people, or what `--format` says: `json` (an array of objects), `jsonl` (one a line), `csv`,
  `arrow`, `parquet`; `--json` is short for the first. Nothing is rounded but the times of some tables. Results go to
  standard output; progress (on terminals only) and errors to standard error.
- Times are ages before now (`30m`, `1h`, `7d`) or ISO 8601, in UTC unless they have an offset.
- A process is named by its id, or as much of its beginning as no other has.
- Which server is asked: `--server`, else `MICROMEGAS_ANALYTICS_URI`, else the profile (`--profile`,
  `MICROMEGAS_PROFILE`, `default_profile`) of `~/.micromegas/config.json`, else `grpc://localhost:50051`. The key:
  `--api-key`, else `MICROMEGAS_API_KEY`, else the profile's `api_key_file`. A key is for the server that it stands
  beside: `--server` with another address gets that of a profile only if `--profile` names it, too.
- An error is one line that tells the next step. Exit codes: 0 it is done; {FAILED} it failed; {WRONG_USAGE} the
  command line can't be understood; {NO_SERVER} no server answers; {KEY_REFUSED} it refuses the key; {INTERRUPTED}
  interrupted by Ctrl-C; {READER_LEFT} the reader of the output has left.
- `micromegas --install-completion` makes bash, zsh and fish complete commands and options.

What the commands of the original are called here:

| there | here |
|---|---|
| `micromegas-query` | `micromegas query` (without times, the predicates of the SQL are the range) |
| `query_processes.py --since` | `micromegas processes --since` |
| `query_process_log.py` | `micromegas logs PROCESS` |
| `query_process_metrics.py` | `micromegas metrics PROCESS` (`--stats`) |
| `write_perfetto.py` | `micromegas trace PROCESS` |
| `micromegas-views` | a file of SQL that servers read: `--views`, [views.md](views.md) |
| `micromegas-setup-telemetry`, `-import-keys` | `micromegas keys add NAME --url URL` |
| `telemetry-admin materialize-partitions`, `retire-partitions` | `micromegas materialize`, `micromegas retire` |
| `telemetry-admin delete-old-data DAYS`, `delete-expired-temp` | `micromegas retention --delete` |
| `telemetry-admin crond` | `micromegas daemon`, any number of them |
| `micromegas-logout` | `micromegas logout`; `micromegas login` signs in beforehand |
| `micromegas-screens`, `-grants`, `-groups` | nothing: of the original's web page |
"""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name, in the order of the help."""
    yield from _below("micromegas", typer.main.get_command(app))


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield name, command
        return
    for each in subcommands.values():
        yield from _below(f"{name} {each.name}", each)


def page() -> str:
    """The whole page."""
    codes = {name: value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    parts = [HEAD.format(**codes)]
    for name, command in commands():
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        options = [each for each in command.params if each.param_type_name == "option" and not _is_help(each)]
        usage = " ".join([name, *(_placeholder(each) for each in arguments)])
        parts.append(f"## {name}\n\n{_one_line(command.help)}\n\n`{usage}`\n")
        rows = [f"| `{_placeholder(each).strip('[]')}` | {_one_line(each.help)} |" for each in arguments]
        rows += [f"| {_flags(each)} | {_one_line(each.help)}{_environment(each)}{_default(each)} |" for each in options]
        if rows:
            parts.append("| | |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _is_help(option: Any) -> bool:
    return "--help" in option.opts


def _placeholder(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper().strip("[]{}")
    return name if argument.required else f"[{name}]"


def _flags(option: Any) -> str:
    # those that are called by one name are told first by it
    names = sorted(option.opts, key=lambda name: name.startswith("--"))
    return ", ".join(f"`{name}`" for name in names)


def _environment(option: Any) -> str:
    return f" Also `{option.envvar}`." if option.envvar else ""


def _default(option: Any) -> str:
    if option.default is None or option.default is False or callable(option.default):
        return ""
    return "" if option.required else f" Default: `{option.default}`."


def _one_line(text: str | None) -> str:
    line = re.sub(r"\s+", " ", text or "").strip().replace("|", "\\|")
    return line if not line or line.endswith((".", ":", ")")) else f"{line}."


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
