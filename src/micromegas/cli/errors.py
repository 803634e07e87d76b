"""Failures that a person at the command line can do something about."""

from __future__ import annotations


class CliError(Exception):
    """One line: what failed, and the next step."""
