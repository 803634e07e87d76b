"""Entry point of the command. Imports nothing heavy, so that even an installation without extras gets a helpful
line."""

from __future__ import annotations

import sys

_EXTRA_OF_MODULE = {"typer": "client", "rich": "client", "pyarrow": "client"}


def main() -> None:
    """Runs the command; every expected failure is one line on stderr and exit code 1 (2 for wrong usage)."""
    try:
        from micromegas.cli.app import run
    except ModuleNotFoundError as error:
        sys.exit(missing_extra(error))
    run()


def missing_extra(error: ModuleNotFoundError) -> str:
    """The line for a package that only an extra of ours installs."""
    package = (error.name or "").partition(".")[0]
    if package == "micromegas":
        raise error
    extra = _EXTRA_OF_MODULE.get(package, "server")
    return f"micromegas: {package} is not installed: run  pip install 'micromegas[{extra}]'"
