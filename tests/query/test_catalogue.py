"""Views of the metadata, lists, schemas and functions as users find them."""

from __future__ import annotations

import io

import cbor2
import pyarrow.parquet as pq
import pytest
from query.asking import ask, column, one
from query.traffic import MadeTraffic, materialize

from micromegas.lake import Lake
from micromegas.query import QueryEngine
from micromegas.views.catalogue import GLOBAL_VIEW_SETS, VIEW_SETS
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.view_set import InstanceKind


@pytest.mark.parametrize("name", sorted(view_set.name for view_set in GLOBAL_VIEW_SETS))
def test_empty_global_views_have_their_schema(lake: Lake, engine: QueryEngine, name: str) -> None:
    table = ask(engine, f"SELECT * FROM {name}")
    assert table.num_rows == 0
    assert table.schema.equals(VIEW_SETS[name].schema)
    assert engine.describe(f"SELECT * FROM {name}").schema.equals(VIEW_SETS[name].schema)


@pytest.mark.parametrize("name", sorted(each.name for each in VIEW_SETS.values() if each.instance_kind is not None))
def test_empty_instances_have_their_schema(local_lake: Lake, local_engine: QueryEngine, name: str) -> None:
    traffic = MadeTraffic(local_lake)
    of_stream = VIEW_SETS[name].instance_kind is InstanceKind.STREAM
    instance_id = traffic.thread.stream_id if of_stream else traffic.process_id
    table = ask(local_engine, f"SELECT * FROM view_instance('{name}', '{instance_id}')", begin=0, end=2**62)
    assert table.num_rows == 0
    assert table.schema.equals(VIEW_SETS[name].schema)


def test_filled_views_have_their_schema_wherever_rows_come_from(lake: Lake, engine: QueryEngine) -> None:
    traffic = MadeTraffic(lake)
    traffic.logs("stored")
    materialize(lake, LOG_ENTRIES)
    traffic.logs("not stored")
    table = ask(engine, "SELECT * FROM log_entries ORDER BY time")
    assert table.schema.equals(LOG_ENTRIES.schema)
    assert column(table, "msg") == ["stored", "not stored"]
    limited = ask(engine, "SELECT * FROM log_entries", begin=0, end=2**62, limit=1)
    assert limited.schema.equals(LOG_ENTRIES.schema)


def test_the_catalogue_lists_the_global_views(local_engine: QueryEngine) -> None:
    names = [table.name for table in local_engine.tables()]
    assert names == ["blocks", "log_entries", "log_stats", "measures", "otel_spans", "processes", "streams"]
    shown = ask(local_engine, "SHOW TABLES")
    assert set(names) <= set(column(shown, "table_name"))
    for table in local_engine.tables():
        columns = f"information_schema.columns WHERE table_name = '{table.name}' ORDER BY ordinal_position"
        listed = ask(local_engine, f"SELECT column_name, is_nullable FROM {columns}")
        assert column(listed, 0) == table.schema.names
        assert column(listed, 1) == ["YES" if field.nullable else "NO" for field in table.schema]


def test_metadata_views(lake: Lake, engine: QueryEngine) -> None:
    traffics = [MadeTraffic(lake, seed) for seed in (1, 2)]
    first = traffics[0].logs("a", "b")
    second = traffics[1].values(1.0)
    sql = "SELECT process_id, exe, property_get(properties, 'x'), last_update_time FROM processes ORDER BY insert_time"
    processes = ask(engine, sql)
    assert column(processes, 0) == [traffic.process_id for traffic in traffics]
    assert column(processes, 1) == ["program-1", "program-2"]
    blocks = lake.metadata.blocks()
    assert column(processes, 3) == [block.insert_time for block in blocks]

    listed = ask(engine, 'SELECT block_id, nb_objects, payload_size, "processes.exe" FROM blocks ORDER BY insert_time')
    assert column(listed, 0) == [first.block_id, second.block_id]
    assert column(listed, 1) == [2, 1]
    assert column(listed, 2) == [block.payload_size for block in blocks]
    assert column(listed, 3) == ["program-1", "program-2"]
    for condition, ids in {
        f"process_id = '{traffics[0].process_id}'": [first.block_id],
        f"stream_id = '{traffics[1].metrics.stream_id}'": [second.block_id],
        "array_has(\"streams.tags\", 'metrics')": [second.block_id],
        "array_position(\"streams.tags\", 'log') IS NOT NULL": [first.block_id],
        f"insert_time > arrow_cast({blocks[0].insert_time}, 'Timestamp(ns, \"+00:00\")')": [second.block_id],
        f"insert_time <= arrow_cast({blocks[0].insert_time}, 'Timestamp(ns, \"+00:00\")')": [first.block_id],
        "begin_time > '2200-01-01'": [],
        'length("streams.format") > 3': [first.block_id, second.block_id],
        "encode(\"streams.objects_metadata\", 'hex') LIKE '8%'": [first.block_id, second.block_id],
    }.items():
        found = ask(engine, f"SELECT block_id FROM blocks WHERE {condition} ORDER BY insert_time")
        assert column(found) == ids, condition
    whole = ask(engine, f"SELECT * FROM blocks WHERE block_id = '{first.block_id}'")
    stream = lake.metadata.streams([traffics[0].log.stream_id])[traffics[0].log.stream_id]
    assert column(whole, "streams.objects_metadata") == [stream.objects_metadata]

    streams = ask(engine, f"SELECT stream_id, tags FROM streams WHERE process_id = '{traffics[1].process_id}'")
    assert sorted(tags[0] for tags in column(streams, 1)) == ["cpu", "log", "metrics"]


def test_rows_of_the_metadata_follow_the_request_range(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    traffic.logs("a")
    (block,) = local_lake.metadata.blocks()
    for view in ("blocks", "processes", "streams"):
        newest = one(ask(local_engine, f"SELECT max(insert_time) FROM {view}"))
        assert newest <= block.insert_time
    assert one(ask(local_engine, "SELECT count(*) FROM blocks", begin=block.insert_time)) == 1
    assert one(ask(local_engine, "SELECT count(*) FROM blocks", begin=block.insert_time + 1)) == 0
    assert one(ask(local_engine, "SELECT count(*) FROM blocks", end=block.begin_time)) == 1
    assert one(ask(local_engine, "SELECT count(*) FROM blocks", end=block.begin_time - 1)) == 0
    assert one(ask(local_engine, "SELECT count(*) FROM processes", begin=block.insert_time)) == 1
    assert one(ask(local_engine, "SELECT count(*) FROM processes", begin=block.insert_time + 1)) == 0


def test_lists(lake: Lake, engine: QueryEngine) -> None:
    traffic = MadeTraffic(lake)
    traffic.logs("a", "b")
    (partition,) = materialize(lake, LOG_ENTRIES)
    listed = ask(engine, "SELECT * FROM list_partitions()")
    assert (column(listed, "file_path"), column(listed, "num_rows")) == ([partition.file_path], [2])
    assert column(listed, "min_event_time") == [partition.min_event_time]
    joined = ask(
        engine,
        "SELECT count(*) FROM list_partitions() p JOIN list_view_sets() v ON p.view_set_name = v.view_set_name "
        "AND p.file_schema_hash = v.current_schema_hash",
    )
    assert one(joined) == 1
    assert set(column(ask(engine, "SELECT view_set_name FROM list_view_sets()"))) == set(VIEW_SETS)
    with_pending = traffic.log.fields(b"", b"", 1)
    with_pending["stream_id"] = "00000000-0000-0000-0000-000000000001"
    pending = traffic.commit(with_pending)
    errors = ask(engine, "SELECT block_id, view_set_name FROM list_block_errors()")
    assert (column(errors, 0), column(errors, 1)) == ([pending.block_id], [None])


def test_payloads_as_they_were_sent(lake: Lake, engine: QueryEngine) -> None:
    traffic = MadeTraffic(lake)
    sent = traffic.logs("a", "b")
    payload = one(ask(engine, "SELECT get_payload(process_id, stream_id, block_id) FROM blocks"))
    assert payload == sent.payload
    assert set(cbor2.loads(payload)) == {"dependencies", "objects"}
    assert one(ask(engine, "SELECT get_payload(NULL, NULL, NULL)")) is None


def test_functions_work_in_statements(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    traffic.values(*(float(number) for number in range(100)))
    histogram = "make_histogram(0.0, 100.0, 100, value)"
    median = one(ask(local_engine, f"SELECT quantile_from_histogram({histogram}, 0.5) FROM measures"))
    assert median == pytest.approx(50.0)
    per_process = f"WITH h AS (SELECT process_id, {histogram} AS h FROM measures GROUP BY process_id)"
    merged = ask(local_engine, f"{per_process} SELECT count_from_histogram(sum_histograms(h)) FROM h")
    assert one(merged) == 100
    assert one(ask(local_engine, "SELECT property_get(process_properties, 'nope') FROM measures LIMIT 1")) is None


def test_partition_files_are_well_made(local_lake: Lake) -> None:
    traffic = MadeTraffic(local_lake)
    for number in range(10):
        traffic.logs(*(f"message {number} {place}" for place in range(100)))
    (partition,) = materialize(local_lake, LOG_ENTRIES)
    assert partition.file_path is not None
    file = pq.ParquetFile(io.BytesIO(local_lake.objects.get(partition.file_path)))
    assert file.schema_arrow.remove_metadata().equals(LOG_ENTRIES.schema)
    group = file.metadata.row_group(0)
    names = LOG_ENTRIES.schema.names
    for name in names:
        chunk = group.column(names.index(name))
        assert chunk.compression == "ZSTD"
        assert chunk.has_offset_index, name
    assert group.column(names.index("time")).statistics.has_min_max
