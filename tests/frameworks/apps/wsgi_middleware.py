"""Flask under our own WSGI middleware."""

from collections.abc import Iterator

from flask import Flask

import micromegas as mm

mm.init()
app = Flask(__name__)
app.wsgi_app = mm.WsgiMiddleware(app.wsgi_app, log_requests=True)  # type: ignore[method-assign]


@app.get("/items/<int:item>")
def read(item: int) -> str:
    return str(item)


@app.get("/stream")
def stream() -> Iterator[str]:
    yield from "abc"


client = app.test_client()
assert client.get("/items/7", headers={"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}).text == "7"
assert client.get("/stream").text == "abc"
assert client.get("/nowhere").status_code == 404
