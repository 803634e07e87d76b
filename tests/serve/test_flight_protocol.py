"""Flight SQL with pyarrow's raw client: schemas, slicing, dictionaries, headers, prepared statements, metadata,
errors."""

import base64
import datetime

import grpc
import pyarrow as pa
import pytest
from pyarrow import flight

from micromegas.config import ApiKey
from micromegas.serve.edge_types import MAX_BATCH_BYTES
from micromegas.serve.flight import messages
from micromegas.serve.flight.catalog import TABLES_WITH_SCHEMA_SCHEMA
from micromegas.serve.flight.sql_info import SQL_INFO_SCHEMA

NESTED = "SELECT * FROM events"


def ticket(sql: str) -> flight.Ticket:
    return flight.Ticket(messages.pack("TicketStatementQuery", statement_handle=sql.encode()))


def descriptor(name: str, **fields) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_command(messages.pack(name, **fields))


def options(**headers: str) -> flight.FlightCallOptions:
    return flight.FlightCallOptions(headers=[(key.encode(), value.encode()) for key, value in headers.items()])


def ask(client: flight.FlightClient, name: str, **fields) -> pa.Table:
    """GetFlightInfo, then the one ticket: the schema announced must be that of the rows."""
    info = client.get_flight_info(descriptor(name, **fields))
    (endpoint,) = info.endpoints
    assert list(endpoint.locations) == []
    assert (info.total_records, info.total_bytes) == (-1, -1)
    reader = client.do_get(endpoint.ticket)
    assert reader.schema.equals(info.schema, check_metadata=True)
    assert client.get_schema(descriptor(name, **fields)).schema == info.schema
    return reader.read_all()


@pytest.mark.parametrize(
    "sql", ["SELECT 1 AS one", NESTED, "SELECT * FROM views", "SELECT word FROM events WHERE false"]
)
@pytest.mark.parametrize("preserve", ["true", "TRUE", "false", ""])
def test_the_schema_announced_is_the_schema_of_the_rows(client, sql, preserve):
    with_dictionaries = options(preserve_dictionary=preserve)
    info = client.get_flight_info(descriptor("CommandStatementQuery", query=sql), with_dictionaries)
    reader = client.do_get(info.endpoints[0].ticket, with_dictionaries)
    assert reader.schema == info.schema
    table = reader.read_all()
    table.validate(full=True)
    assert ("dictionary" in str(table.schema)) == (preserve.lower() == "true" and "word" in str(table.schema))


def test_values_come_through_nested_dictionaries_views_and_times(client, server):
    for preserve in ("true", "false"):
        events = client.do_get(ticket(NESTED), options(preserve_dictionary=preserve)).read_all()
        source = server.engine.data["events"]
        assert events.column("time").cast(pa.int64()).to_pylist() == source.column("time").cast(pa.int64()).to_pylist()
        for name in ("word", "nested", "listed", "text", "value"):
            assert events.column(name).to_pylist() == source.column(name).to_pylist()
        views = client.do_get(ticket("SELECT * FROM views"), options(preserve_dictionary=preserve)).read_all()
        for name in ("sv", "bv", "ls", "ll", "m", "fsl"):
            assert views.column(name).to_pylist() == server.engine.data["views"].column(name).to_pylist()
        assert views.schema.field("us").type == pa.timestamp("ns", "+00:00")
        assert views.column("us").cast(pa.int64()).to_pylist() == [0, 1000, None]
        assert views.schema.field("naive").type == pa.timestamp("ns")


@pytest.mark.parametrize("preserve", ["true", "false"])
def test_dictionaries_that_change_from_batch_to_batch(client, preserve):
    sql = "SELECT arrow_cast('w' || (n % 97), 'Dictionary(Int32, Utf8)') AS w, n FROM wide"
    reader = client.do_get(ticket(sql), options(preserve_dictionary=preserve))
    batches = [chunk.data for chunk in reader]
    assert len(batches) > 1
    rows = {
        (w, n)
        for batch in batches
        for w, n in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)
    }
    assert rows == {(f"w{n % 97}", n) for n in range(200_000)}


def test_big_batches_are_cut(client):
    chunks = [chunk.data for chunk in client.do_get(ticket("SELECT * FROM wide"))]
    assert sum(chunk.num_rows for chunk in chunks) == 200_000
    assert sorted(n for chunk in chunks for n in chunk.column("n").to_pylist()) == list(range(200_000))
    repeated = [chunk.data for chunk in client.do_get(ticket("SELECT * FROM repeated"))]
    assert sum(chunk.num_rows for chunk in repeated) == 5000
    assert max(chunk.nbytes for chunk in chunks + repeated) <= MAX_BATCH_BYTES + 1024


def test_empty_results_have_a_schema(client):
    table = client.do_get(ticket("SELECT * FROM events WHERE false")).read_all()
    assert table.num_rows == 0
    assert table.schema.field("time").type == pa.timestamp("ns", "+00:00")


def test_bare_tickets_and_semicolons_are_accepted(client):
    bare = messages.new("TicketStatementQuery", statement_handle=b"SELECT 2 AS two;\n ").SerializeToString()
    assert client.do_get(flight.Ticket(bare)).read_all().to_pydict() == {"two": [2]}


def test_headers_reach_the_engine(client, engine):
    client.do_get(
        ticket("SELECT 1"),
        options(
            query_range_begin="2024-01-01T00:00:00.123456789-05:00",
            query_range_end="2024-01-01T06:00:00Z",
            limit="7",
            unknown_header="whatever",
        ),
    ).read_all()
    (request,) = engine.requests
    assert request.begin == 1_704_085_200_123_456_789
    assert request.end == 1_704_088_800_000_000_000
    assert request.limit == 7


@pytest.mark.parametrize(
    ("headers", "begin", "end"),
    [
        ({}, None, None),
        ({"query_range_begin": "", "query_range_end": ""}, None, None),
        ({"query_range_begin": "1970-01-01T00:00:01Z"}, 10**9, None),
        ({"query_range_end": "1970-01-01t00:00:01.5+00:00"}, None, 1_500_000_000),
        ({"query_range_begin": "1969-12-31T23:59:59.999999999999Z", "query_range_end": ""}, -1, None),
    ],
)
def test_one_sided_and_empty_ranges(client, engine, headers, begin, end):
    client.do_get(ticket("SELECT 1"), options(**headers)).read_all()
    (request,) = engine.requests
    assert (request.begin, request.end) == (begin, end)


def test_limit_caps_the_rows(client):
    assert client.do_get(ticket("SELECT * FROM wide"), options(limit="3")).read_all().num_rows == 3
    assert client.do_get(ticket("SELECT * FROM wide"), options(limit="0")).read_all().num_rows == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"query_range_begin": "yesterday"},
        {"query_range_begin": "2024-01-01"},
        {"query_range_begin": "2024-01-01T00:00:00"},
        {"query_range_end": "2024-13-01T00:00:00Z"},
        {"query_range_end": "2024-01-01T00:00:00+99:00"},
        {"query_range_end": "9999-12-31T23:59:59Z"},
        {"limit": "-1"},
        {"limit": "many"},
        {"limit": "1e3"},
    ],
)
def test_bad_headers_are_errors(client, headers):
    with pytest.raises(pa.ArrowInvalid) as caught:
        client.do_get(ticket("SELECT 1"), options(**headers)).read_all()
    assert next(iter(headers)) in str(caught.value)


# metadata


def test_catalogs_schemas_types(client):
    assert ask(client, "CommandGetCatalogs").to_pylist() == [{"catalog_name": ""}]
    assert ask(client, "CommandGetDbSchemas").to_pylist() == [{"catalog_name": "", "db_schema_name": ""}]
    assert ask(client, "CommandGetDbSchemas", db_schema_filter_pattern="nothing%").num_rows == 0
    assert ask(client, "CommandGetTableTypes").to_pylist() == [{"table_type": "table"}]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, ["events", "repeated", "views", "wide"]),
        ({"table_types": ["BASE TABLE", "table"]}, ["events", "repeated", "views", "wide"]),
        ({"table_types": ["Base Table"]}, ["events", "repeated", "views", "wide"]),
        ({"table_types": ["view"]}, []),
        ({"catalog": ""}, ["events", "repeated", "views", "wide"]),
        ({"catalog": "other"}, []),
        ({"db_schema_filter_pattern": "%"}, ["events", "repeated", "views", "wide"]),
        ({"db_schema_filter_pattern": "x%"}, []),
        ({"table_name_filter_pattern": "%e%s"}, ["events", "views"]),
        ({"table_name_filter_pattern": "wid_"}, ["wide"]),
        ({"table_name_filter_pattern": r"wid\_"}, []),
        ({"table_name_filter_pattern": ".*"}, []),
        ({"table_name_filter_pattern": ""}, []),
    ],
)
def test_tables(client, fields, names):
    assert ask(client, "CommandGetTables", **fields).column("table_name").to_pylist() == names


def test_table_schemas_are_those_of_select_star(client):
    tables = ask(client, "CommandGetTables", include_schema=True)
    assert tables.schema == TABLES_WITH_SCHEMA_SCHEMA
    for row in tables.to_pylist():
        schema = pa.ipc.read_schema(pa.py_buffer(row["table_schema"]))
        assert (
            schema
            == client.get_schema(descriptor("CommandStatementQuery", query=f"SELECT * FROM {row['table_name']}")).schema
        )


@pytest.mark.parametrize(
    "name",
    [
        "CommandGetXdbcTypeInfo",
        "CommandGetPrimaryKeys",
        "CommandGetImportedKeys",
        "CommandGetExportedKeys",
        "CommandGetCrossReference",
    ],
)
def test_what_does_not_exist_is_an_empty_table(client, name):
    assert ask(client, name).num_rows == 0


def sql_info_rows(client, *wanted):
    table = ask(client, "CommandGetSqlInfo", info=list(wanted))
    assert table.schema == SQL_INFO_SCHEMA
    table.validate(full=True)
    return dict(zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True))


def test_sql_info(client):
    everything = sql_info_rows(client)
    assert {0, 1, 2, 3, 8, 508, 509, 510, 511, 512, *range(500, 577)} <= everything.keys()
    assert everything[1] == "test"
    assert everything[3] is True
    assert everything[8] == 0
    assert "select" in everything[508]
    assert "date_bin" in everything[512]
    assert sql_info_rows(client, 8) == {8: 0}
    assert sql_info_rows(client, 512, 3, 999_999) == {3: True, 512: everything[512]}
    assert sql_info_rows(client, 999_999) == {}


def test_sql_info_values_are_in_the_child_that_drivers_cast_to(client):
    table = ask(client, "CommandGetSqlInfo")
    union = table.column(1).combine_chunks()
    union = union.chunk(0) if isinstance(union, pa.ChunkedArray) else union
    codes = dict(zip(table.column(0).to_pylist(), union.type_codes.to_pylist(), strict=True))
    assert codes[504] == 0
    assert codes[532] == 1
    assert codes[562] == 2
    assert codes[535] == 3
    assert codes[508] == 4


# actions and prepared statements


def act(client: flight.FlightClient, kind: str, body: bytes) -> list[bytes]:
    return [result.body.to_pybytes() for result in client.do_action(flight.Action(kind, body))]


def prepare(client: flight.FlightClient, sql: str):
    body = messages.pack("ActionCreatePreparedStatementRequest", query=sql)
    (result,) = act(client, "CreatePreparedStatement", body)
    wrapper = messages.parse("Any", result)
    assert wrapper.type_url == "type.googleapis.com/arrow.flight.protocol.sql.ActionCreatePreparedStatementResult"
    return messages.parse("ActionCreatePreparedStatementResult", wrapper.value)


def run_prepared(client: flight.FlightClient, handle: bytes) -> pa.Table:
    return ask(client, "CommandPreparedStatementQuery", prepared_statement_handle=handle)


def bind(client: flight.FlightClient, handle: bytes, batch: pa.RecordBatch) -> bytes:
    writer, reader = client.do_put(
        descriptor("CommandPreparedStatementQuery", prepared_statement_handle=handle), batch.schema
    )
    writer.write_batch(batch)
    return messages.parse("DoPutPreparedStatementResult", finish(writer, reader)).prepared_statement_handle


def stream_of(batch: pa.RecordBatch, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def finish(writer: flight.FlightStreamWriter, reader: flight.FlightMetadataReader) -> bytes:
    """The answer to a DoPut; `close` is where pyarrow raises what the server said."""
    writer.done_writing()
    answer = reader.read()
    writer.close()
    return answer.to_pybytes()


def test_a_statement_without_placeholders_is_its_own_handle(client):
    result = prepare(client, "SELECT time, word FROM events;")
    assert result.prepared_statement_handle == b"SELECT time, word FROM events;"
    with pa.ipc.open_stream(result.dataset_schema) as reader:
        schema = reader.schema
        assert list(reader) == []
    table = run_prepared(client, result.prepared_statement_handle)
    assert table.schema == schema
    assert table.num_rows == 5
    body = messages.pack("ActionClosePreparedStatementRequest", prepared_statement_handle=b"never seen")
    assert act(client, "ClosePreparedStatement", body) == []


def test_parameters_are_bound_to_one_handle_only(client):
    first, second = (
        prepare(client, "SELECT ? + 1 AS a, '?' AS b, ? AS c -- ?").prepared_statement_handle for _ in "12"
    )
    assert first != second
    row = pa.RecordBatch.from_arrays([pa.array([41]), pa.array([7])], names=["0", "1"])
    other = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["x", "y"])
    carrying = bind(client, first, row)
    assert carrying.endswith(first)
    bind(client, second, other)
    assert run_prepared(client, first).to_pylist() == [{"a": 42, "b": "?", "c": 7}]
    assert run_prepared(client, second).to_pylist() == [{"a": 2, "b": "?", "c": 2}]
    act(
        client,
        "ClosePreparedStatement",
        messages.pack("ActionClosePreparedStatementRequest", prepared_statement_handle=first),
    )
    with pytest.raises(pa.ArrowInvalid):
        run_prepared(client, first)
    assert run_prepared(client, second).num_rows == 1
    assert run_prepared(client, carrying).to_pylist() == [{"a": 42, "b": "?", "c": 7}]


def test_a_handle_carries_its_values_to_any_server(client, start_server, engine):
    handle = prepare(client, "SELECT ? + 1 AS a, ? AS t").prepared_statement_handle
    schema = pa.schema([("x", pa.int64()), ("y", pa.string())])
    row = pa.RecordBatch.from_pylist([{"x": 41, "y": "*/ DROP 'ü'"}], schema=schema)
    carrying = bind(client, handle, row)
    again = bind(client, carrying, pa.RecordBatch.from_pylist([{"x": 1, "y": None}], schema=schema))
    with flight.connect(start_server().uri) as other:
        assert run_prepared(other, carrying).to_pylist() == [{"a": 42, "t": "*/ DROP 'ü'"}]
        assert run_prepared(other, again).to_pylist() == [{"a": 2, "t": None}]
        with pytest.raises(pa.ArrowInvalid):
            run_prepared(other, handle)
    # what is asked, audited and refused is the statement alone
    run_prepared(client, carrying)
    assert engine.requests[-1].sql == "SELECT $1 + 1 AS a, $2 AS t"
    long = pa.RecordBatch.from_pylist([{"x": 1, "y": "y" * 300_000}], schema=schema)
    assert bind(client, handle, long) == handle
    assert run_prepared(client, handle)["t"][0].as_py() == "y" * 300_000


def bound(values: bytes) -> bytes:
    return b"/* bound " + base64.b64encode(values) + b" */ SELECT $1 + 0 AS a"


@pytest.mark.parametrize(
    "handle",
    [
        bound(b"no arrow"),
        bound(b"\xff" * 400),
        b"/* bound ==== */ SELECT $1 + 0 AS a",
        b"/* bound AAA */ SELECT $1 + 0 AS a",
        bound(bytes(pa.schema([("a", pa.int64())]).serialize())),
        bound(stream_of(pa.RecordBatch.from_pydict({"a": [1, 2]}))),
        bound(stream_of(pa.RecordBatch.from_pydict({"a": [1], "b": [2]}))),
        bound(stream_of(pa.RecordBatch.from_pydict({"a": ["x" * 70_000_000]}), "zstd")),
    ],
)
def test_handles_that_carry_nonsense_are_refused(client, handle):
    with pytest.raises(pa.ArrowInvalid):
        run_prepared(client, handle)
    assert run_prepared(client, bound(stream_of(pa.RecordBatch.from_pydict({"a": [7]})))).to_pydict() == {"a": [7]}


def test_parameters_in_dense_unions_are_unwrapped(client):
    handle = prepare(client, "SELECT $1 + 0 AS a").prepared_statement_handle
    union = pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([5])], ["int"], [0])
    bind(client, handle, pa.RecordBatch.from_arrays([union], names=["p"]))
    assert run_prepared(client, handle).to_pydict() == {"a": [5]}


def test_numbered_parameters_are_bound_by_number(client):
    handle = prepare(client, "SELECT $2 + 0 AS b, $1 + 0 AS a, $10 + 0 AS c").prepared_statement_handle
    row = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2]), pa.array([10])], names=["p", "q", "r"])
    bind(client, handle, row)
    assert run_prepared(client, handle).to_pylist() == [{"b": 2, "a": 1, "c": 10}]


@pytest.mark.parametrize(
    "batch",
    [
        pa.RecordBatch.from_arrays([pa.array([1, 2])], names=["a"]),
        pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "b"]),
        pa.RecordBatch.from_arrays([], names=[]),
    ],
)
def test_parameters_that_do_not_fit_are_refused(client, batch):
    handle = prepare(client, "SELECT ? + 1").prepared_statement_handle
    writer, _ = client.do_put(
        descriptor("CommandPreparedStatementQuery", prepared_statement_handle=handle), batch.schema
    )
    writer.write_batch(batch)
    with pytest.raises(pa.ArrowInvalid, match=r"parameters|placeholders"):
        writer.close()


def test_bound_parameters_are_dropped_with_age(start_server):
    server = start_server()
    with flight.connect(server.uri) as client:
        handle = prepare(client, "SELECT ? + 1 AS a").prepared_statement_handle
        bind(client, handle, pa.RecordBatch.from_arrays([pa.array([1])], names=["a"]))
        server.now = 3599.0
        assert run_prepared(client, handle).to_pydict() == {"a": [2]}
        server.now = 3599.0 + 3601.0
        with pytest.raises(pa.ArrowInvalid):
            run_prepared(client, handle)


def test_session_actions(client):
    (closed,) = act(client, "CloseSession", b"")
    assert closed == b"\x08\x01"
    assert act(client, "GetSessionOptions", b"") == [b""]
    text = messages.new("SessionOptionValue", string_value="x")
    known = messages.new("SessionOption", key="catalog", value=text)
    unknown = messages.new("SessionOption", key="turbo", value=text)
    request = messages.new("SetSessionOptionsRequest", session_options=[known])
    assert act(client, "SetSessionOptions", request.SerializeToString()) == [b""]
    request = messages.new("SetSessionOptionsRequest", session_options=[known, unknown])
    (answer,) = act(client, "SetSessionOptions", request.SerializeToString())
    (error,) = messages.parse("SetSessionOptionsResult", answer).errors
    assert (error.key, error.value.value) == ("turbo", messages.SESSION_OPTION_INVALID_NAME)
    assert {action.type for action in client.list_actions()} >= {"CreatePreparedStatement", "CloseSession"}


@pytest.mark.parametrize("name", ["CommandStatementUpdate", "CommandPreparedStatementUpdate"])
def test_updates_are_refused_as_read_only(client, name):
    fields = {"query": "DELETE FROM events"} if "Prepared" not in name else {"prepared_statement_handle": b"x"}
    schema = pa.schema([("a", pa.int64())])
    writer, _ = client.do_put(descriptor(name, **fields), schema)
    with pytest.raises(pa.ArrowInvalid, match="read-only"):
        writer.close()


def test_bulk_ingestion_without_a_lake_says_that_it_is_not_offered(client):
    writer, _ = client.do_put(descriptor("CommandStatementIngest", table="blocks"), pa.schema([("a", pa.int64())]))
    with pytest.raises(NotImplementedError, match="bulk ingestion is not offered"):
        writer.close()


# errors


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("invalid", pa.ArrowInvalid),
        ("unimplemented", NotImplementedError),
        ("internal", flight.FlightInternalError),
        ("exhausted", pa.ArrowInvalid),
    ],
)
@pytest.mark.parametrize("length", [1, 1500, 100_000])
def test_engine_errors_keep_their_kind_and_arrive_however_long(client, kind, expected, length):
    for attempt in (
        lambda: client.do_get(ticket(f"fail_{kind}_{length}")).read_all(),
        lambda: client.get_flight_info(descriptor("CommandStatementQuery", query=f"fail_{kind}_{length}")),
    ):
        with pytest.raises(expected) as caught:
            attempt()
        assert "é" in str(caught.value)
        assert "metadata size" not in str(caught.value)
        assert len(str(caught.value)) < 2000


def test_an_error_in_mid_stream_comes_after_the_schema(client):
    reader = client.do_get(ticket("SELECT 1 AS one -- exhaust_midway"))
    assert reader.schema.names == ["one"]
    with pytest.raises(pa.ArrowInvalid, match="memory is used up"):
        reader.read_all()


@pytest.mark.parametrize("sql", ["SELECT 1 -- panic", "SELECT 1 -- panic_midway", "SELECT 1 -- bug"])
def test_our_own_faults_tell_nothing_of_the_inside(client, sql):
    with pytest.raises(flight.FlightInternalError) as caught:
        client.do_get(ticket(sql)).read_all()
    assert "internal error" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert client.do_get(ticket("SELECT 1 AS one")).read_all().num_rows == 1


def test_datetime_of_now_survives(client):
    now = datetime.datetime.now(datetime.UTC).isoformat()
    assert client.do_get(ticket("SELECT 1 AS one"), options(query_range_begin=now)).read_all().num_rows == 1


# compression


@pytest.mark.parametrize("codec", ["lz4", "ZSTD"])
@pytest.mark.parametrize("keep", ["true", "false"])
def test_bodies_are_compressed_on_request(client, server, codec, keep):
    sql = "SELECT pad, n FROM wide"
    plain = client.do_get(ticket(sql)).read_all()
    asked = options(body_compression=codec, preserve_dictionary=keep)
    assert client.do_get(ticket(sql), asked).read_all() == plain
    assert client.do_get(ticket("SELECT * FROM events"), asked).read_all().num_rows == 5
    body = messages.new("Ticket", ticket=messages.pack("TicketStatementQuery", statement_handle=sql.encode()))
    sizes = []
    with grpc.insecure_channel(f"127.0.0.1:{server.server.port}") as channel:
        for metadata in ([], [("body_compression", codec)]):
            call = channel.unary_stream("/arrow.flight.protocol.FlightService/DoGet")
            sizes.append(sum(map(len, call(body.SerializeToString(), timeout=60, metadata=metadata))))
    assert sizes[1] < sizes[0] / 3


def test_an_unknown_compression_is_refused(client):
    with pytest.raises(pa.ArrowInvalid, match="body_compression: 'brotli'"):
        client.do_get(ticket("SELECT 1"), options(body_compression="brotli")).read_all()


# cancelling by name


def asked(client, sql, *, prepared=False):
    """The info of a statement, as the server gives it, and its parsed form."""
    command = {"prepared_statement_handle": sql.encode()} if prepared else {"query": sql}
    name = "CommandPreparedStatementQuery" if prepared else "CommandStatementQuery"
    return client.get_flight_info(descriptor(name, **command))


def cancel(client, info, *, action="CancelFlightInfo", key=None):
    parsed = messages.parse("FlightInfo", info.serialize())
    headers = flight.FlightCallOptions(headers=[] if key is None else [(b"authorization", f"Bearer {key}".encode())])
    if action == "CancelFlightInfo":
        body = messages.new("CancelFlightInfoRequest", info=parsed).SerializeToString()
    else:
        body = messages.pack("ActionCancelQueryRequest", info=info.serialize())
    (result,) = client.do_action(flight.Action(action, body), headers)
    answer = result.body.to_pybytes()
    if action == "CancelFlightInfo":
        return messages.parse("CancelFlightInfoResult", answer).status
    return messages.parse("ActionCancelQueryResult", messages.parse("Any", answer).value).result


@pytest.mark.parametrize("action", ["CancelFlightInfo", "CancelQuery"])
@pytest.mark.parametrize("prepared", [False, True])
def test_a_query_is_cancelled_by_its_info(client, engine, action, prepared):
    info = asked(client, "SELECT n FROM wide -- wait_for_ever", prepared=prepared)
    assert cancel(client, info, action=action) == messages.NOT_CANCELLABLE
    reader = client.do_get(info.endpoints[0].ticket)
    assert engine.waiting.wait(30)
    other = asked(client, "SELECT n FROM wide -- wait_for_ever", prepared=prepared)
    assert cancel(client, other, action=action) == messages.NOT_CANCELLABLE
    assert not engine.closed.is_set()
    assert cancel(client, info, action=action) == messages.CANCELLED
    with pytest.raises(pa.ArrowException, match="cancelled on request"):
        reader.read_all()
    assert engine.closed.wait(30)
    assert client.do_get(ticket("SELECT 1 AS one")).read_all().num_rows == 1


def test_a_reader_that_stalls_is_cancelled_too(client, engine):
    sql = "SELECT a.n, a.pad, b.pad AS more FROM wide a CROSS JOIN (SELECT pad FROM wide LIMIT 50) b"
    info = asked(client, sql)
    reader = client.do_get(info.endpoints[0].ticket)
    reader.read_chunk()
    assert cancel(client, info) == messages.CANCELLED
    assert engine.closed.wait(30)
    with pytest.raises(pa.ArrowException):
        reader.read_all()


def test_only_the_same_key_or_an_administrator_cancels(start_server):
    keys = (ApiKey("one", "k1"), ApiKey("other", "k2"), ApiKey("ops", "k3"))
    server = start_server(api_keys=keys, admins=frozenset({"ops"}))
    with flight.connect(server.uri) as client:
        mine = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer k1")])
        command = messages.pack("CommandStatementQuery", query="SELECT n FROM wide -- wait_for_ever")
        info = client.get_flight_info(flight.FlightDescriptor.for_command(command), mine)
        for key in ("k1", "k3"):
            server.engine.waiting.clear()
            reader = client.do_get(info.endpoints[0].ticket, mine)
            assert server.engine.waiting.wait(30)
            with pytest.raises(flight.FlightUnauthorizedError, match="asked by another"):
                cancel(client, info, key="k2")
            assert not server.engine.closed.is_set()
            assert cancel(client, info, key=key) == messages.CANCELLED
            with pytest.raises(pa.ArrowException, match="cancelled on request"):
                reader.read_all()
            assert server.engine.closed.wait(30)


def test_infos_that_are_not_ours_cant_be_cancelled(client):
    catalogue = client.get_flight_info(descriptor("CommandGetTables"))
    assert cancel(client, catalogue) == messages.NOT_CANCELLABLE
    for body in (b"", b"\xff", messages.new("CancelFlightInfoRequest").SerializeToString()):
        with pytest.raises(pa.ArrowInvalid):
            list(client.do_action(flight.Action("CancelFlightInfo", body)))
