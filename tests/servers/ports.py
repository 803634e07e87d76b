"""Free ports of the loopback address."""

from __future__ import annotations

import errno
import itertools
import random
import socket

# Below those that the system gives to outgoing connections (from 32768 up): between this look and the server's own
# `listen`, one of the many connections of the tests would take a port of that range now and then.
_CANDIDATES = itertools.cycle(random.SystemRandom().sample(range(10_000, 32_768), 22_768))


def free_port() -> int:
    """A port that nobody listens on now, and that this process wasn't given before."""
    while True:
        port = next(_CANDIDATES)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            return port
