"""Failures that a person at the command line can do something about."""

from __future__ import annotations

_EXTRA_OF_MODULE = {"typer": "client", "rich": "client", "pyarrow": "client"}


class CliError(Exception):
    """One line: what failed, and the next step."""


def missing_extra(error: ModuleNotFoundError) -> str:
    """The line for a package that only an extra of ours installs."""
    package = (error.name or "").partition(".")[0]
    if package == "micromegas":
        raise error
    extra = _EXTRA_OF_MODULE.get(package, "server")
    return f"micromegas: {package} is not installed: run  pip install 'micromegas[{extra}]'"
