"""The certificate of ingestion on its way to the HTTP server, which reads files, and takes the whole process with it
where it can't use them. Must never hand it files that it hasn't been seen to use."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from micromegas.ingest.door import Door

_TRIAL_S = 60.0


class Pair(Protocol):
    """A certificate, with those that vouch for it, and its key, as PEM."""

    @property
    def chain(self) -> bytes: ...
    @property
    def key(self) -> bytes: ...


class Certificate(Protocol):
    """What is shown to senders, as long as it stays so; `watch` awaits `renewed` with each that comes after it, and
    again after a while where that raises `OSError`."""

    @property
    def pair(self) -> Any: ...
    async def watch(self, renewed: Callable[[Any], Awaitable[None]]) -> None: ...


@asynccontextmanager
async def usable_files(pair: Pair) -> AsyncIterator[tuple[Path, Path]]:
    """Private files of exactly this content, for a moment; `OSError` for what the HTTP server can't use."""
    with TemporaryDirectory(prefix="micromegas-tls-") as folder:
        files = Path(folder, "certificate.pem"), Path(folder, "key.pem")
        for file, content in zip(files, (pair.chain, pair.key), strict=True):
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
                opened.write(content)
        await _require_usable(*files)
        yield files


async def _require_usable(chain: Path, key: Path) -> None:
    """Tries them in a process of its own."""
    command = (sys.executable, "-P", "-m", "micromegas.ingest.certificate", str(chain), str(key))
    nothing = asyncio.subprocess.DEVNULL
    trial = await asyncio.create_subprocess_exec(*command, stdin=nothing, stdout=nothing, stderr=nothing)
    try:
        code = await asyncio.wait_for(trial.wait(), _TRIAL_S)
    except TimeoutError:
        code = 1
    finally:
        with suppress(ProcessLookupError):
            trial.kill()
    if code != 0:
        raise OSError("ingestion can't use the certificate or its key: let them be of RSA, P-256, P-384 or Ed25519")


async def _opened(chain: Path, key: Path) -> None:
    with socket.socket() as claim:
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        claim.bind(("127.0.0.1", 0))
        await Door(None, "127.0.0.1", claim.getsockname()[1], 1, (chain, key)).open()
    # whoever could use them has nothing else to do
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_opened(Path(sys.argv[1]), Path(sys.argv[2])))
