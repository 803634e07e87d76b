"""Celery under OpenTelemetry's instrumentation: a worker in a thread, tasks through the in-memory broker."""

import asyncio

from celery import Celery
from celery.contrib.testing.worker import start_worker
from opentelemetry.instrumentation.celery import CeleryInstrumentor

import micromegas as mm

app = Celery("shop", broker="memory://", backend="cache+memory://")


@app.task(name="shop.pack")
def pack(item: int) -> int:
    mm.log.info("packing %d", item)
    return item * 2


@app.task(name="shop.fail")
def fail() -> None:
    raise LookupError("no such shelf")


async def main() -> None:
    async with mm.span("caller"):
        packed, failed = pack.delay(21), fail.delay()
        assert packed.get(timeout=30) == 42
        assert isinstance(failed.get(timeout=30, propagate=False), LookupError)


mm.init()
mm.install_otel()
CeleryInstrumentor().instrument()
with start_worker(app, perform_ping_check=False, loglevel="ERROR"):
    asyncio.run(main())
