"""Shapes 14 to 22 of lakehouse §9: measures."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from statistics import fmean, stdev, variance

import pyarrow as pa
import pytest
from conformance.conftest import Asked, Range
from conformance.world import HOUR, MINUTE, SECOND, START, Measure

WITHIN = (START + 20 * MINUTE, START + 2 * HOUR + 40 * MINUTE)
ROUNDING = 1e-9


def measures(asked: Asked, name: str | None = None, within: Range = WITHIN) -> list[Measure]:
    """Those of the made world in range, in order of time."""
    chosen = [
        each
        for each in asked.world.measures
        if within[0] <= each.time <= within[1] and (name is None or each.name == name)
    ]
    return sorted(chosen, key=lambda each: each.time)


def grouped(rows: Iterable[Measure], key: Callable[[Measure], Hashable]) -> dict[Hashable, list[float]]:
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for each in rows:
        groups[key(each)].append(each.value)
    return groups


def bins_of(values: Iterable[float], start: float, end: float, count: int) -> list[int]:
    bins = [0] * count
    for value in values:
        bins[min(max(math.floor((value - start) / ((end - start) / count)), 0), count - 1)] += 1
    return bins


def quantile_of(bins: list[int], start: float, end: float, ratio: float) -> float:
    """Where the bins, each filled evenly, reach a share of the values."""
    target, below, width = sum(bins) * ratio, 0, (end - start) / len(bins)
    for position, count in enumerate(bins):
        if count and below + count >= target:
            return start + (position + (target - below) / count) * width
        below += count
    return end


def test_14_catalogue(asked: Asked) -> None:
    process = asked.world.processes[0]
    sql = f"SELECT DISTINCT name, target, unit FROM view_instance('measures', '{process.process_id}') ORDER BY name"
    expected = {(each.name, each.target, each.unit) for each in measures(asked) if each.process is process}
    assert asked.rows(sql, WITHIN) == sorted(expected)


def test_15_time_series(asked: Asked) -> None:
    sql = (
        "SELECT date_bin(INTERVAL '10 seconds', time) t, AVG(value), MAX(value) FROM measures "
        "WHERE name = 'frame_time' GROUP BY t ORDER BY t"
    )
    groups = grouped(measures(asked, "frame_time"), lambda each: each.time // (10 * SECOND) * 10 * SECOND)
    expected = [(time, fmean(values), max(values)) for time, values in sorted(groups.items())]  # type: ignore[type-var]
    assert asked.rows(sql, WITHIN) == [pytest.approx(row, rel=ROUNDING) for row in expected]


def test_16_per_process(asked: Asked) -> None:
    averages = {
        process: fmean(values)
        for process, values in grouped(measures(asked, "cpu_usage"), lambda each: each.process.process_id).items()
    }
    middle = sorted(averages.values())[1]
    sql = (
        "SELECT process_id, AVG(value) FROM measures WHERE name = 'cpu_usage' GROUP BY process_id "
        f"HAVING AVG(value) > {middle - ROUNDING}"
    )
    expected = {process: average for process, average in averages.items() if average >= middle}
    assert len(expected) == 2
    assert dict(asked.rows(sql, WITHIN)) == pytest.approx(expected, rel=ROUNDING)


def test_17_spread(asked: Asked) -> None:
    sql = "SELECT name, STDDEV(value), MIN(value), MAX(value) FROM measures GROUP BY name ORDER BY name"
    groups = grouped(measures(asked), lambda each: each.name)
    expected = [(name, stdev(values), min(values), max(values)) for name, values in sorted(groups.items())]  # type: ignore[type-var]
    assert asked.rows(sql, WITHIN) == [
        (name, pytest.approx(deviation, rel=1e-7), low, high) for name, deviation, low, high in expected
    ]


def test_18_percentile_by_histogram(asked: Asked) -> None:
    sql = (
        "SELECT quantile_from_histogram(make_histogram(0.0, 100.0, 200, value), 0.95) FROM measures "
        "WHERE name = 'frame_time'"
    )
    bins = bins_of([each.value for each in measures(asked, "frame_time")], 0.0, 100.0, 200)
    assert asked.rows(sql, WITHIN) == [(pytest.approx(quantile_of(bins, 0.0, 100.0, 0.95), rel=ROUNDING),)]


def test_19_histograms_merged(asked: Asked) -> None:
    sql = (
        "WITH h AS (SELECT date_bin(INTERVAL '1 minute', time) t, make_histogram(0.0, 50.0, 50, value) hist "
        "FROM measures WHERE name = 'x' GROUP BY t) SELECT quantile_from_histogram(sum_histograms(hist), 0.5), "
        "count_from_histogram(sum_histograms(hist)), sqrt(variance_from_histogram(sum_histograms(hist))) FROM h"
    )
    values = [each.value for each in measures(asked, "x")]
    median = quantile_of(bins_of(values, 0.0, 50.0, 50), 0.0, 50.0, 0.5)
    ((found_median, count, deviation),) = asked.rows(sql, WITHIN)
    assert (found_median, count) == (pytest.approx(median, rel=ROUNDING), len(values))
    assert deviation == pytest.approx(math.sqrt(variance(values)), rel=1e-7)


def test_20_bars(asked: Asked) -> None:
    sql = (
        "SELECT bin_center, count FROM expand_histogram("
        "(SELECT make_histogram(0.0, 50.0, 25, value) FROM measures WHERE name = 'x'))"
    )
    bins = bins_of([each.value for each in measures(asked, "x")], 0.0, 50.0, 25)
    table = asked.table(sql, WITHIN)
    assert table.schema.names == ["bin_center", "count"]
    assert [pa.float64(), pa.uint64()] == table.schema.types
    assert asked.rows(sql, WITHIN) == [(pytest.approx(2.0 * place + 1.0), count) for place, count in enumerate(bins)]


def test_21_computed_bounds(asked: Asked) -> None:
    sql = (
        "WITH b AS (SELECT MIN(value) lo, MAX(value) hi FROM measures WHERE name='x') "
        "SELECT make_histogram(b.lo, b.hi, 20, m.value) FROM measures m CROSS JOIN b WHERE m.name='x'"
    )
    values = [each.value for each in measures(asked, "x")]
    ((histogram,),) = asked.rows(sql, WITHIN)
    low, high = min(values), max(values)
    assert (histogram["start"], histogram["end"], histogram["min"], histogram["max"]) == (low, high, low, high)
    assert histogram["bins"] == bins_of(values, low, high, 20)
    assert histogram["count"] == len(values)


def test_22_a_property_over_time(asked: Asked) -> None:
    process = asked.world.processes[0]
    sql = (
        "SELECT date_bin(INTERVAL '1 second', time) t, MAX(value), jsonb_format_json(first_value(properties)) "
        f"FROM view_instance('measures','{process.process_id}') WHERE name='x' GROUP BY t ORDER BY t"
    )
    chosen = [each for each in measures(asked, "x") if each.process is process]
    groups = grouped(chosen, lambda each: each.time // SECOND * SECOND)
    zones = {each.time // SECOND * SECOND: json.dumps(each.properties, separators=(",", ":")) for each in chosen}
    assert max(map(len, groups.values())) == 1, "the first of several properties is any of them"
    expected = [(time, max(values), zones[time]) for time, values in sorted(groups.items())]  # type: ignore[type-var,index]
    assert asked.rows(sql, WITHIN) == expected
