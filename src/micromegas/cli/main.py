"""Entry point of the command. Imports nothing heavy, so that even an installation without extras gets a helpful
line."""

from __future__ import annotations

import sys

from micromegas.cli.errors import missing_extra


def main() -> None:
    """Runs the command; every expected failure is one line on stderr and exit code 1 (2 for wrong usage)."""
    try:
        from micromegas.cli.app import run
    except ModuleNotFoundError as error:
        sys.exit(missing_extra(error))
    run()
