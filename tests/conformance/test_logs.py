"""Shapes 1 to 13 of lakehouse §9: logs."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from conformance.conftest import Asked, Range
from conformance.world import HOUR, MINUTE, START, Log

WITHIN = (START + HOUR // 2 + 1, START + 2 * HOUR + 7 * MINUTE)
LIKE_WILD = r"50\% of 1\_done"


def logs(asked: Asked, within: Range | None = WITHIN) -> list[Log]:
    """Those of the made world in range, in order of time."""
    chosen = [each for each in asked.world.logs if within is None or within[0] <= each.time <= within[1]]
    return sorted(chosen, key=lambda each: each.time)


def test_01_newest_problems(asked: Asked) -> None:
    sql = "SELECT time, level, target, msg FROM log_entries WHERE level <= 2 ORDER BY time DESC LIMIT 50"
    expected = [(each.time, each.level, each.target, each.msg) for each in reversed(logs(asked)) if each.level <= 2]
    assert len(expected) > 50
    assert asked.rows(sql, WITHIN) == expected[:50]


def test_02_level_histogram(asked: Asked) -> None:
    sql = "SELECT level, COUNT(*) n FROM log_entries GROUP BY level ORDER BY level"
    assert asked.rows(sql, WITHIN) == sorted(Counter(each.level for each in logs(asked)).items())


def test_03_trend_by_hour(asked: Asked) -> None:
    sql = "SELECT date_trunc('hour', time) h, COUNT(*) n FROM log_entries WHERE level <= 2 GROUP BY h ORDER BY h"
    hours = Counter(each.time // HOUR * HOUR for each in logs(asked) if each.level <= 2)
    assert asked.rows(sql, WITHIN) == sorted(hours.items())
    assert len(hours) == 3


@pytest.mark.parametrize(
    ("pattern", "holds"),
    [
        ("%timeout%", lambda text: "timeout" in text),
        (LIKE_WILD, lambda text: text == "50% of 1_done"),
        ("loaded asset _", lambda text: text.startswith("loaded asset ")),
    ],
)
def test_04_text_search(asked: Asked, pattern: str, holds: object) -> None:
    sql = f"SELECT time, msg FROM log_entries WHERE msg LIKE '{pattern}' ORDER BY time"
    expected = [(each.time, each.msg) for each in logs(asked) if holds(each.msg)]  # type: ignore[operator]
    assert expected
    assert asked.rows(sql, WITHIN) == expected


def test_05_noisiest_targets(asked: Asked) -> None:
    sql = "SELECT target, COUNT(*) n FROM log_entries GROUP BY target ORDER BY n DESC LIMIT 20"
    found = asked.rows(sql, WITHIN)
    assert dict(found) == Counter(each.target for each in logs(asked))
    assert [count for _, count in found] == sorted((count for _, count in found), reverse=True)


def test_06_one_process_without_a_range(asked: Asked) -> None:
    for process in asked.world.processes:
        sql = f"SELECT time, msg FROM view_instance('log_entries', '{process.process_id}') ORDER BY time LIMIT 100"
        expected = [(each.time, each.msg) for each in logs(asked, None) if each.process is process]
        assert len(expected) > 100
        assert asked.rows(sql) == expected[:100]


def test_07_filter_on_a_property(asked: Asked) -> None:
    for key in ("user_id", "USER_ID"):
        sql = f"SELECT time, msg FROM log_entries WHERE property_get(properties, '{key}') = 'u42' ORDER BY time"
        expected = [(each.time, each.msg) for each in logs(asked) if each.properties.get("user_id") == "u42"]
        assert expected
        assert asked.rows(sql, WITHIN) == expected


def test_08_group_by_a_property_of_the_process(asked: Asked) -> None:
    sql = (
        "SELECT property_get(process_properties, 'build') b, COUNT(*) n FROM log_entries WHERE level <= 2 "
        "GROUP BY b ORDER BY b"
    )
    builds = Counter(each.process.properties["build"] for each in logs(asked) if each.level <= 2)
    assert asked.rows(sql, WITHIN) == sorted(builds.items())


WHOLE_MINUTES = (START + HOUR // 2, START + 2 * HOUR + 7 * MINUTE - 1)
"""Bins of a minute are in the range when they begin in it."""


def test_09_minute_statistics(asked: Asked) -> None:
    sql = "SELECT time_bin, SUM(count) n FROM log_stats WHERE level <= 2 GROUP BY time_bin ORDER BY time_bin"
    bins = Counter(each.time // MINUTE * MINUTE for each in logs(asked, WHOLE_MINUTES) if each.level <= 2)
    assert asked.rows(sql, WHOLE_MINUTES) == sorted(bins.items())


def test_10_error_share_from_statistics(asked: Asked) -> None:
    sql = (
        "SELECT target, 100.0 * SUM(CASE WHEN level <= 2 THEN count ELSE 0 END) / SUM(count) pct "
        "FROM log_stats GROUP BY target ORDER BY target"
    )
    errors, counts = Counter[str](), Counter[str]()
    for each in logs(asked, WHOLE_MINUTES):
        counts[each.target] += 1
        errors[each.target] += each.level <= 2
    expected = [(target, pytest.approx(100.0 * errors[target] / counts[target])) for target in sorted(counts)]
    assert asked.rows(sql, WHOLE_MINUTES) == expected


def test_11_level_share_with_a_window(asked: Asked) -> None:
    sql = (
        "SELECT level, SUM(count) c, 100.0 * SUM(count) / SUM(SUM(count)) OVER () pct FROM log_stats "
        "GROUP BY level ORDER BY level"
    )
    levels = Counter(each.level for each in logs(asked, WHOLE_MINUTES))
    expected = [
        (level, count, pytest.approx(100.0 * count / levels.total())) for level, count in sorted(levels.items())
    ]
    assert asked.rows(sql, WHOLE_MINUTES) == expected


def test_12_structured_messages(asked: Asked) -> None:
    sql = (
        "SELECT jsonb_as_string(jsonb_get(jsonb_parse(msg), 'event')) e, COUNT(*) n FROM log_entries "
        "WHERE msg LIKE '{%' GROUP BY e ORDER BY e"
    )
    events = Counter(json.loads(each.msg)["event"] for each in logs(asked) if each.msg.startswith("{"))
    assert len(events) == 2
    assert asked.rows(sql, WITHIN) == sorted(events.items())


def test_13_global_and_instance_agree(asked: Asked) -> None:
    for process in asked.world.processes:
        expected = sum(each.process is process for each in logs(asked))
        for source in (f"log_entries WHERE process_id = '{process.process_id}'", view_instance(process.process_id)):
            assert asked.rows(f"SELECT COUNT(*) FROM {source}", WITHIN) == [(expected,)]


def view_instance(process_id: str) -> str:
    return f"view_instance('log_entries', '{process_id}')"
