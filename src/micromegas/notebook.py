"""`%load_ext micromegas`: the magics of the recorder and, where the client's packages are installed, those that ask."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from micromegas.record import notebook


def load_ipython_extension(shell: Any) -> None:
    """Register `%%span` and `%mm_trace`, begin to record, and register `%%mmsql`."""
    notebook.load_ipython_extension(shell)
    if find_spec("pyarrow") is not None:
        from micromegas.client.notebook import load_ipython_extension as load_questions

        load_questions(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take the magics away; recording goes on."""
    notebook.unload_ipython_extension(shell)
    shell.magics_manager.magics["cell"].pop("mmsql", None)
