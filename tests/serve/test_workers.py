"""Workers behind one port, as real processes: which one a connection lands on must make no difference, and whatever
happens to one, the others go on and a successor comes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from deadlines import started
from e2e.posting import wait_until
from pyarrow import flight

from micromegas.config import FlightSettings, HttpSettings, LakeSettings, PostgresSettings, QuerySettings
from micromegas.serve.connection_counts import SLOTS
from micromegas.serve.flight import messages
from micromegas.serve.node import Node
from micromegas.serve.node_settings import NodeSettings
from micromegas.serve.ports import ListenError, listening
from micromegas.serve.workers import process
from micromegas.serve.workers.process import WorkerFailed
from micromegas.serve.workers.shared_port import SharedPort

TIMEOUT_S = 4.0
ONE = "SELECT 1 AS one"
ROWS = "SELECT value, repeat('x', 1000) AS pad FROM generate_series(1, 100000000)"
AGGREGATE = "SELECT value % 1000 AS k, count(*) FROM generate_series(1, 1000000000000) GROUP BY 1"
# Its operator computes for minutes before it looks whether anybody still wants its rows.
CROSS_JOIN = (
    "SELECT count(*) FROM generate_series(1, 3000000) a, generate_series(1, 300000) b WHERE a.value + b.value < 0"
)


class Workers:
    """A node with two workers, in an event loop of a thread."""

    def __init__(self, settings: NodeSettings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.node = Node(settings, "test")
        self.addresses = self._call(self.node.start())
        self.uri = self.addresses.get("queries", "")

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)

    @property
    def pids(self) -> list[int]:
        assert self.node._supervisor is not None
        return self.node._supervisor.pids

    @contextmanager
    def connected(self, pid: int | None = None) -> Iterator[tuple[flight.FlightClient, int]]:
        """A client and the worker that it is connected to, which is the given one."""
        with ExitStack() as others:
            for _ in range(20):
                before = connections(self.pids)
                client = others.enter_context(connected_to(self.uri))
                rows(client, ONE)
                (found,) = {worker for worker, _ in connections(self.pids) - before}
                if pid in (None, found):
                    break
            else:
                raise AssertionError(f"no connection to {pid}")
            yield client, found

    def stop(self) -> None:
        self._call(self.node.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()


def connected_to(uri: str) -> flight.FlightClient:
    """By a connection of its own."""
    return flight.connect(uri, generic_options=[("grpc.use_local_subchannel_pool", 1)])


def connections(pids: list[int]) -> set[tuple[int, str]]:
    """The TCP sockets of processes: process id and what names the socket."""
    # gRPC listens for both versions at once, which makes connections of either look like the newer one's
    lines = [line for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    established = {line.split()[9] for line in lines if line.split()[3] == "01"}
    found = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(entry)
            except FileNotFoundError:
                continue
            if target.startswith("socket:[") and target[8:-1] in established:
                found.add((pid, target))
    return found


def ticket(sql: str) -> flight.Ticket:
    return flight.Ticket(messages.pack("TicketStatementQuery", statement_handle=sql.encode()))


def rows(client: flight.FlightClient, sql: str) -> pa.Table:
    return client.do_get(ticket(sql)).read_all()


def info_of(client: flight.FlightClient, sql: str) -> flight.FlightInfo:
    command = messages.pack("CommandStatementQuery", query=sql)
    return client.get_flight_info(flight.FlightDescriptor.for_command(command))


def cancelled(client: flight.FlightClient, info: flight.FlightInfo) -> int:
    """What the server says to a request to end a query."""
    request = messages.new("CancelFlightInfoRequest", info=messages.parse("FlightInfo", info.serialize()))
    (result,) = client.do_action(flight.Action("CancelFlightInfo", request.SerializeToString()))
    return messages.parse("CancelFlightInfoResult", result.body.to_pybytes()).status


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def is_computing(pid: int) -> bool:
    """Whether a thread of the engine is at work, now and a little later."""
    for _ in range(4):
        if not any(thread_at_work(task) for task in Path(f"/proc/{pid}/task").iterdir()):
            return False
        threading.Event().wait(0.05)
    return True


def thread_at_work(task: Path) -> bool:
    try:
        name, _, rest = (task / "stat").read_text(errors="replace").partition("(")[2].rpartition(")")
    except OSError:
        return False
    return name.startswith("tokio") and rest.split()[0] == "R"


@contextmanager
def running(settings: NodeSettings) -> Iterator[Workers]:
    """Workers that are all gone when they were stopped."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TOKIO_WORKER_THREADS", "8")
        workers = Workers(settings)
        yield workers
        pids = workers.pids
        workers.stop()
    assert len(pids) == settings.workers
    assert not any(map(is_alive, pids))


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Two, which give little time to a query."""
    settings = NodeSettings(
        lake=LakeSettings(lake_dir=tmp_path_factory.mktemp("lake")),
        query=QuerySettings(statement_timeout_s=TIMEOUT_S),
        flight=FlightSettings(port=0, drain_timeout_s=0.2, write_timeout_s=30.0),
        http=HttpSettings(port=0, drain_timeout_s=0.2),
        workers=2,
    )
    with running(settings) as started:
        yield started


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """One, which gives a query more time than any test has, and a reader little."""
    settings = NodeSettings(
        lake=LakeSettings(lake_dir=tmp_path_factory.mktemp("lake")),
        query=QuerySettings(statement_timeout_s=3600.0),
        flight=FlightSettings(port=0, drain_timeout_s=0.2, write_timeout_s=0.5),
        workers=1,
    )
    with running(settings) as started:
        yield started


@pytest.fixture
def both(workers: Workers) -> tuple[int, int]:
    """The process ids of the two, once no worker of an earlier test is left."""
    wait_until(lambda: len(workers.pids) == 2, "two workers")
    first, second = workers.pids
    return first, second


def test_each_worker_gets_connections_on_the_one_port(workers: Workers, both: tuple[int, int]) -> None:
    for pid in both:
        with workers.connected(pid) as (client, found):
            assert found == pid
            assert rows(client, ONE).to_pydict() == {"one": [1]}


@pytest.mark.parametrize("role", ["queries", "api"])
def test_connections_are_spread_evenly(workers: Workers, both: tuple[int, int], role: str) -> None:
    supervisor = workers.node._supervisor
    assert supervisor is not None
    number = int(workers.addresses[role].rpartition(":")[2])
    (port,) = (each for each in supervisor._ports.values() if each.port == number)
    slots = [place.slot for place in supervisor._workers.values()]

    def counts() -> list[int]:
        return [port.connections(slot) or 0 for slot in slots]

    wait_until(lambda: sum(counts()) == 0, "the connections of other tests have ended")
    with ExitStack() as opened:
        for opened_so_far in range(1, 61):
            opened.enter_context(socket.create_connection(("127.0.0.1", number)))
            wait_until(lambda expected=opened_so_far: sum(counts()) == expected, "it is taken")
            # the one with fewer may be busy for longer than it is waited for; it takes the next then
            assert abs(counts()[0] - counts()[1]) <= 4


def test_new_connections_are_answered_though_a_worker_hangs(workers: Workers, both: tuple[int, int]) -> None:
    frozen, _ = both
    os.kill(frozen, signal.SIGSTOP)
    try:
        for _ in range(6):
            with connected_to(workers.uri) as client:
                answer = client.do_get(ticket(ONE), flight.FlightCallOptions(timeout=20)).read_all()
                assert answer.to_pydict() == {"one": [1]}
    finally:
        os.kill(frozen, signal.SIGCONT)


def test_killed_workers_leave_no_trace_among_the_counts(workers: Workers, both: tuple[int, int]) -> None:
    supervisor = workers.node._supervisor
    assert supervisor is not None
    for pid in both:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(workers.pids) == 2 and not {*both} & {*workers.pids}, "successors")
    taken = {place.slot for place in supervisor._workers.values()}
    assert len(supervisor._slots) == SLOTS - len(taken) == SLOTS - 2
    for port in supervisor._ports.values():
        wait_until(
            lambda port=port: {slot for slot in range(SLOTS) if port.connections(slot) is not None} == taken,
            "the successors take connections, and nobody else",
        )


def test_a_query_is_cancelled_from_wherever(workers: Workers, both: tuple[int, int]) -> None:
    running, other = both
    with workers.connected(running) as (client, _), workers.connected(other) as (second, _):
        info = info_of(second, ROWS)
        reader = client.do_get(info.endpoints[0].ticket)
        reader.read_chunk()
        assert cancelled(second, info) == messages.CANCELLED
        with pytest.raises(pa.ArrowException, match="cancelled on request"):
            reader.read_all()
        assert cancelled(second, info) == messages.NOT_CANCELLABLE


def test_a_worker_that_is_killed_has_a_successor_and_harms_no_other(workers: Workers, both: tuple[int, int]) -> None:
    killed, other = both
    with workers.connected(killed) as (client, _), workers.connected(other) as (bystander, _):
        lost, kept = client.do_get(ticket(ROWS)), bystander.do_get(ticket(ROWS))
        lost.read_chunk()
        kept.read_chunk()
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(flight.FlightUnavailableError):
            lost.read_all()
        assert kept.read_chunk().data.num_rows > 0
        kept.cancel()
        wait_until(lambda: killed not in workers.pids and len(workers.pids) == 2, "a successor")
        assert other in workers.pids
        assert rows(client, ONE).num_rows == 1
        (successor,) = set(workers.pids) - {other}
        with workers.connected(successor) as (third, _):
            assert rows(third, ONE).num_rows == 1


def test_what_cant_be_cancelled_ends_with_its_worker_at_the_time_limit(workers: Workers, both: tuple[int, int]) -> None:
    held, other = both
    with workers.connected(held) as (client, _), workers.connected(held) as (bystander, _):
        reader = bystander.do_get(ticket(ROWS))
        reader.read_chunk()
        with pytest.raises(pa.ArrowException, match="took longer than 4 s"):
            rows(client, CROSS_JOIN)
        wait_until(lambda: not is_alive(held), "the worker has ended")
        with pytest.raises(flight.FlightUnavailableError):
            reader.read_all()
        assert rows(bystander, ONE).num_rows == 1
    wait_until(lambda: len(workers.pids) == 2, "a successor")
    assert other in workers.pids


def test_a_worker_that_answers_nothing_is_replaced(workers: Workers, both: tuple[int, int]) -> None:
    frozen, other = both
    # as one does in which something holds the interpreter's lock
    os.kill(frozen, signal.SIGSTOP)
    wait_until(lambda: not is_alive(frozen) and len(workers.pids) == 2, "a successor")
    assert other in workers.pids


DYING = """
import sys
from pyarrow import flight
client = flight.connect(sys.argv[1])
client.do_get(flight.Ticket(bytes.fromhex(sys.argv[2]))).read_all()
"""


@pytest.mark.parametrize("how", ["cancels", "dies", "stalls"])
def test_a_client_that_leaves_frees_its_query(patient: Workers, how: str) -> None:
    (pid,) = patient.pids
    if how == "dies":
        command = [sys.executable, "-c", DYING, patient.uri, ticket(AGGREGATE).ticket.hex()]
        with started(command) as client:
            wait_until(lambda: is_computing(pid), "the query runs")
            client.kill()
    else:
        with patient.connected() as (client, _):
            # one that computes for long with nothing to say, one that waits for its reader
            reader = client.do_get(ticket(AGGREGATE if how == "cancels" else ROWS))
            if how == "cancels":
                wait_until(lambda: is_computing(pid), "the query runs")
                reader.cancel()
            else:
                reader.read_chunk()
                wait_until(lambda: not is_computing(pid), "the query waits")
    wait_until(lambda: not is_computing(pid), "the query's work has ended")
    assert patient.pids == [pid]
    with patient.connected() as (client, _):
        assert rows(client, ONE).num_rows == 1


def test_what_nobody_waits_for_ends_with_its_worker_at_once_where_that_harms_nobody(patient: Workers) -> None:
    (pid,) = patient.pids
    with patient.connected() as (client, _):
        reader = client.do_get(ticket(CROSS_JOIN))
        wait_until(lambda: is_computing(pid), "the query runs")
        reader.cancel()
    wait_until(lambda: not is_alive(pid) and len(patient.pids) == 1, "a successor")
    with patient.connected() as (client, _):
        assert rows(client, ONE).num_rows == 1


def test_the_port_is_kept_before_anybody_listens() -> None:
    kept = SharedPort("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        SharedPort("127.0.0.1", kept.port)
    kept.close()


def test_a_worker_that_hangs_does_not_hold_up_a_cancellation(tmp_path: Path) -> None:
    settings = NodeSettings(
        lake=LakeSettings(lake_dir=tmp_path), flight=FlightSettings(port=0, drain_timeout_s=0.2), workers=3
    )
    with running(settings) as three:
        busy, asked, frozen = three.pids
        with three.connected(busy) as (client, _), three.connected(asked) as (second, _):
            info = info_of(second, ROWS)
            reader = client.do_get(info.endpoints[0].ticket)
            reader.read_chunk()
            os.kill(frozen, signal.SIGSTOP)
            try:
                assert cancelled(second, info) == messages.CANCELLED
            finally:
                os.kill(frozen, signal.SIGCONT)
            with pytest.raises(pa.ArrowException, match="cancelled on request"):
                reader.read_all()


def test_a_worker_that_has_ended_already_does_not_disturb_the_stop(tmp_path: Path) -> None:
    async def stopped() -> None:
        node = Node(
            NodeSettings(lake=LakeSettings(lake_dir=tmp_path), flight=FlightSettings(port=0), workers=1), "test"
        )
        await node.start()
        supervisor = node._supervisor
        assert supervisor is not None
        (worker,) = supervisor._workers
        ending = asyncio.create_task(supervisor._end(worker))
        supervisor._ending.add(ending)
        # as the stop finds it: the end is in the turn of the loop in which the stop begins
        late = supervisor._end(worker)
        await ending
        await late
        await node.stop()

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TOKIO_WORKER_THREADS", "8")
        asyncio.run(stopped())


def test_nobody_else_gets_the_port(workers: Workers) -> None:
    port = int(workers.uri.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        listening("127.0.0.1", port)


def test_workers_that_cant_start_say_why(workers: Workers, tmp_path: Path) -> None:
    lake = LakeSettings(lake_dir=tmp_path / "lake")
    port = int(workers.uri.rpartition(":")[2])

    async def start(flight_settings: FlightSettings) -> None:
        await Node(NodeSettings(lake=lake, flight=flight_settings, workers=2), "test").start()

    with pytest.raises(ListenError, match=f"flight sql can't listen on 127.0.0.1 port {port}.*in use"):
        asyncio.run(start(FlightSettings(port=port)))
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("")
    with pytest.raises(ListenError, match=r"nothing\.pem or its key can't be used"):
        asyncio.run(start(FlightSettings(port=0, tls_certificate=nothing, tls_key=nothing)))


def test_what_cant_be_cancelled_ends_with_the_gateway_at_the_time_limit(tmp_path: Path) -> None:
    settings = NodeSettings(
        lake=LakeSettings(lake_dir=tmp_path),
        query=QuerySettings(statement_timeout_s=TIMEOUT_S),
        postgres=PostgresSettings(port=0, drain_timeout_s=0.2),
        workers=1,
    )
    # of the lake, so that the gateway doesn't leave it to its catalogue
    cross_join = CROSS_JOIN.replace("count(*)", "count(*) + (SELECT count(*) FROM blocks)", 1)
    with running(settings) as gateway:
        (held,) = gateway.pids
        port = gateway.addresses["postgresql"].rpartition(":")[2]
        address = f"host=127.0.0.1 port={port} user=anybody dbname=micromegas"
        with psycopg.connect(address, autocommit=True) as session, pytest.raises(psycopg.errors.QueryCanceled):
            session.execute(cross_join.encode())
        wait_until(lambda: not is_alive(held) and len(gateway.pids) == 1, "a successor")
        with psycopg.connect(address, autocommit=True) as session:
            assert session.execute("SELECT count(*) FROM blocks").fetchone() == (0,)


def test_a_worker_that_does_not_start_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = worker_pids()
    # an interpreter alone takes longer
    monkeypatch.setattr(process, "START_S", 0.001)
    settings = NodeSettings(lake=LakeSettings(lake_dir=tmp_path), flight=FlightSettings(port=0), workers=2)
    with pytest.raises(WorkerFailed, match="did not start within"):
        asyncio.run(Node(settings, "test").start())
    assert worker_pids() <= before


def worker_pids() -> set[str]:
    """Of all workers that this process has started."""
    pids = {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}
    return {pid for pid in pids if "micromegas.serve.workers" in command_line(pid)}


def command_line(pid: str) -> str:
    """Empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_memory_is_parted() -> None:
    whole = QuerySettings(memory_bytes=1000, spill_bytes=100, hot_bytes=10, query_memory_bytes=400)
    lake = LakeSettings(lake_dir=Path("lake"))
    here, others = NodeSettings(lake=lake, query=whole, flight=FlightSettings(), workers=5).parted()
    assert here.flight is None
    assert [each.query.memory_bytes for each in others] == [200] * 5
    assert others[0].query.share_bytes == 200
    assert (others[0].query.spill_bytes, others[0].query.hot_bytes) == (20, 2)
    assert NodeSettings(lake=lake, query=whole, flight=FlightSettings()).parted()[1] == ()
