"""requests and httpx under OpenTelemetry's instrumentations, against a server that keeps the headers."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import requests
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor

import micromegas as mm

seen: list[str] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        seen.append(self.headers["traceparent"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_address[1]}/x"


async def main() -> None:
    async with mm.span("caller"):
        requests.get(url, timeout=10)
        with httpx.Client() as client:
            client.get(url)
        async with httpx.AsyncClient() as client:
            await client.get(url)
        mm.log.info("seen %s", json.dumps(seen))


mm.init()
mm.install_otel()
RequestsInstrumentor().instrument()
HTTPXClientInstrumentor().instrument()
asyncio.run(main())
server.shutdown()
