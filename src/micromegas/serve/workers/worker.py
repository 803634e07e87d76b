"""One worker: a node in a process of its own, that does as its supervisor says and never outlives it."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
import time

from micromegas.lake import LakeError
from micromegas.serve.flight.running import CancelStatus
from micromegas.serve.log_lines import log_to_stderr
from micromegas.serve.node import Node
from micromegas.serve.ports import ListenError
from micromegas.serve.postgres.shadow import ShadowError
from micromegas.serve.workers.channel import Beat, Cancel, Cancelled, Channel, End, Failed, Order, Ready, Relief
from micromegas.serve.workers.remains import LOOK_S, Remains

_PR_SET_PDEATHSIG = 1
_logger = logging.getLogger(__name__)


def run_worker(fd: int, parent: int) -> None:
    """The life of the process; `fd`: its end of the pair of sockets, `parent`: process id of the supervisor."""
    _die_with(parent)
    # A terminal or a service manager tells all processes of a group; what we do then, the supervisor says.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log_to_stderr()
    asyncio.run(_work(socket.socket(fileno=fd)))


def _die_with(parent: int) -> None:
    """Also while something holds the interpreter's lock, so that no message would be read."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        sys.exit(1)


async def _work(end: socket.socket) -> None:
    channel = await Channel.over(end)
    order = await channel.receive()
    if not isinstance(order, Order):
        return

    async def cancel_elsewhere(query_id: str, owner: str | None, anyones: bool) -> CancelStatus:
        return await channel.cancel(query_id, owner, anyones=anyones)

    node = Node(order.settings, order.version, cancel_elsewhere, order.shares)
    try:
        addresses = await node.start()
    except (LakeError, ListenError, ShadowError, OSError) as error:
        channel.send(Failed(type(error).__name__, str(error)))
        await channel.sent()
        return
    if order.telemetry is not None:
        order.telemetry.start()
    channel.send(Ready(addresses))
    tasks = [
        asyncio.create_task(_beat(channel, order.beat_s)),
        asyncio.create_task(_watch(channel, node)),
        asyncio.create_task(_obey(channel, node)),
        asyncio.create_task(node.failed()),
    ]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        # raises what went wrong: the process ends with it
        task.result()
    if order.telemetry is not None:
        await asyncio.to_thread(order.telemetry.stop)
    await node.stop()
    logging.shutdown()
    # a thread that never comes back would hold up the end of the interpreter
    os._exit(0)


async def _beat(channel: Channel, interval_s: float) -> None:
    while True:
        channel.send(Beat())
        await asyncio.sleep(interval_s)


async def _watch(channel: Channel, node: Node) -> None:
    """Asks for relief when work goes on that nobody waits for; then it is up to the supervisor."""
    remains = Remains(node.engine.work_in_hand, time.monotonic)
    while (reason := remains.look()) is None:
        await asyncio.sleep(LOOK_S)
    channel.send(Relief(reason))
    await asyncio.Event().wait()


async def _obey(channel: Channel, node: Node) -> None:
    """Returns when the worker shall end."""
    while True:
        match await channel.receive():
            case End() | None:
                return
            case Cancel() as asked:
                status = node.cancel(asked.query_id, asked.owner, anyones=asked.anyones)
                channel.send(Cancelled(asked.number, status))
            case Cancelled() as answer:
                channel.answered(answer)
            case other:
                _logger.error("a worker can't do anything with %r", other)
