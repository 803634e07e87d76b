"""Callers that send garbage, stall, vanish, or have no key: each gets a clean status and the server goes on."""

import asyncio
import random
import sys
import threading
import time
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from deadlines import started
from pyarrow import flight
from servers.authority import Authority

from micromegas.config import ApiKey, FlightSettings
from micromegas.serve.flight import messages
from micromegas.serve.flight.server import FlightServer
from micromegas.serve.flight.statements import MAX_BOUND_BYTES

SERVICE = "/arrow.flight.protocol.FlightService/"
UNARY = ["GetFlightInfo", "GetSchema"]
STREAMING = ["DoGet", "DoAction"]
WAITING = "SELECT n FROM wide -- wait_for_ever"
CLEAN = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED}


def ticket(sql: str) -> flight.Ticket:
    return flight.Ticket(messages.pack("TicketStatementQuery", statement_handle=sql.encode()))


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.server.port}") as opened:
        yield opened


def call(channel, method: str, body: bytes, metadata=()):
    """The status of one raw call, OK included, and its text."""
    try:
        if method in UNARY:
            channel.unary_unary(SERVICE + method)(body, timeout=60, metadata=metadata)
        elif method in STREAMING:
            list(channel.unary_stream(SERVICE + method)(body, timeout=60, metadata=metadata))
        else:
            list(channel.stream_stream(SERVICE + method)(iter([body]), timeout=60, metadata=metadata))
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def assert_alive(channel):
    assert call(channel, "DoGet", b"\x0a\x0bSELECT 1 AS")[0] in CLEAN
    body = messages.new("Ticket", ticket=messages.pack("TicketStatementQuery", statement_handle=b"SELECT 1"))
    assert call(channel, "DoGet", body.SerializeToString()) == (grpc.StatusCode.OK, "")


BODIES = {
    "empty": b"",
    "garbage": b"\xff\xfe\xfd" * 50,
    "wrong wire type": b"\x08\x96\x01",
    "huge length": b"\x0a\xff\xff\xff\xff\x0f",
    "ticket of garbage": messages.new("Ticket", ticket=b"\xff" * 100).SerializeToString(),
    "empty ticket": messages.new("Ticket").SerializeToString(),
    "not utf-8": messages.new("Ticket", ticket=messages.pack("TicketStatementQuery", statement_handle=b"\xc3\x28")),
    "bare, not utf-8": messages.new("Ticket", ticket=b"\x0a\x02\xc3\x28"),
    "unknown command": messages.new(
        "Ticket", ticket=messages.new("Any", type_url="a/b", value=b"c").SerializeToString()
    ),
    "action result": messages.new("Ticket", ticket=messages.pack("DoPutUpdateResult", record_count=1)),
    "path": messages.new("FlightDescriptor", type=1, path=["a", "b"]),
    "no command": messages.new("FlightDescriptor", type=2),
    "huge enum": messages.new("FlightDescriptor", type=2**31 - 1, cmd=b"x"),
    "unknown action": messages.new("Action", type="x" * 100_000, body=b"y"),
    "wrong action body": messages.new(
        "Action", type="CreatePreparedStatement", body=messages.pack("CommandGetTables", include_schema=True)
    ),
    "session garbage": messages.new("Action", type="SetSessionOptions", body=b"\xff\xff"),
    "nul": messages.new("Ticket", ticket=messages.pack("TicketStatementQuery", statement_handle=b"SELECT '\0'\0")),
}
BODIES = {name: body if isinstance(body, bytes) else body.SerializeToString() for name, body in BODIES.items()}


@pytest.mark.parametrize("method", [*UNARY, *STREAMING, "DoPut"])
@pytest.mark.parametrize("name", BODIES)
def test_malformed_requests_get_clean_errors(channel, method, name):
    status, text = call(channel, method, BODIES[name])
    assert status in CLEAN, text
    assert "Traceback" not in text
    assert len(text) <= 1500
    assert_alive(channel)


def test_mutated_requests_never_end_the_server_or_show_its_inside(channel):
    chance = random.Random(20261122)
    good = [
        ("GetFlightInfo", descriptor("CommandStatementQuery", query="SELECT * FROM events")),
        ("GetFlightInfo", descriptor("CommandGetTables", include_schema=True, table_types=["table"])),
        ("GetSchema", descriptor("CommandGetSqlInfo", info=[1, 2, 3])),
        ("DoGet", messages.new("Ticket", ticket=messages.pack("CommandGetTables", include_schema=True))),
        ("DoGet", messages.new("Ticket", ticket=messages.pack("TicketStatementQuery", statement_handle=b"SELECT 1"))),
        ("DoAction", create("SELECT ? + 1")),
        ("DoPut", put_parameters()),
    ]
    good = [(method, body.SerializeToString()) for method, body in good]
    for _ in range(600):
        method, body = chance.choice(good)
        mutated = bytearray(body)
        for _ in range(chance.randint(1, 6)):
            kind = chance.randrange(3)
            position = chance.randrange(len(mutated) + 1)
            if kind == 0 and position < len(mutated):
                mutated[position] ^= 1 << chance.randrange(8)
            elif kind == 1:
                mutated[position:position] = chance.randbytes(chance.randint(1, 8))
            else:
                del mutated[position : position + chance.randint(1, 8)]
        status, text = call(channel, method, bytes(mutated))
        assert status in CLEAN | {grpc.StatusCode.OK}, (method, bytes(mutated), text)
        assert "Traceback" not in text
    assert_alive(channel)


def descriptor(name: str, **fields):
    return messages.new("FlightDescriptor", type=messages.DESCRIPTOR_TYPE_CMD, cmd=messages.pack(name, **fields))


def create(sql: str):
    body = messages.pack("ActionCreatePreparedStatementRequest", query=sql)
    return messages.new("Action", type="CreatePreparedStatement", body=body)


def put_parameters(**fields):
    schema = pa.schema([("a", pa.int64())]).serialize()
    return messages.new(
        "FlightData",
        flight_descriptor=descriptor("CommandPreparedStatementQuery", prepared_statement_handle=b"SELECT $1"),
        data_header=bytes(schema)[8:],
        **fields,
    )


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b"\xff\xff"],
        [b""],
        [put_parameters(data_body=b"surplus").SerializeToString()],
        [put_parameters().SerializeToString(), b"\x12\x04\x00\x00\x00\x00"],
        [
            put_parameters().SerializeToString(),
            messages.new("FlightData", data_header=b"\x10" * 64).SerializeToString(),
        ],
        [put_parameters().SerializeToString(), put_parameters().SerializeToString()],
    ],
)
def test_malformed_puts_get_clean_errors(channel, frames):
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream(SERVICE + "DoPut")(iter(frames), timeout=60))
    assert caught.value.code() in CLEAN
    assert_alive(channel)


def test_a_record_batch_that_is_cut_off_is_refused(channel):
    batch = pa.RecordBatch.from_arrays([pa.array([1])], names=["a"])
    encapsulated = bytes(batch.serialize())
    header_end = 8 + int.from_bytes(encapsulated[4:8], "little")
    cut = messages.new("FlightData", data_header=encapsulated[8:header_end], data_body=encapsulated[header_end:-4])
    frames = iter([put_parameters().SerializeToString(), cut.SerializeToString()])
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream(SERVICE + "DoPut")(frames, timeout=60))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_parameters_that_inflate_to_too_much_are_refused_as_they_are(channel):
    sink = pa.BufferOutputStream()
    batch = pa.RecordBatch.from_arrays([pa.array([bytes(MAX_BOUND_BYTES)])], names=["a"])
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    schema, rows = (
        messages.new("FlightData", data_header=bytes(message.metadata), data_body=bytes(message.body or b""))
        for message in pa.ipc.MessageReader.open_stream(sink.getvalue())
    )
    assert len(rows.data_body) < 10_000
    schema.flight_descriptor.MergeFrom(put_parameters().flight_descriptor)
    frames = iter([schema.SerializeToString(), rows.SerializeToString()])
    with pytest.raises(grpc.RpcError, match="a batch of more than") as caught:
        list(channel.stream_stream(SERVICE + "DoPut")(frames, timeout=60))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_the_update_call_is_refused_before_a_schema_is_sent(channel):
    """Go's client sends a descriptor alone and waits: reading on would hang it."""

    def frames():
        data = messages.new("FlightData", flight_descriptor=descriptor("CommandStatementUpdate", query="DELETE FROM x"))
        yield data.SerializeToString()
        answered.wait(60)

    answered = threading.Event()
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream(SERVICE + "DoPut")(frames(), timeout=60))
    answered.set()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "read-only" in caught.value.details()


def test_calls_that_do_not_exist_are_unimplemented(channel):
    for method in ("ListFlights", "PollFlightInfo", "DoExchange", "Invented"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(SERVICE + method)(b"", timeout=60)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_binary_header_values_are_no_harm(channel):
    body = messages.new("Ticket", ticket=messages.pack("TicketStatementQuery", statement_handle=b"SELECT 1"))
    status, _ = call(channel, "DoGet", body.SerializeToString(), metadata=[("junk-bin", b"\xff\x00"), ("limit", "5")])
    assert status == grpc.StatusCode.OK


# cancellation


def test_a_cancelled_reader_ends_the_query(client, engine):
    reader = client.do_get(ticket(WAITING))
    assert reader.schema.names == ["n"]
    assert engine.waiting.wait(30)
    reader.cancel()
    assert engine.closed.wait(30)


VANISHING = """
import sys
import pyarrow.flight
reader = pyarrow.flight.connect(sys.argv[1]).do_get(pyarrow.flight.Ticket(bytes.fromhex(sys.argv[2])))
reader.read_chunk()
"""


def test_a_killed_client_ends_the_query(server, engine):
    with started([sys.executable, "-c", VANISHING, server.uri, ticket(WAITING).ticket.hex()]) as process:
        assert engine.waiting.wait(60)
        process.kill()
        assert engine.closed.wait(60)


def test_a_deadline_ends_the_query(client, engine):
    with pytest.raises(flight.FlightTimedOutError):
        client.do_get(ticket("SELECT 1 -- wait_for_ever"), flight.FlightCallOptions(timeout=0.5)).read_all()
    assert engine.closed.wait(30)


def test_a_finished_stream_is_closed(client, engine):
    client.do_get(ticket("SELECT 1")).read_all()
    assert engine.closed.wait(30)


def test_a_stalled_reader_is_disconnected(start_server):
    server = start_server(write_timeout_s=0.3)
    sql = "SELECT a.n, a.pad, b.pad AS more FROM wide a CROSS JOIN (SELECT pad FROM wide LIMIT 50) b"
    with flight.connect(server.uri) as client:
        reader = client.do_get(ticket(sql))
        reader.read_chunk()
        assert server.engine.closed.wait(60)
        with pytest.raises(pa.ArrowException):
            reader.read_all()


@pytest.mark.parametrize("sent", [[], [put_parameters().SerializeToString()]])
def test_a_stalled_sender_is_disconnected(start_server, sent):
    server = start_server(read_timeout_s=0.3)
    done = threading.Event()

    def stalling():
        yield from sent
        done.wait(60)

    with grpc.insecure_channel(f"127.0.0.1:{server.server.port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.stream_stream(SERVICE + "DoPut")(stalling(), timeout=60))
        done.set()
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "sent nothing for 0.3 s" in caught.value.details()
        assert_alive(channel)


def test_a_health_watcher_learns_of_the_end_and_does_not_hold_it_up(start_server):
    server = start_server(drain_timeout_s=60.0)
    with grpc.insecure_channel(f"127.0.0.1:{server.server.port}") as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=60)
        assert next(watch) == b"\x08\x01"
        server.call(server.server.stop())
        assert next(watch) == b"\x08\x02"
        assert list(watch) == []


def test_stopping_ends_running_queries(start_server):
    server = start_server()
    with flight.connect(server.uri) as client:
        reader = client.do_get(ticket("SELECT 1 -- wait_for_ever"))
        assert server.engine.waiting.wait(30)
        server.call(server.server.stop())
        assert server.engine.closed.wait(30)
        with pytest.raises(flight.FlightUnavailableError, match="ask again"):
            reader.read_all()


# sign-in and health


def test_health_is_answered_without_a_key(start_server):
    server = start_server(api_keys=(ApiKey("probe", "k3y"),))
    with grpc.insecure_channel(f"127.0.0.1:{server.server.port}") as channel:
        for path in ("/health", "/any/thing/health"):
            assert channel.unary_unary(path)(b"", timeout=60) == b""
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=60) == b"\x08\x01"
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=60)
        assert next(watch) == b"\x08\x01"
        watch.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_stream(SERVICE + "ListActions")(b"", timeout=60).next()
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer None",
        "k3y",
        "Basic !!!",
        "Basic azN5",
        "Negotiate k3y",
        "Bearer k3y x",
    ],
)
def test_without_the_right_key_nothing_is_answered(start_server, authorization):
    server = start_server(api_keys=(ApiKey("analyst", "k3y"),))
    metadata = [] if authorization is None else [("authorization", authorization)]
    with grpc.insecure_channel(f"127.0.0.1:{server.server.port}") as channel:
        for method in [*UNARY, *STREAMING, "DoPut", "Handshake"]:
            status, _ = call(channel, method, b"", metadata)
            assert status == grpc.StatusCode.UNAUTHENTICATED, method


def test_keys_are_accepted_as_bearer_and_as_basic_password_padded_or_not(start_server):
    server = start_server(api_keys=(ApiKey("analyst", "k3y"), ApiKey("other", "0ther")))
    with flight.connect(server.uri) as client:
        scheme = client.authenticate_basic_token("anyone", "k3y")
        assert scheme == (b"authorization", b"Bearer k3y")
        table = client.do_get(ticket("SELECT 1 AS one"), flight.FlightCallOptions(headers=[scheme])).read_all()
        assert table.to_pydict() == {"one": [1]}
        with pytest.raises(flight.FlightUnauthenticatedError):
            client.authenticate_basic_token("anyone", "nonsense")
    with grpc.insecure_channel(f"127.0.0.1:{server.server.port}") as channel:
        for text in ("Bearer 0ther", "bearer k3y", "Basic YTprM3k=", "Basic YTprM3k", "Basic OmszeQ"):
            stream = channel.stream_stream(SERVICE + "Handshake")(
                iter([]), timeout=60, metadata=[("authorization", text)]
            )
            assert dict(stream.initial_metadata())["authorization"].startswith("Bearer ")
            assert len(list(stream)) == 1


def test_a_handshake_is_answered_before_the_client_says_anything(server, channel):

    done = threading.Event()

    def silence():
        done.wait(60)
        yield from ()

    stream = channel.stream_stream(SERVICE + "Handshake")(silence(), timeout=60)
    assert dict(stream.initial_metadata())["authorization"] == "Bearer anonymous"
    done.set()
    assert len(list(stream)) == 1


def test_a_port_in_use_is_an_error(server, start_server):
    with pytest.raises(OSError, match="in use"):
        start_server_on(server.server.port)


def start_server_on(port: int):

    async def start():
        await FlightServer(None, FlightSettings(port=port), version="x", clock=time.monotonic).start()

    asyncio.run(start())


@pytest.mark.parametrize(
    ("admins", "key", "administers"),
    [
        ((), "k3y", True),
        (("ops",), "k3y", False),
        (("ops",), "0ps", True),
        (("OPS", "ops ", "analyst, ops"), "0ps", False),
    ],
)
def test_who_administers_is_said_by_the_key_alone(start_server, admins, key, administers):
    keys = (ApiKey("analyst", "k3y"), ApiKey("ops", "0ps"))
    server = start_server(api_keys=keys, admins=frozenset(admins))
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"administers", b"true"), (b"x-auth-is-admin", b"true")]
    options = flight.FlightCallOptions(headers=headers)
    query = messages.pack("CommandStatementQuery", query="SELECT 1 AS one")
    prepare = messages.pack("ActionCreatePreparedStatementRequest", query="SELECT 1 AS one")
    with flight.connect(server.uri) as client:
        client.do_get(ticket("SELECT 1 AS one"), options).read_all()
        assert server.engine.requests[-1].administers is administers
        client.get_flight_info(flight.FlightDescriptor.for_command(query), options)
        assert server.engine.described_for_administrators is administers
        server.engine.described_for_administrators = None
        list(client.do_action(flight.Action("CreatePreparedStatement", prepare), options))
        assert server.engine.described_for_administrators is administers


def test_without_keys_everybody_administers_and_nobody_can_be_named(start_server):
    server = start_server()
    with flight.connect(server.uri) as client:
        client.do_get(ticket("SELECT 1 AS one")).read_all()
    assert server.engine.requests[-1].administers
    with pytest.raises(ValueError, match="nobody can be told apart"):
        FlightSettings(admins=frozenset({"ops"}))


def test_tls(start_server, tmp_path):
    authority = Authority(tmp_path)
    both, other = authority.issue("localhost"), authority.issue("other.example")
    server = start_server(tls_certificate=both, tls_key=both)
    roots = Path(authority.file).read_bytes()
    with flight.connect(f"grpc+tls://localhost:{server.server.port}", tls_root_certs=roots) as client:
        assert client.do_get(ticket("SELECT 1 AS one")).read_all().to_pydict() == {"one": [1]}
    with flight.connect(f"grpc+tls://localhost:{server.server.port}") as client, pytest.raises(pa.ArrowException):
        client.do_get(ticket("SELECT 1 AS one"), flight.FlightCallOptions(timeout=20)).read_all()
    with flight.connect(server.uri) as client, pytest.raises(pa.ArrowException):
        client.do_get(ticket("SELECT 1 AS one"), flight.FlightCallOptions(timeout=20)).read_all()
    with pytest.raises(OSError, match=rf"{both.name}.*can't be used"):
        start_server(tls_certificate=both, tls_key=other)
    with pytest.raises(ValueError, match="both a certificate and its key"):
        FlightSettings(tls_certificate=both)
