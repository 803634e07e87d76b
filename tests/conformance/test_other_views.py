"""Shapes 34 to 41 of lakehouse §9: asynchronous spans, what was replicated, pictures."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from conformance.conftest import Asked
from conformance.world import HOUR, START, AsyncSpan
from e2e.reference import ProcessReference
from views.net_reference import NetSpan, net_spans

WITHIN = (START, START + HOUR)


def async_events(asked: Asked) -> str:
    return f"view_instance('async_events', '{asked.world.async_spans[0].process.process_id}')"


def closed(asked: Asked) -> list[AsyncSpan]:
    return [each for each in asked.world.async_spans if each.end is not None]


def milliseconds(span: AsyncSpan) -> float:
    assert span.end is not None
    return (span.end - span.begin) / 1e6


def joined(asked: Asked) -> str:
    view = async_events(asked)
    return (
        f"SELECT b.name, CAST((e.time - b.time) AS BIGINT) / 1e6 ms FROM {view} b JOIN {view} e USING (span_id) "
        "WHERE b.event_type='begin' AND e.event_type='end'"
    )


def test_34_durations(asked: Asked) -> None:
    expected = sorted(((each.name, milliseconds(each)) for each in closed(asked)), key=lambda row: -row[1])
    assert asked.rows(joined(asked) + " ORDER BY ms DESC", WITHIN) == [
        (name, pytest.approx(duration)) for name, duration in expected
    ]


def test_35_depth_profile(asked: Asked) -> None:
    sql = f"SELECT depth, COUNT(*) FROM {async_events(asked)} WHERE event_type='begin' GROUP BY depth ORDER BY depth"
    assert asked.rows(sql, WITHIN) == sorted(Counter(each.depth for each in asked.world.async_spans).items())


def test_36_parents(asked: Asked) -> None:
    view = async_events(asked)
    sql = (
        f"SELECT c.span_id, p.span_id, p.name FROM {view} c JOIN {view} p ON c.parent_span_id = p.span_id "
        "WHERE c.event_type = 'begin' AND p.event_type = 'begin'"
    )
    names = {each.id: each.name for each in asked.world.async_spans}
    expected = {(each.id, each.parent, names[each.parent]) for each in asked.world.async_spans if each.parent}
    assert set(asked.rows(sql, WITHIN)) == expected


def test_37_percentile_by_name(asked: Asked) -> None:
    sql = (
        f"WITH d AS ({joined(asked)}) SELECT name, approx_percentile_cont(ms, 0.99) FROM d GROUP BY name ORDER BY name"
    )
    for name, found in asked.rows(sql, WITHIN):
        durations = sorted(milliseconds(each) for each in closed(asked) if each.name == name)
        assert durations[int(len(durations) * 0.95)] <= found <= durations[-1]


def net_process(asked: Asked) -> tuple[ProcessReference, list[NetSpan]]:
    """The recorded process that has a stream of replication, and its rows from an independent computation."""
    for process in asked.processes.values():
        blocks = list(process.blocks_tagged("net"))
        if blocks:
            events = [
                (block.header["object_offset"] + position, event)
                for block in blocks
                for position, event in enumerate(block.events)
            ]
            return process, net_spans(events)
    raise LookupError("no recording has a net stream")


def test_38_net_bandwidth(asked: Asked) -> None:
    process, rows = net_process(asked)
    sql = (
        f"SELECT name, SUM(bit_size)/8 bytes FROM view_instance('net_spans','{process.process_id}') "
        "WHERE kind='object' AND is_outgoing GROUP BY name ORDER BY bytes DESC"
    )
    bits = Counter[str]()
    for row in rows:
        if row.kind == "object" and row.is_outgoing:
            bits[row.name] += row.bit_size
    found = asked.rows(sql)
    assert dict(found) == {name: total // 8 for name, total in bits.items()}
    assert [size for _, size in found] == sorted((size for _, size in found), reverse=True)


def test_39_net_flame(asked: Asked) -> None:
    process, rows = net_process(asked)
    sql = (
        "SELECT span_id, parent_span_id, depth, kind, name, begin_bits, end_bits "
        f"FROM view_instance('net_spans','{process.process_id}') ORDER BY begin_time"
    )
    expected = Counter(
        (row.span_id, row.parent_span_id, row.depth, row.kind, row.name, row.begin_bits, row.end_bits) for row in rows
    )
    assert Counter(asked.rows(sql)) == expected


def test_41_images(asked: Asked) -> None:
    events: list[tuple[ProcessReference, dict[str, Any]]] = [
        (process, event)
        for process in asked.processes.values()
        for block in process.blocks_tagged("image")
        for event in block.events
    ]
    assert events
    process = events[0][0]
    sql = f"SELECT time, name, format, payload_size FROM view_instance('images','{process.process_id}') ORDER BY time"
    expected = [
        (
            process.time_of(event["time"]),
            event["name"],
            event["format"],
            event["data"]["$bytes"],
        )
        for owner, event in events
        if owner is process
    ]
    found = asked.rows(sql)
    assert Counter(found) == Counter(expected)
    assert [row[0] for row in found] == sorted(row[0] for row in expected)
