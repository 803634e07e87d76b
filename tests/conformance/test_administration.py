"""Shapes 55 to 57 of lakehouse §9: partitions made and retired by hand.

They retire only what the next query makes again, and leave the server's state as they found it.
"""

from __future__ import annotations

import datetime

import pytest
from conformance.conftest import Asked

ALWAYS = "'2020-01-01T00:00:00Z', '2100-01-01T00:00:00Z'"
FILES = "SELECT file_path FROM list_partitions() WHERE view_set_name = '{}' AND view_instance_id = '{}' ORDER BY 1"


def today() -> str:
    """The days around now, as the arguments of a range of insert time."""
    now = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    day = datetime.timedelta(days=1)
    return ", ".join(f"'{moment.isoformat()}'" for moment in (now - day, now))


def test_55_materializing_is_idempotent(asked: Asked) -> None:
    """What was ingested yesterday is nothing, so nothing may come of it; the steps are told all the same. Meanwhile a
    daemon may merge what it made of today, but that neither brings nor takes rows."""
    _, midnight = today().split(", ")
    made = f"""SELECT count(*) FILTER (WHERE begin_insert_time < {midnight}), sum(num_rows) FROM list_partitions()
        WHERE view_set_name = 'log_entries' AND view_instance_id = 'global'"""
    before = asked.rows(made)
    sql = f"SELECT * FROM materialize_partitions('log_entries', {today()}, 3600)"
    table = asked.table(sql)
    assert table.schema.names == ["time", "msg"]
    assert table.num_rows == 24
    assert asked.table(sql)["msg"].to_pylist() == table["msg"].to_pylist()
    assert asked.rows(made) == before
    assert before[0][0] == 0


def test_56_retired_partitions_are_made_again(asked: Asked) -> None:
    process = asked.world.processes[1].process_id
    count = f"SELECT COUNT(*) FROM view_instance('log_entries', '{process}')"
    expected = sum(each.process.process_id == process for each in asked.world.logs)
    assert asked.rows(count) == [(expected,)]
    before = asked.rows(FILES.format("log_entries", process))
    assert before
    log = asked.table(f"SELECT * FROM retire_partitions('log_entries', '{process}', {ALWAYS})")
    assert log["msg"].to_pylist()[-1].endswith(f"{len(before)} partitions retired")
    assert asked.rows(FILES.format("log_entries", process)) == []
    assert asked.rows(count) == [(expected,)]
    after = asked.rows(FILES.format("log_entries", process))
    assert len(after) == len(before)
    assert not set(after) & set(before)


def test_57_retiring_by_file_and_by_range(asked: Asked) -> None:
    process = asked.world.processes[2].process_id
    count = f"SELECT COUNT(*) FROM view_instance('measures', '{process}')"
    expected = asked.rows(count)
    mine = f"view_set_name = 'measures' AND view_instance_id = '{process}'"
    ((path,),) = asked.rows(f"SELECT file_path FROM list_partitions() WHERE {mine}")
    failing = f"SELECT retire_partition_by_file(column1) FROM (VALUES ('{path}'), ('views/measures/nothing.parquet'))"
    outcomes = [text for (text,) in asked.rows(failing)]
    assert any(text.startswith("ERROR:") for text in outcomes)
    assert asked.rows(FILES.format("measures", process)), "one failing row keeps them all"
    by_file = asked.rows(f"SELECT retire_partition_by_file(file_path) FROM list_partitions() WHERE {mine}")
    assert [text.split(":")[0] for (text,) in by_file] == ["SUCCESS"]
    assert asked.rows(count) == expected
    by_range = asked.rows(
        "SELECT retire_partition_by_metadata(view_set_name, view_instance_id, begin_insert_time, end_insert_time) "
        f"FROM list_partitions() WHERE {mine}"
    )
    assert [text.split(":")[0] for (text,) in by_range] == ["SUCCESS"]
    assert asked.rows(FILES.format("measures", process)) == []
    assert asked.rows(count) == expected


@pytest.mark.parametrize(
    "call", ["materialize_partitions('log_entries', {}, 3600)", "retire_partitions('log_entries', 'global', {})"]
)
def test_an_explanation_orders_nothing(asked: Asked, call: str) -> None:
    before = asked.rows(FILES.format("log_entries", "global"))
    assert asked.rows(f"EXPLAIN SELECT * FROM {call.format(ALWAYS)}")
    assert asked.rows(FILES.format("log_entries", "global")) == before
