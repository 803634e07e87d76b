"""One worker as its supervisor sees it: started, listened to, ended. Must never decide what follows."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from micromegas.serve.flight.running import CancelStatus
from micromegas.serve.workers.channel import (
    Beat,
    Cancel,
    Cancelled,
    Channel,
    End,
    Failed,
    Message,
    Order,
    Ready,
    Relief,
)

BEAT_S = 1.0
START_S = 120.0
"""Within which a worker answers, or is given up: its stores may be slow, but not dead."""
_CANCEL_S = 3.0

CancelOfOthers = Callable[["WorkerProcess", Cancel], Awaitable[CancelStatus]]


class WorkerFailed(Exception):
    """A worker can't start; `kind` is the name of the error's type there."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Leaving:
    """Why a worker needs a successor; `is_crash`: it has ended, or must be ended, without having been asked."""

    reason: str
    is_crash: bool


class WorkerProcess:
    """`await WorkerProcess.start(…)` returns one that answers."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel, cancel_of_others: CancelOfOthers) -> None:
        self._process = process
        self._channel = channel
        self._cancel_of_others = cancel_of_others
        self._silent_s = 0.0
        self._relief: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answering: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Task[None] | None = None
        self.addresses: dict[str, str] = {}

    @classmethod
    async def start(cls, order: Order, cancel_of_others: CancelOfOthers) -> WorkerProcess:
        """`cancel_of_others`: does what it asks of the others. Raises `WorkerFailed`; what had started then is gone."""
        ours, theirs = socket.socketpair()
        with theirs:
            # not with the current folder first: what lies there is not ours to import
            command = (sys.executable, "-P", "-m", "micromegas.serve.workers", str(theirs.fileno()), str(os.getpid()))
            inherited = [each for share in order.shares.values() for each in (*share.listeners, share.counts)]
            process = await asyncio.create_subprocess_exec(
                *command, pass_fds=(theirs.fileno(), *inherited), stdin=asyncio.subprocess.DEVNULL
            )
        worker = cls(process, await Channel.over(ours), cancel_of_others)
        try:
            await worker._begin(order)
        except BaseException:
            await asyncio.shield(worker.kill())
            raise
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    async def leaving(self, stall_s: float) -> Leaving:
        """Returns when the worker asks to be replaced, has ended, or did not beat for `stall_s`."""
        ended = asyncio.ensure_future(self._process.wait())
        waited: list[asyncio.Future[Any]] = [ended, self._relief]
        try:
            while True:
                await asyncio.wait(waited, timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    return Leaving(_how_ended(ended.result()), is_crash=True)
                if self._relief.done():
                    return Leaving(self._relief.result(), is_crash=False)
                # by turns of this loop: while it stood still itself, no beat could be heard
                self._silent_s += BEAT_S
                if self._silent_s > stall_s:
                    return Leaving(f"it did not answer for {stall_s:g} s", is_crash=True)
        finally:
            ended.cancel()

    async def cancel(self, asked: Cancel) -> CancelStatus:
        """Ends a query, if this worker runs it."""
        # sooner than whoever asked us gives up
        return await self._channel.cancel(asked.query_id, asked.owner, anyones=asked.anyones, timeout_s=_CANCEL_S)

    async def end(self, timeout_s: float) -> None:
        """Lets it finish what it does; kills it when that takes longer."""
        self._channel.send(End())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), timeout_s)
        await self.kill()

    async def kill(self) -> None:
        """Returns when the process is gone, however it was before."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        for task in (self._listening, *self._answering):
            if task is not None:
                task.cancel()
        self._channel.close()

    async def _begin(self, order: Order) -> None:
        self._channel.send(order)
        try:
            said = await asyncio.wait_for(self._channel.receive(), START_S)
        except TimeoutError:
            raise WorkerFailed("TimeoutError", f"a worker did not start within {START_S:g} s") from None
        match said:
            case Ready(addresses):
                self.addresses = addresses
            case Failed(kind, text):
                raise WorkerFailed(kind, text)
            case _:
                how = _how_ended(await self._process.wait())
                raise WorkerFailed("RuntimeError", f"a worker can't start: {how}; its log tells more")
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while (message := await self._channel.receive()) is not None:
            self._take(message)

    def _take(self, message: Message) -> None:
        match message:
            case Beat():
                self._silent_s = 0.0
            case Relief(reason):
                if not self._relief.done():
                    self._relief.set_result(reason)
            case Cancelled():
                self._channel.answered(message)
            case Cancel():
                answering = asyncio.create_task(self._answer(message))
                self._answering.add(answering)
                answering.add_done_callback(self._answering.discard)

    async def _answer(self, asked: Cancel) -> None:
        self._channel.send(Cancelled(asked.number, await self._cancel_of_others(self, asked)))


def _how_ended(code: int) -> str:
    return f"it ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"
