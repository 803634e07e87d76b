"""Running services until a signal: SIGTERM and SIGINT drain, a second one ends at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from micromegas.cli.engine_process import prepare_engine_process
from micromegas.cli.errors import CliError
from micromegas.cli.service_options import ServiceFlags
from micromegas.cli.settings import node_settings

if TYPE_CHECKING:
    from micromegas.serve.node import Node


def run_services(flags: ServiceFlags, environment: Mapping[str, str]) -> None:
    """Starts the roles, prints an address a line, and returns after a drain; `CliError` when they can't start."""
    prepare_engine_process()
    from micromegas.daemon.selection import PolicyError
    from micromegas.lake import LakeError
    from micromegas.serve.log_lines import log_to_stderr
    from micromegas.serve.node import Node
    from micromegas.serve.ports import ListenError
    from micromegas.serve.postgres.shadow import ShadowError
    from micromegas.serve.workers.process import WorkerFailed

    log_to_stderr()
    settings = node_settings(flags, environment)
    try:
        asyncio.run(_run(Node(settings, version("micromegas"))))
    except LakeError as error:
        raise CliError(f"{_one_line(error)}; check --lake, --database-url and --object-store") from None
    except ListenError as error:
        ports = "--http-port, --flight-port, --api-port, --pg-port"
        raise CliError(f"{error}; is it running already? other ports: {ports}") from None
    except (PolicyError, ShadowError, WorkerFailed, OSError) as error:
        raise CliError(_one_line(error)) from None


async def _run(node: Node) -> None:
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
    recorder = node.telemetry
    if recorder is not None:
        recorder.start()
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
