"""Flask under OpenTelemetry's instrumentation."""

from flask import Flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor

import micromegas as mm

mm.init()
mm.install_otel()
app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)


@app.get("/items/<int:item>")
def read(item: int) -> str:
    with mm.span("look up"):
        mm.log.info("looking up %d", item)
    return str(item)


@app.get("/broken")
def broken() -> str:
    raise LookupError("no such shelf")


client = app.test_client()
header = {"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}
assert client.get("/items/7", headers=header).text == "7"
assert client.get("/broken").status_code == 500
