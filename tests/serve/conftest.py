"""A Flight SQL server over plain tables: the protocol is tested on its own, against an engine of the same interface as
the real one."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import datafusion
import pyarrow as pa
import pytest
from pyarrow import flight

from micromegas.config import FlightSettings, HttpSettings
from micromegas.query import QueryError, QueryRequest, StatementDescription, TableDescription
from micromegas.serve.flight.server import FlightServer
from micromegas.serve.http.app import QueryApi
from micromegas.serve.http.listener import Listener

TS = pa.timestamp("ns", tz="+00:00")


def example_tables() -> dict[str, pa.Table]:
    names = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 1, 0], pa.int32()), pa.array(["zero", "öne ☃"]))
    nested = pa.StructArray.from_arrays([names, pa.array([1, 2, 3, 4, 5])], names=["word", "number"])
    listed = pa.ListArray.from_arrays(pa.array([0, 2, 2, 5, 5, 5], pa.int32()), names)
    return {
        "events": pa.table(
            {
                "time": pa.array([0, 1, 10**18, 10**18 + 1, 2 * 10**18], TS),
                "word": names,
                "nested": nested,
                "listed": listed,
                "text": pa.array(["a", None, "c", "", "ü"]),
                "value": pa.array([1.5, None, float("inf"), -0.0, 1e300]),
            }
        ),
        "wide": pa.table({"n": pa.array(range(200_000), pa.int64()), "pad": pa.array(["x" * 40] * 200_000)}),
        "repeated": pa.table(
            {"huge": pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), pa.array(["y" * 20_000]))}
        ),
        "views": pa.table(
            {
                "sv": pa.array(["short", "longer than twelve bytes", None], pa.string_view()),
                "bv": pa.array([b"short", b"longer than twelve bytes", None], pa.binary_view()),
                "ls": pa.array(["a", None, "c"], pa.large_string()),
                "us": pa.array([0, 1, None], pa.timestamp("us", tz="UTC")),
                "naive": pa.array([0, 1, None], pa.timestamp("s")),
                "ll": pa.array([["a"], None, []], pa.large_list(pa.large_string())),
                "m": pa.array([[("k", "v")], None, []], pa.map_(pa.string(), pa.large_string())),
                "fsl": pa.array([["a", "b"], None, ["c", None]], pa.list_(pa.large_string(), 2)),
            }
        ),
    }


class TableStream:
    def __init__(self, engine: "TableEngine", frame: datafusion.DataFrame, sql: str, limit: int | None) -> None:
        self.schema = frame.schema()
        self._stream = frame.limit(limit).execute_stream() if limit is not None else frame.execute_stream()
        self._engine = engine
        self._sql = sql
        self._batches = 0
        self.closed = False

    def __aiter__(self) -> "TableStream":
        return self

    async def __anext__(self) -> pa.RecordBatch:
        if "panic_midway" in self._sql:
            raise RustPanic("midway")
        if "exhaust_late" in self._sql and self._batches > 2:
            raise QueryError("exhausted", "memory is used up")
        if "exhaust_midway" in self._sql:
            raise QueryError("exhausted", "memory is used up")
        if "wait_for_ever" in self._sql:
            self._engine.waiting.set()
            await asyncio.Event().wait()
        try:
            batch = await self._stream.__anext__()
        except StopAsyncIteration:
            raise
        except Exception as error:
            raise QueryError("invalid", str(error)) from None
        self._batches += 1
        return pa.RecordBatch.from_arrays(batch.to_pyarrow().columns, schema=self.schema)

    async def aclose(self) -> None:
        self._stream = None
        self.closed = True
        self._engine.closed.set()


class RustPanic(BaseException):
    """Stands for pyo3's PanicException, which is no Exception."""


class TableEngine:
    """DataFusion over `example_tables()`; some words in the text make it fail in certain ways."""

    def __init__(self) -> None:
        self.context = datafusion.SessionContext(
            datafusion.SessionConfig().set("datafusion.sql_parser.map_string_types_to_utf8view", "false")
        )
        self.data = example_tables()
        for name, table in self.data.items():
            self.context.register_record_batches(name, [table.to_batches()])
        self.requests: list[QueryRequest] = []
        self.described_for_administrators: bool | None = None
        self.closed = threading.Event()
        self.waiting = threading.Event()

    def forget(self) -> None:
        """What was asked of it before."""
        self.requests.clear()
        self.closed.clear()
        self.waiting.clear()

    def _plan(self, sql: str, parameters: Mapping[str, pa.Scalar]) -> datafusion.DataFrame:
        if "panic" in sql and "midway" not in sql:
            raise RustPanic("while planning")
        if "bug" in sql:
            raise RuntimeError("secret path /home/x")
        if (match := re.search(r"fail_(\w+?)_(\d+)", sql)) is not None:
            raise QueryError(match[1], "é" * int(match[2]))
        try:
            values = {name: value.as_py() for name, value in parameters.items()}
            return self.context.sql(sql.strip().rstrip(";"), param_values=values or None)
        except Exception as error:
            raise QueryError("invalid", str(error)) from None

    def describe(
        self, sql: str, parameters: Mapping[str, pa.Scalar] | None = None, *, administers: bool = False
    ) -> StatementDescription:
        self.described_for_administrators = administers
        frame = self._plan(sql, parameters or {})
        found = sorted({int(number) for number in re.findall(r"\$(\d+)", sql)})
        fields = [pa.field(str(number), pa.int64()) for number in found]
        return StatementDescription(frame.schema(), pa.schema(fields))

    async def execute(self, request: QueryRequest) -> TableStream:
        self.requests.append(request)
        self.closed.clear()
        frame = self._plan(request.sql, request.parameters)
        try:
            return TableStream(self, frame, request.sql, request.limit)
        except Exception as error:
            raise QueryError("invalid", str(error)) from None

    def tables(self) -> list[TableDescription]:
        return [TableDescription(name, table.schema) for name, table in sorted(self.data.items())]


class Running:
    """An event loop in a thread, an engine, and a server of either protocol."""

    server: FlightServer | Listener

    def __init__(self) -> None:
        self.engine = TableEngine()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def stop(self) -> None:
        self.call(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()


class RunningServer(Running):
    """A Flight SQL server."""

    def __init__(self, settings: FlightSettings) -> None:
        super().__init__()
        self.now = 0.0
        self.server = FlightServer(self.engine, settings, version="test", clock=lambda: self.now)
        self.call(self.server.start())
        self.uri = f"grpc://127.0.0.1:{self.server.port}"


class RunningApi(Running):
    """A server of queries over HTTP."""

    def __init__(self, settings: HttpSettings) -> None:
        super().__init__()
        self.server = Listener(QueryApi(self.engine, settings, time.time_ns), settings)
        self.call(self.server.start())
        self.port = self.server.port


StartServer = Callable[..., RunningServer]
StartApi = Callable[..., RunningApi]


@pytest.fixture
def start_server(started: ExitStack) -> StartServer:
    """Starts servers of Flight SQL with given settings on free ports."""

    def start(**settings: Any) -> RunningServer:
        chosen = FlightSettings(**{"port": 0, "drain_timeout_s": 0.0, **settings})
        return started.enter_context(stopped(RunningServer(chosen)))

    return start


@pytest.fixture
def start_api(started: ExitStack) -> StartApi:
    """Starts servers of HTTP likewise."""

    def start(**settings: Any) -> RunningApi:
        return started.enter_context(
            stopped(RunningApi(HttpSettings(**{"port": 0, "drain_timeout_s": 0.0, **settings})))
        )

    return start


@pytest.fixture
def started() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


AnyRunning = TypeVar("AnyRunning", bound=Running)


@contextmanager
def stopped(running: AnyRunning) -> Iterator[AnyRunning]:
    """Stops the server at the end."""
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def shared_api() -> Iterator[RunningApi]:
    with stopped(RunningApi(HttpSettings(port=0, drain_timeout_s=0.0))) as running:
        yield running


@pytest.fixture
def api(shared_api: RunningApi) -> RunningApi:
    shared_api.engine.forget()
    return shared_api


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with stopped(RunningServer(FlightSettings(port=0, drain_timeout_s=0.0))) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[flight.FlightClient]:
    with flight.connect(server.uri) as connected:
        yield connected


@pytest.fixture
def engine(server: RunningServer) -> TableEngine:
    server.engine.forget()
    return server.engine


def wait_until(condition, seconds: float = 30.0) -> None:
    """For events that other threads bring about; the limit only ends a test that would never end."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.005)
