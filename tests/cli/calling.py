"""The command line within the process of a test, for commands that only ask: one each would cost most of the time."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys

import pytest

from micromegas.cli.app import run


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """As `run` of test_commands; arguments and variables of the process are those of the call as long as it runs."""
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code: object = None
    with (
        pytest.MonkeyPatch.context() as process,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        for name in [name for name in os.environ if name.startswith("MICROMEGAS_")]:
            process.delenv(name)
        for name, value in environment.items():
            process.setenv(name, value)
        process.setattr(sys, "argv", ["micromegas", *arguments])
        try:
            run()
        except SystemExit as end:
            code = end.code
    assert code is None or isinstance(code, int)
    written = [stream.buffer.getvalue() for stream in (out, errors)]
    return subprocess.CompletedProcess(arguments, code or 0, *written)
