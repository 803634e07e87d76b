"""Under gunicorn and uvicorn, the real ones: every worker reports as its own, and stopping them loses nothing."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time

import pytest
from servers.ports import free_port

WSGI = """
import micromegas as mm

if {at_import}:
    mm.init()

def app(environ, start_response):
    mm.log.info("served %s", environ["PATH_INFO"])
    start_response("200 OK", [("content-length", "2")])
    return [b"ok"]
"""
GUNICORN_CONFIG = """
import micromegas as mm

def post_fork(server, worker):
    mm.init()  # takes over what a fork of a recorded master began
"""
ASGI = """
import contextlib, os
import micromegas as mm

mm.init()

@contextlib.asynccontextmanager
async def lifespan():
    mm.log.info("begins")
    yield
    mm.log.info("ends")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        async with lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    mm.log.info("served %s", scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
PATIENCE_S = 60


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers={"connection": "close"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@pytest.fixture
def port():
    return free_port()


@contextlib.contextmanager
def running(server, folder, *command):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    environment = inherited | {"MICROMEGAS_TELEMETRY_URL": server.url}
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    return process.returncode


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("where", ["at import", "after fork"])
def test_gunicorn(server, tmp_path, port, preload, where):
    pytest.importorskip("gunicorn", reason="needs gunicorn")
    (tmp_path / "service.py").write_text(WSGI.format(at_import=where == "at import"))
    (tmp_path / "gunicorn.conf.py").write_text(GUNICORN_CONFIG if where == "after fork" else "")
    command = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "2", "--no-control-socket", "service:app"]
    with running(server, tmp_path, *command, *(["--preload"] if preload else [])) as process:
        wait_until(lambda: get(port, "/first") == 200, "gunicorn answers")
        for number in range(20):
            assert get(port, f"/{number}") == 200
        assert stop(process) == 0
    captured = server.captured
    served = [message for message in captured.messages() if message.startswith("served")]
    assert sorted(served) == sorted(["served /first", *(f"served /{number}" for number in range(20))])
    parents = {process["process_id"]: process["parent_process_id"] for process in captured.processes}
    master = preload and where == "at import"
    assert len(parents) == 2 + master
    assert sum(parent is not None for parent in parents.values()) == (2 if master else 0)


def test_uvicorn(server, tmp_path, port):
    pytest.importorskip("uvicorn", reason="needs uvicorn")
    (tmp_path / "service.py").write_text(ASGI)
    with running(server, tmp_path, "uvicorn", "--port", str(port), "service:app") as process:
        wait_until(lambda: get(port, "/first") == 200, "uvicorn answers")
        # it stops in order, then dies by the signal that it was sent
        assert stop(process) == -signal.SIGTERM
    # the server's own messages come through the logging bridge
    ours = [message for message in server.captured.messages() if message in ("begins", "served /first", "ends")]
    assert ours == ["begins", "served /first", "ends"]


@pytest.mark.parametrize("option", [["--workers", "2"], ["--reload"]])
def test_uvicorn_with_workers(server, tmp_path, port, option):
    pytest.importorskip("uvicorn", reason="needs uvicorn")
    (tmp_path / "service.py").write_text(ASGI)
    with running(server, tmp_path, "uvicorn", "--port", str(port), *option, "service:app") as process:
        wait_until(lambda: get(port, "/first") == 200, "uvicorn answers")
        for number in range(10):
            assert get(port, f"/{number}") == 200
        stop(process)
    captured = server.captured
    served = [message for message in captured.messages() if message.startswith("served")]
    assert sorted(served) == sorted(["served /first", *(f"served /{number}" for number in range(10))])
    assert captured.messages().count("begins") == captured.messages().count("ends") == len(captured.processes)
