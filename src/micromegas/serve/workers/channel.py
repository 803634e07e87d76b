"""What a worker and its supervisor tell each other, over a pair of sockets: first the order, then messages.

Both are programs of ours, of one version, started by one another: what comes is trusted.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from micromegas.serve.acceptor import Share
from micromegas.serve.flight.running import CancelStatus
from micromegas.serve.node_settings import NodeSettings
from micromegas.serve.self_telemetry import SelfTelemetry

_LENGTH_BYTES = 4
_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to be. `shares`: of its ports, by role."""

    settings: NodeSettings
    version: str
    beat_s: float
    telemetry: SelfTelemetry | None
    shares: Mapping[str, Share]


@dataclass(frozen=True, slots=True)
class Ready:
    """It answers, under these addresses by role."""

    addresses: dict[str, str]


@dataclass(frozen=True, slots=True)
class Failed:
    """It can't start; `kind` is the name of the error's type."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Beat:
    """Its event loop runs."""


@dataclass(frozen=True, slots=True)
class Relief:
    """It should be replaced."""

    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """It should finish what it does and end."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """A query is to be ended by whoever runs it; answered by `Cancelled` of the same number."""

    number: int
    query_id: str
    owner: str | None
    anyones: bool


@dataclass(frozen=True, slots=True)
class Cancelled:
    number: int
    status: CancelStatus


Message: TypeAlias = Order | Ready | Failed | Beat | Relief | End | Cancel | Cancelled


class Channel:
    """One end. Belongs to one event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[CancelStatus]] = {}

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, message: Message) -> None:
        """Nothing happens where the other end is gone: its reader learns of that."""
        body = pickle.dumps(message)
        if not self._writer.is_closing():
            self._writer.write(len(body).to_bytes(_LENGTH_BYTES, "little") + body)

    async def receive(self) -> Message | None:
        """The next message; None when the other end is gone."""
        try:
            length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "little")
            message: Message = pickle.loads(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return message

    async def cancel(
        self, query_id: str, owner: str | None, *, anyones: bool, timeout_s: float = _ANSWER_S
    ) -> CancelStatus:
        """Asks the other end to end a query; unknown to one that does not answer, either."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self.send(Cancel(number, query_id, owner, anyones))
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            return "unknown"
        finally:
            del self._asked[number]

    def answered(self, message: Cancelled) -> None:
        """What came for one of our questions; too late for some."""
        answer = self._asked.get(message.number)
        if answer is not None and not answer.done():
            answer.set_result(message.status)

    async def sent(self) -> None:
        """Returns when what was sent has left."""
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    def close(self) -> None:
        self._writer.close()
