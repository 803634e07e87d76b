"""Who takes a connection of a port that several have in common, and what becomes of one that nobody can take."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from micromegas.serve.acceptor import Acceptor
from micromegas.serve.workers.shared_port import SharedPort

PATIENCE_S = 30.0
OFF = 4
"""Who has waited for others takes what is there then, though another has become the one with the fewest meanwhile."""


class Taker:
    """One who takes connections, and keeps them."""

    def __init__(self, shared: SharedPort | None, slot: int) -> None:
        share = None if shared is None else shared.share(slot)
        if share is not None:
            # those of the supervisor are its own: a process inherits copies
            copies = tuple(socket.dup(each) for each in share.listeners)
            share = type(share)(copies, share.counts, share.slot)
        self.acceptor = Acceptor("127.0.0.1", 0, share, self._take)
        self.taken: list[socket.socket] = []

    def _take(self, connection: socket.socket) -> None:
        self.taken.append(connection)
        self.acceptor.count(len(self.taken))

    def drop(self, number: int) -> None:
        for _ in range(number):
            self.taken.pop().close()
        self.acceptor.count(len(self.taken))

    def stop(self) -> None:
        self.acceptor.stop()
        for connection in self.taken:
            connection.close()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.001)


def run_with_takers(
    number: int, do: Callable[[SharedPort, list[Taker], list[socket.socket]], Coroutine[Any, Any, None]]
) -> None:
    """`do` gets the port, who shares it, and a list of connections to be closed."""

    async def run() -> None:
        shared = SharedPort("127.0.0.1", 0)
        takers = [Taker(shared, slot) for slot in range(number)]
        connections: list[socket.socket] = []
        try:
            await do(shared, takers, connections)
        finally:
            for taker in takers:
                taker.stop()
            for connection in connections:
                connection.close()
            shared.close()

    asyncio.run(run())


def sizes(takers: list[Taker]) -> list[int]:
    return [len(taker.taken) for taker in takers]


@pytest.mark.parametrize("at_once", [1, 7, 30])
def test_connections_go_to_whoever_has_the_fewest(at_once: int) -> None:
    async def do(shared: SharedPort, takers: list[Taker], connections: list[socket.socket]) -> None:
        for taker in takers:
            taker.acceptor.start()
        for _ in range(30 // at_once):
            connections.extend([connected(shared.port) for _ in range(at_once)])
            await until(lambda: sum(sizes(takers)) == len(connections))
            assert max(sizes(takers)) - min(sizes(takers)) <= OFF
        # a successor has none yet, and one whose clients have left has few
        takers[0].drop(len(takers[0].taken))
        least = min(sizes(takers[1:]))
        expected = sum(sizes(takers)) + least
        connections += [connected(shared.port) for _ in range(least)]
        await until(lambda: sum(sizes(takers)) == expected)
        assert len(takers[0].taken) >= least - OFF
        assert shared.connections(0) == len(takers[0].taken)

    run_with_takers(3, do)


def test_who_hangs_keeps_no_connection_waiting() -> None:
    async def do(shared: SharedPort, takers: list[Taker], connections: list[socket.socket]) -> None:
        # it says that it takes connections, has none, and looks at nothing
        takers[0].acceptor.count(0)
        takers[1].acceptor.start()
        for _ in range(5):
            connections.append(connected(shared.port))
            await until(lambda: len(takers[1].taken) == len(connections))

    run_with_takers(2, do)


def test_what_comes_before_anybody_takes_connections_waits() -> None:
    async def do(shared: SharedPort, takers: list[Taker], connections: list[socket.socket]) -> None:
        connections += [connected(shared.port) for _ in range(3)]
        takers[0].acceptor.start()
        await until(lambda: len(takers[0].taken) == 3)

    run_with_takers(1, do)


def test_what_one_that_ends_has_not_taken_is_left_to_the_others() -> None:
    async def do(shared: SharedPort, takers: list[Taker], connections: list[socket.socket]) -> None:
        takers[0].acceptor.start()
        connections += [connected(shared.port) for _ in range(3)]
        # before the loop has had a turn
        takers[0].acceptor.stop()
        assert shared.connections(0) is None
        takers[1].acceptor.start()
        await until(lambda: len(takers[1].taken) == 3)
        for connection, other in zip(connections, takers[1].taken, strict=True):
            other.sendall(b"x")
            assert connection.recv(1) == b"x"

    run_with_takers(2, do)


def test_a_port_is_refused_to_others_and_free_after_the_last() -> None:
    async def do(shared: SharedPort, takers: list[Taker], connections: list[socket.socket]) -> None:
        port = shared.port
        with pytest.raises(OSError, match="in use"):
            SharedPort("127.0.0.1", port)
        takers[0].acceptor.start()
        shared.stop()
        with pytest.raises(OSError, match="in use"):
            SharedPort("127.0.0.1", port)
        takers[0].stop()
        with pytest.raises(ConnectionRefusedError):
            connected(port)
        SharedPort("127.0.0.1", port).close()

    run_with_takers(1, do)


@pytest.mark.parametrize("is_shared", [True, False])
def test_without_descriptors_a_connection_waits_and_nobody_spins(
    is_shared: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        shared = SharedPort("127.0.0.1", 0) if is_shared else None
        taker = Taker(shared, 0)
        taker.acceptor.start()
        client = socket.socket()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            # the number of the next one
            with socket.socket() as probe:
                next_descriptor = probe.fileno()
            resource.setrlimit(resource.RLIMIT_NOFILE, (next_descriptor, hard))
            client.connect(("127.0.0.1", taker.acceptor.port))
            await until(lambda: "can't be taken" in caplog.text)
            await asyncio.sleep(0.2)
            assert caplog.text.count("can't be taken") == 1
            assert not taker.taken
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await until(lambda: len(taker.taken) == 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            taker.stop()
            client.close()
            if shared is not None:
                shared.close()

    asyncio.run(run())
