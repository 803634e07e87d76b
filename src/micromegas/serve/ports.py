"""Ports to listen on, as far as sockets themselves don't tell. Must never listen."""

from __future__ import annotations

import errno
import socket


class ListenError(Exception):
    """A role can't listen on its address; the text names role, address and reason."""

    @classmethod
    def because(cls, role: str, host: str, port: int, error: OSError) -> ListenError:
        return cls(f"{role} can't listen on {host} port {port}: {error.strerror or error}")


def require_free(host: str, port: int) -> None:
    """Raises `OSError` as long as somebody listens: gRPC itself tells the reason on stderr only."""
    if port != 0:
        with _bound(host, port, socket.SO_REUSEADDR):
            pass


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
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind)
    try:
        for option in options:
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound
