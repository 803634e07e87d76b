"""The unchanged PyPI client 0.32.0: every call of it that asks something, with the answers that the recordings
imply."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clients.published import SCENARIOS, PublishedClient
from e2e.recordings import recording
from traces.processor import loaded


def process_of(scenario: str) -> str:
    (process_id,) = recording(scenario).processes
    return process_id


def events_of(scenario: str, tag: str) -> int:
    return sum(len(block.events) for block in recording(scenario).blocks if tag in block.header["tags"])


def test_the_environment_holds_the_published_release(published_client: PublishedClient) -> None:
    script = "import importlib.metadata as m2; print(m2.version('micromegas'), m.__file__)"
    version, path = published_client.run(script).split(" ", 1)
    assert version == "0.32.0"
    assert "site-packages" in path


def test_query(published_client: PublishedClient) -> None:
    script = f"""
frame = client.query("SELECT level, msg, target, time FROM log_entries WHERE process_id = '{process_of("logs")}';")
print(len(frame), frame.dtypes["time"], frame.dtypes["level"], frame["target"].map(type).unique()[0].__name__)
"""
    rows, time, zone, level, target = published_client.run(script).split()
    assert (rows, level, target) == (str(events_of("logs", "log")), "int32", "str")
    assert time.startswith("datetime64[ns,")
    assert zone


def test_range_cuts_both_ends_inclusively(published_client: PublishedClient) -> None:
    script = f"""
import json
sql = "SELECT time FROM log_entries WHERE process_id = '{process_of("logs")}' ORDER BY time"
times = client.query(sql)["time"]
begin, end = times.iloc[5], times.iloc[-5]
some = client.query(sql, begin, end)["time"]
expected = times[(times >= begin) & (times <= end)]
print(json.dumps([len(times), len(some), len(expected), some.iloc[0] == begin, some.iloc[-1] == end]))
print(len(client.query(sql, begin)["time"]) == (times >= begin).sum())
print(len(client.query(sql, None, end)["time"]) == (times <= end).sum())
print(len(client.query(sql, "2001-01-01T00:00:00Z", "2001-01-02T00:00:00+00:00")))
"""
    counts, one_sided, other_sided, nothing = published_client.run(script).splitlines()
    every, some, expected, first, last = json.loads(counts)
    assert every == events_of("logs", "log")
    assert some == expected
    assert 0 < some < every
    assert first
    assert last
    assert (one_sided, other_sided, nothing) == ("True", "True", "0")


def test_query_stream_and_arrow(published_client: PublishedClient) -> None:
    script = """
sql = "SELECT * FROM measures"
batches = list(client.query_stream(sql))
table = client.query_arrow(sql)
import pyarrow
assert pyarrow.Table.from_batches(batches).schema == table.schema
assert not any(pyarrow.types.is_dictionary(t) for t in table.schema.types)
print(sum(batch.num_rows for batch in batches), table.num_rows)
"""
    expected = str(sum(events_of(name, "metrics") for name in SCENARIOS))
    assert published_client.run(script).split() == [expected, expected]


def test_preserved_dictionaries_hold_the_same_values(published_client: PublishedClient) -> None:
    script = f"""
import pyarrow
keeping = m.FlightSQLClient({published_client.address!r}, preserve_dictionary=True)
sql = "SELECT * FROM log_entries ORDER BY process_id, time, msg"
kept, plain = keeping.query_arrow(sql), client.query_arrow(sql)
assert kept.schema.field("target").type == pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), kept.schema
assert kept.schema.field("properties").type == pyarrow.dictionary(pyarrow.int32(), pyarrow.binary())
for name in kept.column_names:
    ours, theirs = kept.column(name), plain.column(name)
    if pyarrow.types.is_timestamp(ours.type):
        ours, theirs = ours.cast(pyarrow.int64()), theirs.cast(pyarrow.int64())
    assert ours.to_pylist() == theirs.to_pylist(), name
print(len(keeping.query(sql)), keeping.query(sql)["target"].dtype)
"""
    expected = sum(events_of(name, "log") for name in SCENARIOS)
    assert published_client.run(script).split() == [str(expected), "category"]


def test_prepared_statements(published_client: PublishedClient) -> None:
    script = """
sql = "SELECT time, level, msg FROM log_entries WHERE level <= 4"
statement = client.prepare_statement(sql)
assert statement.query == sql
rows = list(client.prepared_statement_stream(statement))
assert all(batch.schema == statement.dataset_schema for batch in rows)
print(sum(batch.num_rows for batch in rows) == len(client.query(sql)), statement.dataset_schema.names)
"""
    assert published_client.run(script).strip() == "True ['time', 'level', 'msg']"


def test_finding_processes_streams_blocks_and_spans(published_client: PublishedClient) -> None:
    spans = recording("spans")
    process_id = process_of("spans")
    stream_ids = sorted({block.header["stream_id"] for block in spans.blocks})
    cpu = next(block.header["stream_id"] for block in spans.blocks if "cpu" in block.header["tags"])
    script = f"""
import datetime, json
begin, end = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), "2200-01-01T00:00:00Z"
process = client.find_process("{process_id}")
streams = client.query_streams(begin, end, 1000, process_id="{process_id}")
tagged = client.query_streams(begin, end, 1000, process_id="{process_id}", tag_filter="cpu")
blocks = client.query_blocks(begin, end, 1000, "{cpu}")
rows = client.query_spans(begin, end, 100000, "{cpu}")
print(json.dumps({{
    "exe": list(process["exe"]),
    "streams": sorted(streams["stream_id"]),
    "cpu_streams": sorted(tagged["stream_id"]),
    "blocks": sorted(blocks["block_id"]),
    "spans": [int((rows["duration"] >= 0).sum()), len(rows), list(rows.columns)[:3]],
    "limited": len(client.query_spans(begin, end, 2, "{cpu}")),
}}))
"""
    found = json.loads(published_client.run(script))
    assert found["exe"] == [spans.processes[process_id]["exe"]]
    assert found["streams"] == stream_ids
    assert found["cpu_streams"] == sorted(
        {block.header["stream_id"] for block in spans.blocks if "cpu" in block.header["tags"]}
    )
    assert found["blocks"] == sorted(
        block.header["block_id"] for block in spans.blocks if block.header["stream_id"] == cpu
    )
    positive, rows, columns = found["spans"]
    assert positive == rows > 0
    assert columns == ["id", "parent", "depth"]
    assert found["limited"] == 2


@pytest.mark.parametrize(
    ("statement", "kind", "text"),
    [
        ("SELEC 1", "ArrowInvalid", "SELEC"),
        ("SELECT nothing FROM log_entries", "ArrowInvalid", "nothing"),
        ("SELECT * FROM no_such_table", "ArrowInvalid", "no_such_table"),
        ("SELECT * FROM view_instance('no_such_set', 'x')", "ArrowInvalid", "no_such_set"),
        ("CREATE TABLE x AS SELECT 1", "ArrowInvalid", ""),
        ("COPY (SELECT 1) TO '/tmp/stolen.csv'", "ArrowInvalid", ""),
        ("SELECT 1/0", "ArrowInvalid", "zero"),
    ],
)
def test_errors_are_clean_and_typed(published_client: PublishedClient, statement: str, kind: str, text: str) -> None:
    script = f"""
try:
    client.query({statement!r})
except Exception as error:
    print(type(error).__name__, error)
"""
    answer = published_client.run(script)
    assert answer.startswith(kind)
    assert text in answer
    assert "Traceback" not in answer
    assert ".py" not in answer
    assert ".rs" not in answer


def test_a_bad_time_is_an_error_of_the_caller(published_client: PublishedClient) -> None:
    script = """
import pyarrow.flight as flight
ticket = m.make_query_ticket("SELECT 1")
raw = flight.connect(%r)
try:
    raw.do_get(ticket, flight.FlightCallOptions(headers=[(b"query_range_begin", b"soon")])).read_all()
except Exception as error:
    print(type(error).__name__, error)
"""
    assert "query_range_begin" in published_client.run(script % published_client.address)


def test_write_process_trace(published_client: PublishedClient, tmp_path: Path) -> None:
    process_id = process_of("async")
    script = f"""
import datetime
from micromegas.perfetto import write_process_trace
begin = datetime.datetime(2001, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
end = datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc)
for types in ("thread", "async", "both"):
    write_process_trace(client, "{process_id}", begin, end, "{tmp_path}/" + types, types)
sql = f"SELECT count(*) n FROM process_spans('{process_id}', 'async')"
print("SPANS", client.query(sql, begin, end)["n"][0])
"""
    printed = published_client.run(script)
    assert "ERROR" not in printed
    sizes = [(tmp_path / types).stat().st_size for types in ("thread", "async", "both")]
    assert 0 < min(sizes) < max(sizes) == sizes[2]
    with loaded((tmp_path / "async").read_bytes()) as trace:
        assert trace.rows("SELECT count(*) AS n FROM slice") == [(int(printed.split("SPANS ")[1]),)]
