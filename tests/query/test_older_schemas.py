"""What an earlier release wrote is read as if today's had written it; nothing is guessed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest
from older_views import BEFORE, CHANGED, COMPUTED, OLDER_SCHEMA, write_as_before
from query.asking import ask, column, one
from query.building import Builds
from query.conftest import SETTINGS
from query.traffic import MadeTraffic, materialize

from micromegas.lake import Lake
from micromegas.query import QueryEngine
from micromegas.views.arrow_types import DICT_STRING, optional, required
from micromegas.views.catalogue import VIEW_SETS
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.older_schema import OlderSchema

COLUMNS = (
    "process_id, stream_id, block_id, insert_time, exe, username, computer, time, target, level, msg, "
    "jsonb_format_json(properties) properties"
)


def shown(table: pa.Table) -> tuple[list[tuple[str, pa.DataType]], list[list[object]]]:
    """Names, types and values."""
    return [(field.name, field.type) for field in table.schema], [
        column(table.set_column(place, field.name, table[place].cast(plain_type(field.type))), place)
        for place, field in enumerate(table.schema)
    ]


def plain_type(data_type: pa.DataType) -> pa.DataType:
    return data_type.value_type if pa.types.is_dictionary(data_type) else data_type


@pytest.fixture
def changed_engine(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueryEngine]:
    monkeypatch.setitem(VIEW_SETS, "log_entries", CHANGED)
    opened = QueryEngine(lake, SETTINGS)
    yield opened
    opened.close()


def test_rows_of_all_releases_are_one_table(lake: Lake, changed_engine: QueryEngine) -> None:
    traffic = MadeTraffic(lake)
    for number in range(6):
        traffic.logs(f"{number}", f"same {number % 2}")
    plain = QueryEngine(lake, SETTINGS)
    statements = [
        f"SELECT {COLUMNS} FROM log_entries ORDER BY time",
        "SELECT level, count(*) FROM log_entries WHERE msg LIKE 'same%' GROUP BY level ORDER BY level",
        "SELECT count(*) FROM log_entries WHERE level >= 0 AND exe LIKE 'program%'",
        "SELECT msg, target FROM log_entries ORDER BY time DESC LIMIT 3",
        "SELECT a.msg FROM log_entries a JOIN log_entries b USING (block_id) WHERE b.msg = '1' ORDER BY a.time",
    ]
    expected = [shown(ask(plain, sql)) for sql in statements]
    middle = column(ask(plain, "SELECT time FROM log_entries ORDER BY time OFFSET 5 LIMIT 1"))[0]
    in_range = shown(ask(plain, statements[0], begin=middle))
    blocks = lake.metadata.blocks(tag="log")
    old = write_as_before(lake, blocks[:4])
    # The one release doesn't know what the other wrote, and decodes the blocks.
    assert old.schema_hash not in LOG_ENTRIES.readable
    assert [shown(ask(plain, sql)) for sql in statements] == expected
    plain.close()
    lake.metadata.replace_partitions("log_entries", "global", frozenset({old.partition_id}), None)
    write_as_before(lake, blocks[:2])
    write_as_before(lake, blocks[2:4])
    for materialized in (False, True):
        assert [shown(ask(changed_engine, sql)) for sql in statements] == expected
        assert shown(ask(changed_engine, statements[0], begin=middle)) == in_range
        # First with a tail, then with a partition of today.
        if not materialized:
            materialize(lake, LOG_ENTRIES)
    assert len(lake.metadata.partitions("log_entries", "global")) == 3


def test_a_process_is_not_built_again_for_its_schema(lake: Lake, changed_engine: QueryEngine) -> None:
    traffic = MadeTraffic(lake)
    traffic.logs("a", "b")
    broken = traffic.broken_logs()
    blocks = lake.metadata.blocks(tag="log")
    sql = f"SELECT count(*), sum(level) FROM view_instance('log_entries', '{traffic.process_id}')"
    builds = Builds()
    try:
        old = write_as_before(lake, blocks, traffic.process_id, failed=())
        lake.metadata.clear_block_errors("log_entries", [broken.block_id])
        rows = ask(changed_engine, sql)
        assert column(rows, 0) == [2]
        assert builds.count == 0
        # Where an older decoder failed, today's tries.
        lake.metadata.replace_partitions("log_entries", traffic.process_id, frozenset({old.partition_id}), None)
        write_as_before(lake, blocks, traffic.process_id, failed=blocks[:1])
        assert column(ask(changed_engine, "SELECT block_id FROM list_block_errors()")) == [blocks[0].block_id]
        for _ in range(3):
            assert ask(changed_engine, sql).equals(rows)
        assert builds.count == 1
    finally:
        builds.end()
    assert column(ask(changed_engine, "SELECT block_id FROM list_block_errors()")) == [broken.block_id]


def test_a_new_column_is_null_where_nobody_knew_of_it(local_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = LOG_ENTRIES.schema.append(optional("note", DICT_STRING))
    grown = replace(LOG_ENTRIES, schema=schema, older=(OlderSchema(LOG_ENTRIES.schema, 1),))
    monkeypatch.setitem(VIEW_SETS, "log_entries", grown)
    MadeTraffic(local_lake).logs("a", "b")
    materialize(local_lake, LOG_ENTRIES)
    engine = QueryEngine(local_lake, SETTINGS)
    try:
        assert column(ask(engine, "SELECT note FROM log_entries")) == [None, None]
        assert one(ask(engine, "SELECT count(*) FROM log_entries WHERE note IS NULL AND msg = 'b'")) == 1
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("column_of_today", "reason"),
    [
        (required("new", pa.int64()), "must not be NULL"),
        (required("time", pa.int64()), "without loss"),
        (required("severity", pa.int32()), "without loss"),
        (required("narrow", pa.int32()), "without loss"),
        (required("loose", pa.utf8()), "may be NULL"),
    ],
)
def test_what_can_not_be_had_is_refused_at_once(column_of_today: pa.Field, reason: str) -> None:
    older = OLDER_SCHEMA.append(required("narrow", pa.int64())).append(optional("loose", pa.utf8()))
    names = [field for field in LOG_ENTRIES.schema if field.name != column_of_today.name]
    with pytest.raises(ValueError, match=reason):
        replace(LOG_ENTRIES, schema=pa.schema([*names, column_of_today]), older=(OlderSchema(older, 0, COMPUTED),))
    widened = LOG_ENTRIES.schema.append(required("wide", pa.int64()))
    older_wide = OLDER_SCHEMA.append(required("wide", pa.int32()))
    assert BEFORE.schema_hash in CHANGED.readable
    assert len(replace(LOG_ENTRIES, schema=widened, older=(OlderSchema(older_wide, 0, COMPUTED),)).readable) == 2
