"""A WSGI server of greenlets, with our middleware, our context and OpenTelemetry's spans in each request."""

from gevent import monkey

monkey.patch_all()

import urllib.request  # noqa: E402 - all that has sockets comes after the patches

import gevent  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402
from opentelemetry import trace  # noqa: E402

import micromegas as mm  # noqa: E402

mm.init()
mm.install_otel()
tracer = trace.get_tracer("app")
everybody_is_here = gevent.event.Event()
here = []


def app(environ, start_response):
    name = environ["PATH_INFO"].strip("/")
    mm.bind(request=name)
    with tracer.start_as_current_span(f"outer {name}"):
        here.append(name)
        if len(here) == 3:
            everybody_is_here.set()
        everybody_is_here.wait(60)
        with tracer.start_as_current_span(f"inner {name}"):
            gevent.sleep(0)
        mm.log.info("in %s", name)
    start_response("200 OK", [])
    return [b"done"]


server = WSGIServer(("127.0.0.1", 0), mm.WsgiMiddleware(app), log=None)
server.start()
urls = [f"http://127.0.0.1:{server.server_port}/{name}" for name in "abc"]
asking = [gevent.spawn(lambda url=url: urllib.request.urlopen(url, timeout=60).read()) for url in urls]
assert [request.get() for request in asking] == [b"done"] * 3
with mm.span("of the thread"):
    pass
assert mm.flush(60)
assert mm.status()["mended_spans"] == {"no_begin": 0, "no_end": 0, "left_open": 0}
