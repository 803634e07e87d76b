"""Keeps so many workers at work: starts them, replaces those that end, hang, or hold work that can't be cancelled.

Workers share nothing but the lake and their ports: a connection is taken by the one that has the fewest. It must never
hold up the process that it runs in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from micromegas.config import FlightSettings, HttpSettings, PostgresSettings
from micromegas.serve.connection_counts import SLOTS
from micromegas.serve.flight.running import CancelStatus
from micromegas.serve.node_settings import FLIGHT, HTTP, POSTGRES, NodeSettings
from micromegas.serve.ports import ListenError
from micromegas.serve.self_telemetry import SelfTelemetry
from micromegas.serve.workers.channel import Cancel, Order
from micromegas.serve.workers.process import BEAT_S, WorkerFailed, WorkerProcess
from micromegas.serve.workers.shared_port import SharedPort

_logger = logging.getLogger(__name__)

Listening = TypeVar("Listening", FlightSettings, HttpSettings, PostgresSettings)

STALL_S = 30.0
_MIN_STALL_S = 5.0
_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
_STABLE_S = 60.0
"""Who has worked for so long may fail once without a delay."""
_ENDING_S = 10.0
"""What a worker may take to end beyond the time that its queries get to finish."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What a worker is, and its slot among the counts of connections."""

    order: Order
    slot: int


class Supervisor:
    """`await start()` returns the addresses by role once all workers answer; `await stop()` drains and ends them."""

    def __init__(self, settings: Sequence[NodeSettings], version: str, telemetry: SelfTelemetry | None = None) -> None:
        """`settings`: one per worker; those of one role share its port."""
        self._settings = list(settings)
        self._version = version
        self._telemetry = telemetry
        self._ports: dict[str, SharedPort] = {}
        self._slots = list(range(SLOTS))
        self._workers: dict[WorkerProcess, _Place] = {}
        self._tending: list[asyncio.Task[None]] = []
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> list[int]:
        """Process ids of all workers, those about to end too."""
        return [worker.pid for worker in self._workers]

    async def start(self) -> dict[str, str]:
        """Raises `ListenError` or `WorkerFailed`; what had started is stopped again."""
        try:
            shared = [self._sharing(each) for each in self._settings]
            orders = [Order(each, self._version, BEAT_S, self._telemetry, {}) for each in shared]
            async with asyncio.TaskGroup() as group:
                starting = [group.create_task(self._start(order)) for order in orders]
        except BaseExceptionGroup as failures:
            await self.stop()
            raise failures.exceptions[0] from None
        except BaseException:
            await self.stop()
            raise
        workers = [task.result() for task in starting]
        self._tending = [
            asyncio.create_task(self._tend(worker, order)) for worker, order in zip(workers, orders, strict=True)
        ]
        return {role: address for worker in workers for role, address in worker.addresses.items()}

    async def stop(self) -> None:
        for port in self._ports.values():
            port.stop()
        for task in self._tending:
            task.cancel()
        if self._tending:
            await asyncio.wait(self._tending)
        ending = [self._end(worker) for worker in list(self._workers)]
        await asyncio.gather(*ending, *self._ending)
        for port in self._ports.values():
            port.close()
        self._ports.clear()

    async def failed(self) -> None:
        """Returns never, or raises what ended the care for a worker."""
        await asyncio.gather(*map(asyncio.shield, self._tending))

    async def _tend(self, worker: WorkerProcess, order: Order) -> None:
        """Sees to it that there is a worker for this order."""
        stall_s = max(_MIN_STALL_S, min(STALL_S, order.settings.query.statement_timeout_s))
        loop = asyncio.get_running_loop()
        delay_s = 0.0
        while True:
            began = loop.time()
            leaving = await worker.leaving(stall_s)
            _logger.warning("worker %d is replaced: %s", worker.pid, leaving.reason)
            if leaving.is_crash:
                await self._kill(worker)
                if loop.time() - began >= _STABLE_S:
                    delay_s = 0.0
            else:
                delay_s = 0.0
            successor = None
            while successor is None:
                await asyncio.sleep(delay_s)
                delay_s = min(max(_FIRST_DELAY_S, delay_s * 2), _LONGEST_DELAY_S)
                try:
                    successor = await self._start(order)
                except (OSError, WorkerFailed) as error:
                    _logger.error("no successor yet: %s", error)
            if not leaving.is_crash:
                # only now: the port is never without somebody who listens
                ending = asyncio.create_task(self._end(worker))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
            worker = successor

    async def _start(self, order: Order) -> WorkerProcess:
        if not self._slots:
            raise WorkerFailed("RuntimeError", f"{SLOTS} workers are there already, or about to end")
        slot = self._slots.pop()
        shares = {role: self._ports[role].share(slot) for role in _roles(order.settings)}
        try:
            worker = await WorkerProcess.start(replace(order, shares=shares), self._cancel_of_others)
        except BaseException:
            self._free(slot)
            raise
        self._workers[worker] = _Place(order, slot)
        return worker

    def _free(self, slot: int) -> None:
        for port in self._ports.values():
            port.free(slot)
        self._slots.append(slot)

    def _gone(self, worker: WorkerProcess) -> None:
        place = self._workers.pop(worker, None)
        if place is not None:
            self._free(place.slot)

    async def _end(self, worker: WorkerProcess) -> None:
        place = self._workers.get(worker)
        if place is None:
            # it ended while this was about to begin
            return
        settings = place.order.settings
        roles = (settings.flight, settings.http, settings.postgres)
        await worker.end(sum(role.drain_timeout_s for role in roles if role is not None) + _ENDING_S)
        self._gone(worker)

    async def _kill(self, worker: WorkerProcess) -> None:
        await worker.kill()
        self._gone(worker)

    async def _cancel_of_others(self, asking: WorkerProcess, asked: Cancel) -> CancelStatus:
        """Ends a query that one of the other workers runs."""
        asking_others = [
            asyncio.ensure_future(worker.cancel(asked)) for worker in self._workers if worker is not asking
        ]
        found: CancelStatus = "unknown"
        try:
            # not all at once: one that hangs must not hold up what another says
            for answer in asyncio.as_completed(asking_others):
                status = await answer
                if status == "cancelled":
                    return status
                if status == "not yours":
                    found = status
        finally:
            for each in asking_others:
                each.cancel()
        return found

    def _sharing(self, settings: NodeSettings) -> NodeSettings:
        """The same on ports that all workers share. Raises `ListenError`."""
        if settings.flight is not None:
            settings = replace(settings, flight=self._on_shared_port(FLIGHT, settings.flight))
        if settings.postgres is not None:
            # a single one, but for the time in which its successor is there already
            settings = replace(settings, postgres=self._on_shared_port(POSTGRES, settings.postgres))
        http = settings.http
        if http is not None:
            try:
                settings = replace(settings, http=self._on_shared_port(HTTP, http))
            except ListenError as error:
                if not http.optional:
                    raise
                _logger.warning("no queries over HTTP: %s; name another port with --api-port", error)
                settings = replace(settings, http=None)
        return settings

    def _on_shared_port(self, role: str, settings: Listening) -> Listening:
        if role not in self._ports:
            try:
                self._ports[role] = SharedPort(settings.host, settings.port)
            except OSError as error:
                raise ListenError.because(role, settings.host, settings.port, error) from error
        return replace(settings, port=self._ports[role].port)


def _roles(settings: NodeSettings) -> list[str]:
    """Those that listen."""
    roles = ((FLIGHT, settings.flight), (HTTP, settings.http), (POSTGRES, settings.postgres))
    return [role for role, of_role in roles if of_role is not None]
