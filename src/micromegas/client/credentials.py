"""Who one is for a server: what goes into the header `authorization`. Must never show a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class AuthProvider(Protocol):
    """Gives the token of a call; asked before each, from any thread."""

    def get_token(self) -> str: ...


class StaticTokenAuthProvider:
    """An API key, or another token that stays the same."""

    def __init__(self, token: str) -> None:
        """`ValueError` for a token that no header can carry."""
        self._token = token.strip()
        if not self._token or not self._token.isascii() or not self._token.isprintable():
            raise ValueError("the token is empty or holds characters that no header can carry")

    @classmethod
    def from_file(cls, path: str | Path) -> StaticTokenAuthProvider:
        """The token that a file holds, without the blanks around it. Raises `OSError` and `ValueError`."""
        file = Path(path).expanduser()
        try:
            return cls(file.read_text(encoding="utf-8"))
        except ValueError:
            raise ValueError(f"file {file}: no token in it that a header could carry") from None

    def get_token(self) -> str:
        return self._token

    def __repr__(self) -> str:
        return "StaticTokenAuthProvider(…)"
