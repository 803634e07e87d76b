"""Takes the connections of a port. Where several processes have a port in common, whoever has the fewest connections
takes the next: all hear of each, and who has more waits for the others a little first. So a connection waits for none
that hangs, and what one that ends has not taken is left to the others."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

from micromegas.serve.connection_counts import Slot
from micromegas.serve.ports import listening

_AT_ONCE = 64
"""Connections taken in a turn of the event loop: those that are there come first."""
_OTHERS_FIRST_S = 0.005
_OUT_OF_DESCRIPTORS_S = 1.0
_OUT_OF_DESCRIPTORS = frozenset([errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Share:
    """One process's part in a port: descriptors that it inherited (sockets that listen, counts of connections), and the
    number of its slot among the counts."""

    listeners: tuple[int, ...]
    counts: int
    slot: int


class Acceptor:
    """Listens from the beginning; `start` begins to take connections. `port` is the bound port."""

    def __init__(self, host: str, port: int, share: Share | None, take: Callable[[socket.socket], None]) -> None:
        """`take` gets each connection. `OSError` when the address can't be had."""
        self._take = take
        self._loop = asyncio.get_running_loop()
        if share is None:
            self._listeners, self._slot = listening(host, port), None
        else:
            self._listeners = [socket.socket(fileno=descriptor) for descriptor in share.listeners]
            self._slot = Slot(share.counts, share.slot)
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self.port: int = self._listeners[0].getsockname()[1]

    def start(self) -> None:
        self.count(0)
        for listener in self._listeners:
            listener.setblocking(False)
            self._loop.add_reader(listener, self._accept, listener)

    def stop(self) -> None:
        """What nobody has taken is left to those who share the port."""
        if self._slot is not None:
            self._slot.count = None
            self._slot = None
        for listener in self._listeners:
            if listener not in self._pauses:
                self._loop.remove_reader(listener)
            listener.close()
        for pause in self._pauses.values():
            pause.cancel()
        self._listeners, self._pauses = [], {}

    def count(self, connections: int) -> None:
        """To be called whenever there are more or fewer connections."""
        if self._slot is not None:
            self._slot.count = connections

    def _accept(self, listener: socket.socket) -> None:
        if self._slot is None:
            for _ in range(_AT_ONCE):
                if not self._accepted_one(listener):
                    return
        elif self._slot.has_least():
            self._accepted_one(listener)
        else:
            self._pause(listener, _OTHERS_FIRST_S)

    def _accepted_one(self, listener: socket.socket) -> bool:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            # else: somebody else has taken it, or it is gone already
            if error.errno in _OUT_OF_DESCRIPTORS:
                _log.error("port %d: a connection can't be taken: %s", self.port, error.strerror)
                self._pause(listener, _OUT_OF_DESCRIPTORS_S)
            return False
        connection.setblocking(False)
        self._take(connection)
        return True

    def _pause(self, listener: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(listener)
        self._pauses[listener] = self._loop.call_later(seconds, self._go_on, listener)

    def _go_on(self, listener: socket.socket) -> None:
        del self._pauses[listener]
        self._loop.add_reader(listener, self._accept, listener)
        # those who have fewer may be busy, or hang
        self._accepted_one(listener)
