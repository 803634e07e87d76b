"""Running services until a signal: SIGTERM and SIGINT drain, a second one ends at once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import micromegas
from micromegas.cli.engine_process import prepare_engine_process
from micromegas.cli.errors import CliError
from micromegas.cli.service_options import ServiceFlags
from micromegas.cli.settings import node_settings

if TYPE_CHECKING:
    from micromegas.serve.node import Node


def run_services(flags: ServiceFlags, environment: Mapping[str, str]) -> None:
    """Starts the roles, prints an address a line, and returns after a drain; `CliError` when they can't start."""
    prepare_engine_process()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from micromegas.daemon.selection import PolicyError
    from micromegas.lake import LakeError
    from micromegas.serve.node import ListenError, Node
    from micromegas.serve.postgres.shadow import ShadowError

    settings = node_settings(flags, environment)
    try:
        keys = () if settings.ingest is None else settings.ingest.api_keys
        recorder = _Recorder(keys[0].key if keys else None) if flags.self_telemetry else None
        asyncio.run(_run(Node(settings, version("micromegas")), recorder))
    except LakeError as error:
        raise CliError(f"{_one_line(error)}; check --lake, --database-url and --object-store") from None
    except ListenError as error:
        ports = "--http-port, --flight-port, --api-port, --pg-port"
        raise CliError(f"{error}; is it running already? other ports: {ports}") from None
    except (PolicyError, ShadowError, OSError) as error:
        raise CliError(_one_line(error)) from None


@dataclass(frozen=True, slots=True)
class _Recorder:
    """The server as a recorded program; `api_key` for its own ingestion, where that asks for one."""

    api_key: str | None

    def start(self, ingestion: str | None) -> None:
        """`ingestion`: address of this server's own, None without: then the recorder's own variables count."""
        micromegas.init(
            url=ingestion,
            api_key=self.api_key,
            process_name="micromegas",
            level="info",
            capture_logging=True,
            hooks=False,
        )

    def stop(self) -> None:
        micromegas.shutdown()


async def _run(node: Node, recorder: _Recorder | None) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stopping.is_set():
            # nothing acknowledged is lost by this: acknowledged means durable
            os._exit(130)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    starting = asyncio.create_task(node.start())
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait([starting, waiting], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait([starting])
        return
    for role, address in starting.result().items():
        print(f"{role:<10} {address}")
    if recorder is not None:
        recorder.start(starting.result().get("ingestion"))
    print("ready", flush=True)
    failing = asyncio.create_task(node.failed())
    try:
        await asyncio.wait([failing, waiting], return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            failing.result()
    finally:
        failing.cancel()
        waiting.cancel()
        if recorder is not None:
            # while ingestion still takes it
            await asyncio.to_thread(recorder.stop)
        await node.stop()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
