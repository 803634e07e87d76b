"""Damage is an error, never fewer rows; and one bad block never hides a good one."""

from __future__ import annotations

from pathlib import Path

import pytest
from query.asking import ask, column, one
from query.conftest import SETTINGS
from query.traffic import MadeTraffic, materialize

from micromegas.lake import Lake, Partition
from micromegas.query import QueryEngine, QueryError
from micromegas.views.log_entries import LOG_ENTRIES

COUNT = "SELECT count(*) FROM log_entries"


def file_of(partition: Partition) -> str:
    assert partition.file_path is not None
    return partition.file_path


def two_partitions(lake: Lake) -> list[Partition]:
    traffic = MadeTraffic(lake)
    for number in range(4):
        traffic.logs(f"{number}")
    return materialize(lake, LOG_ENTRIES, pieces=2)


@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize("damage", ["missing", "truncated", "grown", "emptied"])
def test_a_damaged_file_is_an_error(lake: Lake, engine: QueryEngine, damage: str, asked_before: bool) -> None:
    path = file_of(two_partitions(lake)[1])
    if asked_before:
        assert one(ask(engine, COUNT)) == 4
    data = lake.objects.get(path)
    lake.objects.delete([path])
    damaged = {"truncated": data[:-1], "grown": data + b"x", "emptied": b""}
    if damage in damaged:
        lake.objects.put(path, damaged[damage])
    with pytest.raises(QueryError, match="the answer would lack 2 rows") as failure:
        ask(engine, COUNT)
    assert failure.value.kind == "internal"


@pytest.mark.parametrize("place", ["begin", "middle", "end"])
def test_a_file_of_the_right_size_with_other_bytes_is_an_error(local_lake: Lake, place: str) -> None:
    path = file_of(two_partitions(local_lake)[0])
    data = bytearray(local_lake.objects.get(path))
    start = {"begin": 4, "middle": 200, "end": len(data) - 60}[place]
    for position in range(start, start + 40):
        data[position] ^= 0xFF
    local_lake.objects.put(path, bytes(data))
    engine = QueryEngine(local_lake, SETTINGS)
    try:
        with pytest.raises(QueryError):
            ask(engine, "SELECT * FROM log_entries")
    finally:
        engine.close()


def test_a_file_of_another_partition_is_an_error(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    traffic.logs("a", "b", "c")
    (first,) = materialize(local_lake, LOG_ENTRIES)
    traffic.logs("d")
    (second,) = materialize(local_lake, LOG_ENTRIES)
    local_lake.objects.put(file_of(first), local_lake.objects.get(file_of(second)))
    with pytest.raises(QueryError, match="of partition"):
        ask(local_engine, COUNT)


def test_damage_outside_of_the_range_does_no_harm(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    for number in range(2):
        traffic.logs(f"{number}")
    first, second = materialize(local_lake, LOG_ENTRIES, pieces=2)
    local_lake.objects.delete([file_of(first)])
    assert column(ask(local_engine, "SELECT msg FROM log_entries", begin=second.min_event_time)) == ["1"]


@pytest.mark.parametrize("materialized", [False, True])
def test_undecodable_blocks_are_listed_and_hide_nothing(lake: Lake, engine: QueryEngine, materialized: bool) -> None:
    traffic = MadeTraffic(lake)
    traffic.logs("before")
    broken = traffic.broken_logs()
    traffic.logs("after")
    if materialized:
        (partition,) = materialize(lake, LOG_ENTRIES)
        assert partition.failed_blocks == 1
    for source in ("log_entries", f"view_instance('log_entries', '{traffic.process_id}')"):
        assert column(ask(engine, f"SELECT msg FROM {source} ORDER BY time")) == ["before", "after"]
    listed = ask(engine, "SELECT block_id, view_set_name FROM list_block_errors()")
    assert (column(listed, 0), column(listed, 1)) == ([broken.block_id], ["log_entries"])


def test_a_missing_payload_is_listed(local_lake: Lake, local_engine: QueryEngine) -> None:
    traffic = MadeTraffic(local_lake)
    lost = traffic.logs("lost")
    traffic.logs("kept")
    row = next(row for row in local_lake.metadata.blocks() if row.block_id == lost.block_id)
    local_lake.objects.delete([row.object_key])
    assert column(ask(local_engine, "SELECT msg FROM log_entries")) == ["kept"]
    assert column(ask(local_engine, "SELECT block_id FROM list_block_errors()")) == [lost.block_id]


def test_no_scratch_file_outlives_its_query(local_lake: Lake, tmp_path: Path) -> None:
    spill = tmp_path / "spill"
    settings = SETTINGS.__class__(spill_dir=spill)
    (spill / "micromegas-scratch-left").mkdir(parents=True)
    MadeTraffic(local_lake).logs("a")
    engine = QueryEngine(local_lake, settings)
    (scratch,) = spill.iterdir()
    assert ask(engine, "SELECT * FROM log_entries JOIN processes USING (process_id)").num_rows == 1
    with pytest.raises(QueryError):
        ask(engine, "SELECT nope FROM log_entries")
    assert not any(path.suffix == ".arrow" for path in scratch.rglob("*"))
    engine.close()
    assert list(spill.iterdir()) == []
