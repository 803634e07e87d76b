"""The file in which a person's tokens are kept between programs: that of the original's client, read by both."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class KeptTokens:
    """What the provider gave (`token`), and to whom. The client's secret is never kept."""

    issuer: str
    client_id: str
    token: dict[str, Any] = field(repr=False)
    audience: str | None = None


def token_file_of(profile: str | None, home: Path) -> Path:
    """Where the tokens of a profile are kept."""
    return home / ".micromegas" / ("tokens.json" if profile is None else f"tokens-{profile}.json")


def read_tokens(file: Path) -> KeptTokens:
    """Raises `OSError`, and `ValueError` for a file that holds something else."""
    document = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise ValueError(f"file {file}: no tokens in it")
    issuer, client_id, token, audience = (document.get(key) for key in ("issuer", "client_id", "token", "audience"))
    if not isinstance(issuer, str) or not isinstance(client_id, str) or not isinstance(token, dict):
        raise ValueError(f"file {file}: no tokens in it")
    return KeptTokens(issuer, client_id, token, audience if isinstance(audience, str) else None)


@contextmanager
def renewing(file: Path | None) -> Iterator[None]:
    """Nobody else renews the tokens of this file meanwhile: a refresh token is good once. Without a file, or where none
    may be made beside it, nobody can be held off."""
    with ExitStack() as held:
        if file is not None:
            with suppress(OSError):
                lock = held.enter_context(lock_file_of(file).open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def lock_file_of(file: Path) -> Path:
    return file.with_name(f".{file.name}.lock")


def write_tokens(file: Path, kept: KeptTokens) -> None:
    """Replaces the file as a whole; only its owner may read it, and the folder. Raises `OSError`."""
    document = {"issuer": kept.issuer, "client_id": kept.client_id, "token": kept.token}
    if kept.audience is not None:
        document["audience"] = kept.audience
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # made with mode 0600
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as writing:
            json.dump(document, writing, indent=2)
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
