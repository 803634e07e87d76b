"""The command line within the process of a test, for commands that only ask: one each would cost most of the time."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

from micromegas.cli.app import run


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """As `run` of test_commands."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MICROMEGAS_")}
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code: object = None
    with (
        mock.patch.dict(os.environ, inherited | environment, clear=True),
        mock.patch.object(sys, "argv", ["micromegas", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        try:
            run()
        except SystemExit as end:
            code = end.code
    assert code is None or isinstance(code, int)
    written = [stream.buffer.getvalue() for stream in (out, errors)]
    return subprocess.CompletedProcess(arguments, code or 0, *written)
