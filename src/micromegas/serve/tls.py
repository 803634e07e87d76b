"""The certificate of a server, as its settings name it, and as its files say while the server runs."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from micromegas.config.tls import TlsSettings

LOOK_S = 10.0
"""Between two looks at the files."""
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with those that vouch for it, and its key, as PEM; `context` is for connections."""

    chain: bytes
    key: bytes
    context: ssl.SSLContext

    @property
    def leaf(self) -> bytes:
        """The server's own certificate, as DER."""
        return leaf_of(self.chain)


class Certificate:
    """What a server shows to its clients: `pair`, which follows the files as long as somebody awaits `watch()`.

    Files that can't be used, as halfway through being replaced, leave it as it was.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        """`OSError` for files that can't be read or don't fit together."""
        self._chain, self._key = chain, key
        self.pair = self._read(self._contents())

    @classmethod
    def of(cls, settings: TlsSettings) -> Certificate | None:
        """None where there is to be no TLS."""
        if settings.tls_certificate is None or settings.tls_key is None:
            return None
        return cls(settings.tls_certificate, settings.tls_key)

    async def watch(self, renewed: Callable[[Pair], Awaitable[None]] | None = None) -> None:
        """Never returns. `renewed` is awaited with each new pair, which is tried again later where it raises
        `OSError`."""
        told = ""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                pair = await asyncio.to_thread(self._changed)
                if pair is not None and renewed is not None:
                    await renewed(pair)
            except OSError as error:
                # not with names of files that are made for a moment, and differ each time
                text = str(error) if error.strerror is None else str(self._unusable(error.strerror))
                if text != told:
                    _logger.error("%s; the one before stays in use", text)
                told = text
                continue
            told = ""
            if pair is not None:
                self.pair = pair
                _logger.info("the certificate %s has been renewed", self._chain.name)

    def _changed(self) -> Pair | None:
        """None where the files say what they said; `OSError` for files that can't be used."""
        found = self._contents()
        # by content: times of files tell little where a link is turned to other ones
        return None if found == (self.pair.chain, self.pair.key) else self._read(found)

    def _contents(self) -> tuple[bytes, bytes]:
        try:
            return self._chain.read_bytes(), self._key.read_bytes()
        except OSError as error:
            raise self._unusable(error.strerror or error) from None

    def _read(self, contents: tuple[bytes, bytes]) -> Pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._chain, self._key, password=_refuse_password)
        except OSError as error:
            raise self._unusable(error.strerror or error) from None
        if self._contents() != contents:
            raise self._unusable("they are being replaced")
        return Pair(*contents, context)

    def _unusable(self, reason: object) -> OSError:
        return OSError(f"the certificate {self._chain.name} or its key can't be used: {reason}")


def leaf_of(chain: bytes) -> bytes:
    """The first certificate of a file, as DER; empty where there is none."""
    found = _PEM.search(chain)
    return b"" if found is None else ssl.PEM_cert_to_DER_cert(found[0].decode("ascii"))


def _refuse_password() -> str:
    """Without this, OpenSSL asks at the terminal, which holds up the whole process."""
    raise OSError("it is encrypted")
