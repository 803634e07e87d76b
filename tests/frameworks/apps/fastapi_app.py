"""FastAPI under OpenTelemetry's instrumentation: two requests, one of them with a traceparent and an error."""

from collections.abc import Iterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

import micromegas as mm

mm.init()
mm.install_otel()
app = FastAPI()
FastAPIInstrumentor.instrument_app(app)


@app.get("/items/{item}")
async def read(item: int) -> dict[str, int]:
    async with mm.span("look up"):
        mm.log.info("looking up %d", item)
        return {"item": item}


@app.get("/stream")
def stream() -> StreamingResponse:
    def parts() -> Iterator[str]:
        yield from "abc"

    return StreamingResponse(parts())


@app.get("/broken")
async def broken() -> None:
    raise LookupError("no such shelf")


client = TestClient(app, raise_server_exceptions=False)
header = {"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}
assert client.get("/items/7", headers=header).json() == {"item": 7}
assert client.get("/stream").text == "abc"
assert client.get("/broken").status_code == 500
assert client.get("/nowhere").status_code == 404
