"""Texts, names and arrays as SQL writes them, read and written. What it can't read it says so of, and never guesses."""

from __future__ import annotations

import re
import sys

from micromegas.query.functions.sql_text import Kind, Token
from micromegas.serve.postgres.errors import PostgresError

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))", re.DOTALL)
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_DOLLARS = re.compile(r"(\$\w*\$)(.*)\1", re.DOTALL)
_PLAIN = re.compile(r"'((?:[^']|'')*)'")
_ESCAPED = re.compile(r"[eE]'((?:[^'\\]|\\.|'')*)'", re.DOTALL)


def text_of(token: Token | None) -> str | None:
    """What a text says; None for what is no text, or one of a kind that is not read here. `PostgresError` for escapes
    that say nothing."""
    if token is None or token.kind is not Kind.TEXT:
        return None
    if plain := _PLAIN.fullmatch(token.value):
        return plain[1].replace("''", "'")
    if escaped := _ESCAPED.fullmatch(token.value):
        return _unescaped(escaped[1].replace("''", "'"))
    dollars = _DOLLARS.fullmatch(token.value)
    return None if dollars is None else dollars[2]


def _unescaped(text: str) -> str:
    """What a text with escapes says, of which those of bytes are of UTF-8."""
    pieces, copied = [], 0
    for match in _ESCAPE.finditer(text):
        pieces += [text[copied : match.start()].encode("utf-8", "surrogatepass"), _escaped(match)]
        copied = match.end()
    pieces.append(text[copied:].encode("utf-8", "surrogatepass"))
    try:
        # letters beyond the first plane may be written in two halves
        halves = b"".join(pieces).decode("utf-8", "surrogatepass")
        whole = halves.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeError:
        raise PostgresError("22021", "a text with escapes is no text in UTF-8") from None
    if "\0" in whole:
        raise PostgresError("22021", "a text can't have a zero byte")
    return whole


def _escaped(match: re.Match[str]) -> bytes:
    for digits, base in ((match[3], 16), (match[4], 8)):
        if digits is not None:
            return bytes([int(digits, base) & 0xFF])
    if (digits := match[1] or match[2]) is not None:
        if int(digits, 16) > sys.maxunicode:
            raise PostgresError("42601", "invalid Unicode escape value")
        return chr(int(digits, 16)).encode("utf-8", "surrogatepass")
    return _CONTROLS.get(match[5], match[5]).encode("utf-8", "surrogatepass")


def literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A name as SQL writes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
