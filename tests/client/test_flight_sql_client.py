"""`micromegas.connect()`: what the original's client does, and more."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pandas
import polars
import pyarrow as pa
import pytest
from e2e.recordings import recording

import micromegas
from micromegas import admin, perfetto
from micromegas.client import Client, NotOffered, Progress, StatementRefused
from micromegas.client.frames import to_pandas
from micromegas.client.messages import read_record_count
from micromegas.flightsql.client import FlightSQLClient

LOGS = "SELECT time, level, target, msg FROM log_entries WHERE process_id = '{}' ORDER BY time, msg"
BEGIN, END = "2001-01-01T00:00:00Z", "2200-01-01T00:00:00Z"


def process_of(scenario: str) -> str:
    (process_id,) = recording(scenario).processes
    return process_id


def events_of(scenario: str, tag: str) -> int:
    return sum(len(block.events) for block in recording(scenario).blocks if tag in block.header["tags"])


@pytest.fixture
def client(address: str) -> Iterator[FlightSQLClient]:
    with micromegas.connect(address) as connected:
        yield connected


def test_frames_of_pandas(client: FlightSQLClient) -> None:
    frame = client.query(LOGS.format(process_of("logs")))
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == events_of("logs", "log")
    assert str(frame.dtypes["time"]).startswith("datetime64[ns,")
    table = client.query_arrow(LOGS.format(process_of("logs")))
    assert [moment.value for moment in frame["time"]] == table["time"].cast(pa.int64()).to_pylist()


def test_frames_of_polars(client: FlightSQLClient) -> None:
    sql = LOGS.format(process_of("logs"))
    frame, table = client.query_polars(sql), client.query_arrow(sql)
    assert isinstance(frame, polars.DataFrame)
    assert frame.schema["time"] == polars.Datetime("ns", "UTC")
    assert frame["time"].cast(polars.Int64).to_list() == table["time"].cast(pa.int64()).to_pylist()
    assert frame["msg"].to_list() == table["msg"].to_pylist()


@pytest.mark.parametrize("preserve_dictionary", [False, True])
def test_every_column_becomes_a_frame(address: str, preserve_dictionary: bool) -> None:
    with micromegas.connect(address, preserve_dictionary) as client:
        for view in ("log_entries", "measures", "processes", "streams", "blocks"):
            rows = client.query_arrow(f"SELECT * FROM {view}").num_rows
            assert rows > 0
            assert len(client.query(f"SELECT * FROM {view}")) == rows
            assert len(client.query_polars(f"SELECT * FROM {view}")) == rows
        kept = client.query("SELECT target FROM log_entries").dtypes["target"] == "category"
        assert kept == preserve_dictionary


def test_kept_dictionaries_of_lists_become_their_values() -> None:
    values = pa.array([[1, 1], [2, 2]], pa.list_(pa.int32()))
    column = pa.DictionaryArray.from_arrays(pa.array([1, 0, None], pa.int32()), values)
    frame = to_pandas(pa.table({"twice": pa.chunked_array([column, column])}))
    cells = [None if cell is None else list(cell) for cell in frame["twice"]]
    assert cells == [[2, 2], [1, 1], None] * 2


def test_a_stream_gives_batches(client: FlightSQLClient) -> None:
    sql = LOGS.format(process_of("logs"))
    batches = list(client.query_stream(sql))
    assert pa.Table.from_batches(batches) == client.query_arrow(sql)
    for batch in client.query_stream("SELECT value FROM generate_series(1, 100000000)"):
        assert batch.num_rows > 0
        break
    assert client.query("SELECT 1 AS one")["one"].to_list() == [1]


def test_ranges_as_people_type_them(client: FlightSQLClient) -> None:
    sql = LOGS.format(process_of("logs"))
    every = events_of("logs", "log")
    now = datetime.datetime.now(datetime.UTC)
    assert len(client.query(sql, begin="-36500d")) == len(client.query(sql, end="now")) == every
    assert len(client.query(sql, now - datetime.timedelta(days=36500), now)) == every
    assert len(client.query(sql, begin="1ms")) == 0
    assert len(client.query(sql, end="1970-01-02")) == 0
    times = client.query(sql)["time"]
    assert len(client.query(sql, times.iloc[3], times.iloc[3])) == (times == times.iloc[3]).sum()


@pytest.mark.parametrize("name", ["query_arrow", "query", "query_polars"])
def test_limit_and_parameters_in_every_form(client: FlightSQLClient, name: str) -> None:
    query = getattr(client, name)
    sql = "SELECT msg FROM log_entries WHERE process_id = $1 AND level <= $2"
    found = client.query(LOGS.format(process_of("logs")))
    expected = (found["level"] <= 4).sum()
    assert 1 < expected < len(found)
    assert len(query(sql, parameters=[process_of("logs"), 4])) == expected
    assert len(query(sql, parameters=[process_of("logs"), 4], limit=1)) == 1
    assert len(query(sql, BEGIN, "2001-01-02", parameters=[process_of("logs"), 4])) == 0


def test_progress(client: FlightSQLClient, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[Progress] = []
    table = client.query_arrow("SELECT value FROM generate_series(1, 500000)", progress=told.append)
    assert [each.rows for each in told] == sorted({each.rows for each in told})
    assert (told[-1].rows, told[-1].size) == (500_000, table.nbytes)
    assert all(each.seconds >= 0 for each in told)
    assert str(Progress(1_234_567, 2_500_000, 1.25)) == "1,234,567 rows, 2.5 MB, 1.2 s"
    client.query_arrow("SELECT value FROM generate_series(1, 500000)", progress=True)
    assert "Traceback" not in capsys.readouterr().err


def test_the_documented_calls(client: FlightSQLClient) -> None:
    process_id = process_of("spans")
    spans = recording("spans")
    stream_ids = {block.header["stream_id"] for block in spans.blocks}
    cpu = next(block.header["stream_id"] for block in spans.blocks if "cpu" in block.header["tags"])
    assert client.find_process(process_id)["exe"].to_list() == [spans.processes[process_id]["exe"]]
    assert client.find_process("it's no id").empty
    assert set(client.query_streams(BEGIN, END, 1000, process_id=process_id)["stream_id"]) == stream_ids
    assert len(client.query_streams(BEGIN, END, 2)) == 2
    tagged = client.query_streams(BEGIN, END, 1000, process_id=process_id, tag_filter="cpu")
    assert cpu in set(tagged["stream_id"])
    assert len(tagged) < len(stream_ids)
    blocks = client.query_blocks(BEGIN, END, 1000, cpu)
    assert set(blocks["block_id"]) == {
        block.header["block_id"] for block in spans.blocks if block.header["stream_id"] == cpu
    }
    found = client.query_spans(BEGIN, END, 1000, cpu)
    assert len(found) > 0
    assert {"id", "parent", "depth", "name", "begin", "end"} <= set(found.columns)


def test_prepared_statements(client: FlightSQLClient) -> None:
    sql = "SELECT time, level, msg FROM log_entries WHERE level <= 4"
    statement = client.prepare_statement(sql)
    assert statement.query == sql
    assert statement.dataset_schema.names == ["time", "level", "msg"]
    assert statement.parameter_schema.names == []
    rows = list(client.prepared_statement_stream(statement))
    assert all(batch.schema == statement.dataset_schema for batch in rows)
    assert sum(batch.num_rows for batch in rows) == len(client.query(sql))
    twice = client.prepare_statement("SELECT count(*) AS n FROM log_entries WHERE level <= $1")
    counts = [next(client.prepared_statement_stream(twice, [level]))["n"].to_pylist()[0] for level in (2, 6, 2)]
    assert counts[0] == counts[2] < counts[1] == len(client.query("SELECT level FROM log_entries"))


def test_orders_are_printed(client: FlightSQLClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.materialize_partitions("log_entries", "2001-01-01T00:00:00Z", "2001-01-01T02:00:00Z", 3600)
    client.retire_partitions("log_entries", "global", "2001-01-01T00:00:00Z", "2001-01-02T00:00:00Z")
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) >= 3
    with pytest.raises(StatementRefused, match="no_such_set"):
        client.regenerate_partitions("no_such_set", BEGIN, BEGIN, 3600)


def test_errors_are_of_the_types_that_programs_catch(client: FlightSQLClient) -> None:
    with pytest.raises(pa.ArrowInvalid, match="nothing"):
        client.query("SELECT nothing FROM log_entries")
    with pytest.raises(ValueError, match="SELEC"):
        client.query("SELEC 1")
    with pytest.raises(TypeError, match=r"pyarrow\.Table"):
        client.bulk_ingest("processes", pandas.DataFrame())  # type: ignore[arg-type]
    with pytest.raises((NotOffered, StatementRefused)):
        client.bulk_ingest("no_such_table", pa.table({"a": [1]}))


def test_rows_that_were_taken_are_counted_under_the_name_that_programs_use(client: FlightSQLClient) -> None:
    result = client.bulk_ingest("processes", client.query_arrow("SELECT * FROM processes"))
    assert result is not None
    assert result == result.record_count == len(client.query("SELECT 1 FROM processes")) > 0


@pytest.mark.parametrize(("metadata", "count"), [(b"", 0), (b"\x08\x05", 5), (b"\x08" + b"\xff" * 9 + b"\x01", None)])
def test_a_server_may_not_know_what_it_took(metadata: bytes, count: int | None) -> None:
    assert read_record_count(metadata) == count


def test_a_client_over_a_connection_that_is_there(address: str) -> None:
    with Client(address) as connection:
        assert len(FlightSQLClient(client=connection).query("SELECT 1 AS one")) == 1
    with pytest.warns(DeprecationWarning, match="auth_provider"):
        FlightSQLClient(address, {"authorization": "Bearer x"}).close()


def test_traces(client: FlightSQLClient, tmp_path: Path) -> None:
    process_id, file = process_of("spans"), tmp_path / "trace"
    perfetto.write_process_trace(client, process_id, BEGIN, END, str(file))
    assert file.stat().st_size > 1000
    both = file.read_bytes()
    perfetto.write_process_trace_from_chunks(client, process_id, BEGIN, END, "thread", str(file))
    assert 0 < file.stat().st_size <= len(both)
    with pytest.raises(StatementRefused, match="unknown process"):
        perfetto.write_process_trace(client, "0" * 32, BEGIN, END, str(tmp_path / "none"))
    assert [path.name for path in tmp_path.iterdir()] == ["trace"]


def test_partitions_of_other_versions(client: FlightSQLClient) -> None:
    columns = "view_set_name view_instance_id begin_insert_time end_insert_time incompatible_schema_hash"
    found = admin.list_incompatible_partitions(client)
    assert list(found.columns) == [*columns.split(), "current_schema_hash", "file_path", "file_size"]
    assert found.empty
    retired = admin.retire_incompatible_partitions(client, "it's no view set")
    assert retired.empty
    assert "retirement_messages" in retired.columns
