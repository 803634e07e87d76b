"""Shapes 42 to 54 of lakehouse §9: processes, streams, blocks, payloads, JSON, partitions."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

import cbor2
import pytest
from conformance.conftest import Asked
from conformance.world import HOUR, START

NOW_AND_THEN = (START, START + 100_000 * HOUR)
"""Holds the world's own times, and the insert times, which are of today."""


def test_42_latest_processes(asked: Asked) -> None:
    sql = "SELECT process_id, exe, start_time, last_update_time FROM processes ORDER BY last_update_time DESC LIMIT 20"
    found = asked.rows(sql, NOW_AND_THEN)
    known = {process.process_id: process.exe for process in asked.world.processes}
    known |= {key: value["exe"] for each in asked.recordings for key, value in each.processes.items()}
    assert {row[0]: row[1] for row in found} == known
    updates = [row[3] for row in found]
    assert updates == sorted(updates, reverse=True)


def test_43_by_executable(asked: Asked) -> None:
    sql = "SELECT * FROM processes WHERE exe LIKE '%Editor%' AND property_get(properties,'branch')='main'"
    table = asked.table(sql, NOW_AND_THEN)
    (expected,) = (
        process.process_id
        for process in asked.world.processes
        if "Editor" in process.exe and process.properties["branch"] == "main"
    )
    assert table["process_id"].to_pylist() == [expected]
    assert table.column_names == [
        "process_id",
        "exe",
        "username",
        "realname",
        "computer",
        "distro",
        "cpu_brand",
        "tsc_frequency",
        "start_time",
        "start_ticks",
        "insert_time",
        "parent_process_id",
        "properties",
        "last_update_time",
        "last_block_end_ticks",
        "last_block_end_time",
    ]


def test_44_streams_of_a_process(asked: Asked) -> None:
    process = asked.world.processes[0]
    sql = (
        "SELECT s.stream_id, property_get(s.properties,'thread-name') FROM streams s "
        f"WHERE process_id='{process.process_id}' AND array_has(s.tags,'cpu')"
    )
    expected = {(each.stream_id, each.properties["thread-name"]) for each in process.streams if each.tag == "cpu"}
    assert set(asked.rows(sql, NOW_AND_THEN)) == expected


def test_45_logs_joined_to_processes(asked: Asked) -> None:
    sql = (
        "SELECT p.exe, COUNT(*) FROM log_entries l JOIN processes p ON l.process_id = p.process_id "
        "WHERE l.time BETWEEN TIMESTAMP '2026-05-28T20:00:00Z' AND TIMESTAMP '2026-05-28T23:00:00Z' GROUP BY p.exe"
    )
    assert dict(asked.rows(sql, NOW_AND_THEN)) == Counter(each.process.exe for each in asked.world.logs)


def test_46_block_volume(asked: Asked) -> None:
    sql = (
        'SELECT "processes.exe", SUM(payload_size), SUM(nb_objects) FROM blocks '
        "WHERE begin_time BETWEEN TIMESTAMP '2026-05-28T20:00:00Z' AND TIMESTAMP '2026-05-28T23:00:00Z' "
        "GROUP BY 1 ORDER BY 2 DESC"
    )
    sizes, objects = Counter[str](), Counter[str]()
    for block in asked.world.blocks:
        sizes[block.stream.process.exe] += len(block.payload)
        objects[block.stream.process.exe] += block.nb_objects
    found = asked.rows(sql, NOW_AND_THEN)
    assert {exe: count for exe, _, count in found} == objects
    # Payloads are stored as they came, maybe with another head around the same two buffers.
    assert {exe: size for exe, size, _ in found} == pytest.approx(sizes, rel=0.05)
    assert [size for _, size, _ in found] == sorted((size for _, size, _ in found), reverse=True)


def test_47_tag_position(asked: Asked) -> None:
    sql = "SELECT COUNT(*) FROM blocks WHERE array_position(\"streams.tags\",'log') IS NOT NULL"
    expected = sum(block.stream.tag == "log" for block in asked.world.blocks)
    for each in asked.recordings:
        expected += sum("log" in each.streams[block.header["stream_id"]]["tags"] for block in each.blocks)
    assert asked.rows(sql) == [(expected,)]


def test_48_raw_payload(asked: Asked) -> None:
    for block in asked.world.blocks[::5]:
        ids = (block.stream.process.process_id, block.stream.stream_id, block.block_id)
        ((payload,),) = asked.rows("SELECT get_payload('{}','{}','{}')".format(*ids))
        assert cbor2.loads(payload) == cbor2.loads(block.payload)


def test_49_decode_a_block(asked: Asked) -> None:
    stream = next(each for each in asked.world.streams if each.tag == "log")
    block = stream.blocks[0]
    sql = (
        "SELECT object_index, type_name, jsonb_format_json(value) "
        f"FROM parse_block('{block.block_id}') ORDER BY object_index LIMIT 10"
    )
    logs = sorted(
        (each for each in asked.world.logs if each.process is stream.process and block.begin <= each.time < block.end),
        key=lambda each: each.time,
    )
    found = asked.rows(sql)
    assert [(index, name) for index, name, _ in found] == [(index, "TaggedLogString") for index in range(10)]
    assert [json.loads(value)["msg"] for _, _, value in found] == [each.msg for each in logs[:10]]


def test_50_properties_as_rows(asked: Asked) -> None:
    for process in asked.world.processes:
        sql = (
            "SELECT key, jsonb_as_string(value) FROM jsonb_each("
            f"(SELECT properties FROM processes WHERE process_id='{process.process_id}'))"
        )
        assert dict(asked.rows(sql)) == process.properties


def test_51_json_path(asked: Asked) -> None:
    sql = "SELECT jsonb_format_json(jsonb_path_query_first(jsonb_parse('[{\"a\":1},{\"a\":2}]'), '$[*] ? (@.a == 2)'))"
    assert asked.rows(sql) == [('{"a":2}',)]


def test_52_property_functions(asked: Asked) -> None:
    process = asked.world.processes[0]
    sql = (
        "SELECT properties_length(properties), property_get(properties, 'BRANCH'), property_get(properties, 'none'), "
        "jsonb_format_json(properties_to_jsonb(properties)), properties_length(jsonb_parse('{{}}')) "
        f"FROM processes WHERE process_id = '{process.process_id}'"
    ).replace("{{}}", "{}")
    as_json = json.dumps(process.properties, sort_keys=True, separators=(",", ":"))
    assert asked.rows(sql) == [(2, "main", None, as_json, 0)]
    pairs = ", ".join(f"named_struct('key', '{key}', 'value', '{value}')" for key, value in process.properties.items())
    listed = f"properties_to_array(properties_to_dict(make_array({pairs})))"
    of_list = f"properties_length({listed}), property_get({listed}, 'branch'), property_get({listed}, 'none')"
    sql = f"SELECT {of_list}, jsonb_format_json(properties_to_jsonb({listed}))"
    assert asked.rows(sql) == [(2, "main", None, as_json)]


def test_53_partition_census(asked: Asked) -> None:
    sql = "SELECT view_set_name, view_instance_id, COUNT(*), SUM(file_size) FROM list_partitions() GROUP BY 1,2"
    asked.rows(f"SELECT COUNT(*) FROM view_instance('log_entries', '{asked.world.processes[0].process_id}')")
    found = {(view, instance): size for view, instance, _, size in asked.rows(sql)}
    assert found["log_entries", asked.world.processes[0].process_id] > 0
    assert (("log_entries", "global") in found) == (asked.state == "partitions")
    assert (("measures", "global") in found) == (asked.state == "partitions")


def test_54_stale_schemas(asked: Asked) -> None:
    sql = (
        "SELECT p.view_set_name, COUNT(*) FROM list_partitions() p JOIN list_view_sets() v "
        "ON p.view_set_name = v.view_set_name WHERE p.file_schema_hash <> v.current_schema_hash GROUP BY 1"
    )
    assert asked.rows(sql) == []
    fresh = sql.replace("<>", "=")
    asked.rows(f"SELECT COUNT(*) FROM view_instance('measures', '{asked.world.processes[0].process_id}')")
    assert dict(asked.rows(fresh))["measures"] > 0


def test_streams_know_their_formats(asked: Asked) -> None:
    table = asked.table("SELECT process_id, format FROM streams", NOW_AND_THEN)
    formats = defaultdict(set)
    for process, form in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
        formats[process].add(form)
    for each in asked.world.processes:
        assert formats[each.process_id] == {"micromegas-transit"}
