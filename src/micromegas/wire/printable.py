"""Texts of strangers on a terminal: what would make it do something else than show them is written out."""

from __future__ import annotations


def printable(text: str) -> str:
    """With control characters as Python writes them, such as `\\x1b`; tabs and ends of lines stay."""
    if text.isprintable():
        return text
    return "".join(char if char in "\t\n" or char.isprintable() else ascii(char)[1:-1] for char in text)
