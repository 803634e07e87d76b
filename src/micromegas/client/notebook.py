"""`%load_ext micromegas.client` in a notebook: `%%mmsql` asks a server.

Loaded by IPython only, which is handed in and never imported.
"""

from __future__ import annotations

import argparse
import html
import os
import shlex
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from micromegas.client.client import Client
from micromegas.client.connecting import provider_of
from micromegas.client.errors import ClientError
from micromegas.client.frames import to_pandas, to_polars
from micromegas.client.profiles import load_profile
from micromegas.client.progress import ProgressLine
from micromegas.wire.printable import printable
from micromegas.wire.row_formats import as_text

MAX_ROWS = 200
"""Rows that a table shows; the line below it counts all."""

_CELL = "padding:2px 8px;vertical-align:top;white-space:pre-wrap;max-width:60em;text-align:"


def load_ipython_extension(shell: Any) -> None:
    """Register `%%mmsql`."""
    shell.register_magic_function(SqlMagic(shell).ask, "cell", "mmsql")


class RowTable:
    """Rows as a notebook shows them; `arrow`, `pandas()` and `polars()` give all of them to the next cell."""

    def __init__(self, arrow: pa.Table) -> None:
        self.arrow = arrow

    def pandas(self) -> Any:
        return to_pandas(self.arrow)

    def polars(self) -> Any:
        return to_polars(self.arrow)

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    def __repr__(self) -> str:
        rows = [[printable(cell) for cell in row] for row in (self.arrow.column_names, *self._cells())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, self._count()])

    def _repr_html_(self) -> str:
        sides = ["right" if _is_number(field.type) else "left" for field in self.arrow.schema]
        head = _row("th", self.arrow.column_names, sides)
        body = "".join(_row("td", row, sides) for row in self._cells())
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table><p>{self._count()}</p>"

    def _cells(self) -> list[tuple[str, ...]]:
        shown = self.arrow.slice(0, MAX_ROWS)
        columns = [[as_text(value) or "" for value in column] for column in shown.columns]
        return list(zip(*columns, strict=True))

    def _count(self) -> str:
        count = len(self)
        line = f"{count:,} row" if count == 1 else f"{count:,} rows"
        return line if count <= MAX_ROWS else f"{line}, the first {MAX_ROWS} shown"


class SqlMagic:
    """The cell magic of one shell, and the connections that its cells have opened."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._clients: dict[tuple[str | None, str | None], Client] = {}

    def ask(self, line: str, cell: str) -> RowTable | None:
        """`%%mmsql [--begin -1h] [--end …] [--limit N] [--server URI] [--profile NAME] [--into VARIABLE]`: the cell is
        a statement, and its `$name`s are variables of the notebook. With `--into` the rows become a variable, as a
        data frame of pandas, instead of the cell's result."""
        try:
            return self._ask(line, cell)
        except (ClientError, ValueError, NameError) as error:
            # IPython shows this instead of the frames of ours, which tell nothing
            told = f"{type(error).__name__}: {printable(str(error))}"
            vars(error)["_render_traceback_"] = lambda: [told]
            raise

    def _ask(self, line: str, cell: str) -> RowTable | None:
        options = _OPTIONS.parse_args(_words(line))
        if options.into is not None and not options.into.isidentifier():
            raise ValueError(f"--into {options.into}: not a name that a variable can have")
        client = self._client(options.server, options.profile)
        # only the server can tell a placeholder from a text that looks like one
        statement = client.prepare(cell) if "$" in cell else None
        parameters = None if statement is None else self._variables(statement.parameter_schema.names)
        with ProgressLine() as progress:
            table = client.query(
                statement or cell,
                options.begin,
                options.end,
                options.limit,
                parameters=parameters,
                progress=progress,
            )
        if options.into is None:
            return RowTable(table)
        self._shell.user_ns[options.into] = to_pandas(table)
        return None

    def _variables(self, names: list[str]) -> dict[str, object] | None:
        missing = [name for name in names if name not in self._shell.user_ns]
        if missing:
            raise NameError(f"${missing[0]} is no variable of this notebook")
        return {name: self._shell.user_ns[name] for name in names} or None

    def _client(self, server: str | None, profile: str | None) -> Client:
        client = self._clients.get((server, profile))
        if client is None:
            chosen = load_profile(profile, os.environ, Path.home(), server=server)
            client = Client(chosen.uri, auth_provider=provider_of(chosen))
            self._clients[server, profile] = client
        return client


class _Options(argparse.ArgumentParser):
    """Raises for what is wrong with a line: a notebook must not exit."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"%%mmsql: {message}; {self.format_usage().strip()}")


_OPTIONS = _Options("%%mmsql", add_help=False, allow_abbrev=False)
for _name in ("--begin", "--end", "--server", "--profile", "--into"):
    _OPTIONS.add_argument(_name)
_OPTIONS.add_argument("--limit", type=int)


def _words(line: str) -> list[str]:
    """The words of a line, with each option's value joined to it: an age such as `-1h` would pass for an option."""
    words: list[str] = []
    for word in shlex.split(line):
        if words and words[-1].startswith("--") and "=" not in words[-1]:
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _row(tag: str, cells: Any, sides: list[str]) -> str:
    inner = (
        f'<{tag} style="{_CELL}{side}">{html.escape(cell)}</{tag}>' for cell, side in zip(cells, sides, strict=True)
    )
    return f"<tr>{''.join(inner)}</tr>"


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
