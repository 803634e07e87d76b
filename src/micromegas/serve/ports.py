"""Ports to listen on, as far as sockets themselves don't tell."""

from __future__ import annotations

import errno
import socket
from typing import Any

_BACKLOG = 1024


class ListenError(Exception):
    """A role can't listen on its address; the text names role, address and reason."""

    @classmethod
    def because(cls, role: str, host: str, port: int, error: OSError) -> ListenError:
        return cls(f"{role} can't listen on {host} port {port}: {error.strerror or error}")


def listening(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on every address of `host`, all on one port; 0 takes a free one. `OSError` when that can't
    be had."""
    found: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for address in _addresses(host):
            try:
                found.append(_bound_to(address, port))
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
            _keep_alive(listener)
            listener.listen(_BACKLOG)
    except BaseException:
        for listener in found:
            listener.close()
        raise
    return found


def _keep_alive(listener: socket.socket) -> None:
    """Lets the kernel ask the clients of a port whether they are still there, who may run nothing and read nothing: one
    whose machine is gone is noticed after two minutes, and frees its place and its query."""
    # what is accepted inherits it
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        # not every system names them so
        if (option := getattr(socket, name, None)) is not None:
            listener.setsockopt(socket.IPPROTO_TCP, option, value)


_Address = tuple[int, tuple[Any, ...]]
"""Family, and what it calls an address."""


def _addresses(host: str) -> list[_Address]:
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in infos))


def _bound_to(address: _Address, port: int) -> socket.socket:
    family, (ip, _, *more) = address
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        # not while somebody listens, but while connections of one that did are still about to end
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and ip != "::":
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((ip, port, *more))
    except BaseException:
        bound.close()
        raise
    return bound
