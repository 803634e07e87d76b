"""A server that keeps what recorders send, and programs run against it in processes of their own."""

import os
import ssl
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from servers.authority import Authority
from servers.threaded_http import ThreadedHttpServer
from spools import forget_buffers, spool_below

from micromegas import _core

KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
# Of a program that has begun to record beside what killed ones left: until all of that has arrived.
WAIT_RECOVERED = """
import os, time
deadline = time.monotonic() + 60
def dead():
    return [name for name in os.listdir("spool") if len(name) == 36 and name != mm.status()["process_id"]]
while dead():
    assert time.monotonic() < deadline, dead()
    mm.log.info("are you there")
    mm.flush(5); time.sleep(0.02)
"""

PROCESS_FIELDS = (
    "process_id",
    "exe",
    "username",
    "realname",
    "computer",
    "distro",
    "cpu_brand",
    "tsc_frequency",
    "start_time",
    "start_ticks",
    "parent_process_id",
    "properties",
)


@dataclass
class Request:
    route: str
    authorization: str | None
    body: bytes
    status: int
    headers: dict[str, str]


Answer = int | tuple[int, dict[str, str]] | None
"""A status, with headers; None hangs up."""


@dataclass
class Block:
    block_id: str
    stream_id: str
    process_id: str
    begin_time: int
    end_time: int
    begin_ticks: int
    end_ticks: int
    payload: bytes
    object_offset: int
    nb_objects: int
    tag: str = ""
    stream_properties: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Captured:
    """What arrived (status 200), decoded; a block repeated counts once, as in a server."""

    requests: list[Request]

    def accepted(self, route: str) -> list[bytes]:
        return [request.body for request in self.requests if request.route == route and request.status == 200]

    @property
    def processes(self) -> list[dict[str, Any]]:
        bodies = self.accepted("insert_process")
        return [dict(zip(PROCESS_FIELDS, _core.parse_process(body), strict=True)) for body in bodies]

    @property
    def blocks(self) -> list[Block]:
        streams = {stream[1]: stream for stream in map(_core.parse_stream, self.accepted("insert_stream"))}
        blocks = {}
        for body in self.accepted("insert_block"):
            block = Block(*_core.parse_block(body))
            _, _, dependencies, objects, tags, properties, stream_format = streams[block.stream_id]
            block.tag, block.stream_properties = tags[0], properties
            block.events = _core.decode_events(dependencies, objects, block.payload, format=stream_format)
            assert len(block.events) == block.nb_objects
            blocks[block.block_id] = block
        return sorted(blocks.values(), key=lambda block: (block.stream_id, block.object_offset))

    def events(self, tag: str, process_id: str | None = None) -> list[dict[str, Any]]:
        return [
            event
            for block in self.blocks
            if block.tag == tag and process_id in (None, block.process_id)
            for event in block.events
        ]

    def messages(self, process_id: str | None = None) -> list[str]:
        return [event.get("msg", event["desc"]["fmt_str"]) for event in self.events("log", process_id)]

    def measures(self, name: str, process_id: str | None = None) -> list[int | float]:
        events = self.events("metrics", process_id)
        return [event["value"] for event in events if event["desc"]["name"] == name]

    def threads(self) -> dict[str, list[dict[str, Any]]]:
        """Span events of each cpu stream, by thread name (or stream id)."""
        threads: dict[str, list[dict[str, Any]]] = {}
        for block in self.blocks:
            if block.tag == "cpu":
                name = block.stream_properties.get("thread-name", block.stream_id)
                threads.setdefault(name, []).extend(block.events)
        return threads


class CaptureServer(ThreadedHttpServer):
    """Answers each request with `answer(route, number of this request)`: a status, or None to hang up.

    Or with `answer_request(route, headers, body)`, which may take its time, also give headers, and is asked for several
    at once.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[str, int], int | None] = lambda route, number: 200
        self.answer_request: Callable[[str, dict[str, str], bytes], Answer] | None = None
        self.lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if len(body) < int(self.headers["content-length"]):
                    self.close_connection = True  # the client was killed
                    return
                prefix, _, route = self.path.rpartition("/")
                answer = None
                received = {name.lower(): value for name, value in self.headers.items()}
                if owner.answer_request is not None:
                    answer = owner.answer_request(route, received, body)
                with owner.lock:
                    if owner.answer_request is None:
                        answer = owner.answer(route, len(owner.requests)) if prefix == "/ingestion" else 404
                    status, headers = answer if isinstance(answer, tuple) else (answer, {})
                    request = Request(route, self.headers["authorization"], body, status or 0, received)
                    owner.requests.append(request)
                if status is None:
                    self.close_connection = True
                    return
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(Handler)

    def encrypt(self, certificate: Path, **settings: object) -> str:
        """Speaks TLS from now on, with a context that has these settings; its url."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        for name, value in settings.items():
            setattr(context, name, value)
        if context.verify_mode == ssl.CERT_REQUIRED:
            context.load_verify_locations(certificate.parent / "ca.pem")
        # The handshake is the handler thread's business, or a client that makes none would stop all.
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.server.handle_error = lambda *_: None
        return self.url.replace("http:", "https:")

    @property
    def captured(self) -> Captured:
        with self.lock:
            return Captured(list(self.requests))

    def routes(self) -> Counter[str]:
        return Counter(request.route for request in self.captured.requests)


@dataclass
class Finished:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(autouse=True)
def own_spool(tmp_path: Path) -> Iterator[None]:
    """No test finds what a program of another one left, nor leaves any.

    With patches of its own: those of a test must be undone before what the test leaves is looked at.
    """
    with spool_below(tmp_path / "state"), pytest.MonkeyPatch.context() as environment:
        environment.setenv("MICROMEGAS_SPOOL_DIR", str(tmp_path / "spool"))
        yield
    forget_buffers(tmp_path / "spool")


@pytest.fixture
def server() -> Iterator[CaptureServer]:
    capture = CaptureServer()
    yield capture
    capture.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def run(server: CaptureServer, tmp_path: Any) -> Callable[..., Finished]:
    """Runs a program text as a script, `mm` imported, against the server; fails when it does, unless told otherwise."""

    def run_program(
        text: str, *, env: dict[str, str] | None = None, returncode: int | None = 0, args: tuple[str, ...] = ()
    ) -> Finished:
        script = tmp_path / "program.py"
        script.write_text("import micromegas as mm\n" + textwrap.dedent(text), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
        environment |= {"MICROMEGAS_TELEMETRY_URL": server.url, "PYTHONFAULTHANDLER": "1"}
        environment["MICROMEGAS_SPOOL_DIR"] = os.environ["MICROMEGAS_SPOOL_DIR"]
        environment["MICROMEGAS_SYSTEM_METRICS"] = "off"  # what a program leaves is all there is
        environment |= env or {}
        process = subprocess.run(
            [sys.executable, *args, str(script)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            check=False,
        )
        if returncode is not None:
            assert process.returncode == returncode, process.stderr
        return Finished(process.returncode, process.stdout, process.stderr)

    return run_program
