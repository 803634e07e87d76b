"""Ports to listen on, as far as sockets themselves don't tell."""

from __future__ import annotations

import errno
import socket
from asyncio.trsock import TransportSocket
from typing import Any

_BACKLOG = 1024


class ListenError(Exception):
    """A role can't listen on its address; the text names role, address and reason."""

    @classmethod
    def because(cls, role: str, host: str, port: int, error: OSError) -> ListenError:
        return cls(f"{role} can't listen on {host} port {port}: {error.strerror or error}")


def keep_alive(listening: socket.socket | TransportSocket) -> None:
    """Lets the kernel ask the clients of a port whether they are still there, who may run nothing and read nothing: one
    whose machine is gone is noticed after two minutes, and frees its place and its query."""
    # what is accepted inherits it
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        # not every system names them so
        if (option := getattr(socket, name, None)) is not None:
            listening.setsockopt(socket.IPPROTO_TCP, option, value)


def require_free(host: str, port: int) -> None:
    """Raises `OSError` as long as somebody listens."""
    if port != 0:
        with _bound(host, port, socket.SO_REUSEADDR):
            pass


def listening(host: str, port: int, *, share: bool) -> list[socket.socket]:
    """Sockets that listen on every address of `host`, all on one port; 0 takes a free one. `OSError` when that can't
    be had."""
    option = socket.SO_REUSEPORT if share else socket.SO_REUSEADDR
    found: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for address in _addresses(host):
            try:
                found.append(_bound_to(address, port, option))
            except OSError as error:
                # a name may stand for an address of a family that this machine does without
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error
                continue
            port = found[0].getsockname()[1]
        if not found and missing is not None:
            raise missing
        for listener in found:
            listener.listen(_BACKLOG)
    except BaseException:
        for listener in found:
            listener.close()
        raise
    return found


class SharedPort:
    """A port that several processes of ours listen on, kept for them from before the first to after the last.

    Who is bound to a port without listening gets none of its connections.
    """

    def __init__(self, host: str, port: int) -> None:
        """`port` 0 takes a free one. Raises `OSError` when it can't be had."""
        # Sharing is agreed on by both sides: without asking for it first, a second server would get half of the calls.
        require_free(host, port)
        self._socket = _kept(host, port)
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()


def _kept(host: str, port: int) -> socket.socket:
    """Without SO_REUSEADDR where that can be: who asks before the first listens is refused, too."""
    try:
        return _bound(host, port, socket.SO_REUSEPORT)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    # connections of one that listened here lately are still about to end
    return _bound(host, port, socket.SO_REUSEPORT, socket.SO_REUSEADDR)


def _bound(host: str, port: int, *options: int) -> socket.socket:
    return _bound_to(_addresses(host)[0], port, *options)


_Address = tuple[int, tuple[Any, ...]]
"""Family, and what it calls an address."""


def _addresses(host: str) -> list[_Address]:
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in infos))


def _bound_to(address: _Address, port: int, *options: int) -> socket.socket:
    family, (ip, _, *more) = address
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        for option in options:
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        if family == socket.AF_INET6 and ip != "::":
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((ip, port, *more))
    except BaseException:
        bound.close()
        raise
    return bound
