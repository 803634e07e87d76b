"""The file of `--output`: it appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from micromegas.cli.errors import CliError
from micromegas.client.traces import replaced


@contextmanager
def output_file(path: Path) -> Iterator[BinaryIO]:
    """What is written takes the path's place at the end; raises `CliError` where it can't be written."""
    try:
        with replaced(path) as file:
            yield file
    except OSError as error:
        raise CliError(f"--output {path}: {error.strerror}") from None
