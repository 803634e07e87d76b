"""FastAPI under our own ASGI middleware."""

from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.testclient import TestClient

import micromegas as mm

mm.init()
app = FastAPI()
app.add_middleware(mm.AsgiMiddleware, log_requests=True)


@app.get("/items/{item}")
async def read(item: int, after: BackgroundTasks) -> dict[str, int]:
    async with mm.span("look up"):
        after.add_task(mm.log.info, "afterwards")
        return {"item": item}


@app.get("/broken")
def broken() -> None:
    raise LookupError("no such shelf")


@app.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


client = TestClient(app, raise_server_exceptions=False)
assert client.get("/items/7", headers={"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}).json() == {"item": 7}
assert client.get("/broken").status_code == 500
with client.websocket_connect("/socket") as connection:
    connection.send_text("hello")
    assert connection.receive_text() == "hello"
