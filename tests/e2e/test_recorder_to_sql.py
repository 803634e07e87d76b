"""From calls in a program to rows in SQL: everything that an instrumented program did, and nothing else."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e.answers import properties_of, records
from e2e.instrumented_program import CHILD_LOGS, REMOTE_SPAN, REMOTE_TRACE, STEPS, TASKS, THREADS
from e2e.serving import Service, serving, wait_until_materialized

from micromegas.config import LakeSettings

PROGRAM = Path(__file__).with_name("instrumented_program.py")
FORMATS = {"auto": "micromegas-columns/1", "transit": "micromegas-transit"}
"""What the recorder is told, and what it sends to a server of ours then."""
WORKERS = [f"worker-{number}" for number in range(THREADS)]
CLOCK_MARGIN = 50_000_000
"""The process's clock is fitted to the wall clock; both may differ by this much (ns)."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run of the program, and the server that has its telemetry."""

    service: Service
    said: dict[str, Any]
    format: str

    @property
    def process_id(self) -> str:
        return str(self.said["process_id"])

    def ask(self, sql: str) -> list[dict[str, Any]]:
        return records(self.service.query(sql.replace("{process}", self.process_id), ranged=True))

    def threads(self) -> dict[str, str]:
        """Stream ids of the process's threads by their names."""
        sql = (
            "SELECT stream_id, property_get(properties, 'thread-name') AS name FROM streams "
            "WHERE process_id = '{process}' AND array_has(tags, 'cpu')"
        )
        return {row["name"]: row["stream_id"] for row in self.ask(sql)}


@pytest.fixture(scope="module", params=FORMATS)
def run(module_lake: LakeSettings, request: pytest.FixtureRequest) -> Iterator[Run]:
    with serving(module_lake) as service:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MICROMEGAS_")}
        environment = inherited | {
            "MICROMEGAS_TELEMETRY_URL": f"http://127.0.0.1:{service.http_port}",
            "MICROMEGAS_ENCODING": request.param,
        }
        done = subprocess.run(
            [sys.executable, str(PROGRAM)], env=environment, stdout=subprocess.PIPE, timeout=120, check=True
        )
        yield Run(service, json.loads(done.stdout), FORMATS[request.param])


def test_everything_has_arrived(run: Run) -> None:
    assert run.said["has_arrived"] is True
    assert run.said["status"]["lost_events"] == 0
    assert run.said["status"]["last_error"] is None
    assert run.ask("SELECT * FROM list_block_errors()") == []


def test_format(run: Run) -> None:
    rows = run.ask("SELECT DISTINCT \"streams.format\" AS format FROM blocks WHERE process_id = '{process}'")
    assert rows == [{"format": run.format}]


def test_process(run: Run) -> None:
    [row] = run.ask("SELECT * FROM processes WHERE process_id = '{process}'")
    assert (row["exe"], row["parent_process_id"]) == ("instrumented", "")
    properties = dict(properties_of(row["properties"]))
    assert properties["build"] == "test é"
    assert properties["language"] == "python"
    assert abs(row["start_time"] - run.said["begin"]) < 10_000_000_000


@pytest.mark.parametrize("when", ["from the tail", "from partitions"])
def test_logs(run: Run, when: str) -> None:
    if when == "from partitions":
        wait_until_materialized(run.service)
    rows = run.ask(
        "SELECT time, level, target, msg, properties FROM log_entries WHERE process_id = '{process}' ORDER BY time"
    )
    assert {row["target"] for row in rows} == {"__main__"}
    levels = {row["msg"]: row["level"] for row in rows if row["msg"].startswith("level ")}
    named = {"fatal": 1, "critical": 1, "error": 2, "warn": 3, "warning": 3, "info": 4, "debug": 5, "trace": 6}
    assert levels == {f"level {name}": level for name, level in named.items()}
    expected = Counter([f"level {name}" for name in named])
    expected.update(["plain", "100%", "é 🚀 \0 \u2028", "a 1 'b' 2.50", "long " + "x" * 100_000, "the last words"])
    expected.update(f"step {step} of {name}" for name in WORKERS for step in range(STEPS))
    expected.update(f"task {number}" for number in range(TASKS))
    assert Counter(row["msg"] for row in rows) == expected
    for row in rows:
        words = row["msg"].split()
        thread = {"thread": words[-1]} if words[0] == "step" else {}
        assert dict(properties_of(row["properties"])) == thread
        assert run.said["begin"] - CLOCK_MARGIN <= row["time"] <= run.said["end"] + CLOCK_MARGIN
    for name in WORKERS:
        # Each thread's logs in the order in which it wrote them.
        assert [row["msg"] for row in rows if row["msg"].endswith(f"of {name}")] == [
            f"step {step} of {name}" for step in range(STEPS)
        ]


def test_measures(run: Run) -> None:
    rows = run.ask(
        "SELECT * FROM measures WHERE process_id = '{process}' AND target = '__main__' AND name <> 'weight' "
        "ORDER BY time"
    )
    values = {name: [row["value"] for row in rows if row["name"] == name] for name in ("sizes", "hits", "duration")}
    assert len(rows) == sum(map(len, values.values()))
    assert values["sizes"][:5] == [0.0, float(2**63 - 1), -1.0, 1.5, math.inf]
    assert math.isnan(values["sizes"][5])
    assert len(values["sizes"]) == 6
    assert sum(values["hits"]) == 2 * STEPS * THREADS
    for name in WORKERS:
        of_thread = [row for row in rows if dict(properties_of(row["properties"])) == {"thread": name}]
        assert [(row["name"], row["unit"], row["value"]) for row in of_thread] == [
            ("duration", "ms", step / 2) for step in range(STEPS)
        ]


def test_measures_with_properties_of_their_own(run: Run) -> None:
    rows = run.ask(
        "SELECT property_get(properties, 'by') AS by, property_get(properties, 'turn') AS turn, "
        "property_get(properties, 'even') AS even, unit, value FROM measures "
        "WHERE process_id = '{process}' AND name = 'weight' ORDER BY by, time"
    )
    assert rows == [
        {"by": name, "turn": str(step % 3), "even": str(step % 2 == 0), "unit": "kg", "value": float(step)}
        for name in WORKERS
        for step in range(STEPS)
    ]


def test_what_is_measured_beside_the_program(run: Run) -> None:
    rows = run.ask(
        "SELECT target, name, unit, value, properties FROM measures WHERE process_id = '{process}' "
        "AND (target LIKE 'micromegas.%' OR name IN ('depth', 'event_loop_lag', 'DeltaTime')) ORDER BY time"
    )
    units = {(row["target"].rpartition(".")[2], row["name"]): row["unit"] for row in rows}
    assert units[("system", "total_memory")] == "bytes"
    assert units[("system", "process_resident_bytes")] == "bytes"
    assert units[("recorder", "QueueSizeBytes")] == "bytes"
    assert units[("recorder", "HttpRequestCompletionTime")] == "ns"
    assert units[("interpreter", "event_loop_lag")] == "ms"
    [total] = [row["value"] for row in rows if row["name"] == "total_memory"]
    assert total == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert {row["value"] for row in rows if row["name"] == "depth"} == {7.0}
    [frame] = [row for row in rows if row["name"] == "DeltaTime"]
    assert (frame["target"], frame["unit"]) == ("frames", "seconds")
    assert 0 <= frame["value"] < 60
    assert dict(properties_of(frame["properties"])) == {"frame": "load"}
    pauses = [row for row in rows if row["name"] == "gc_pause"]
    assert {"generation": "2"} in [dict(properties_of(row["properties"])) for row in pauses]


def test_thread_spans(run: Run) -> None:
    threads = run.threads()
    for name in WORKERS:
        rows = run.ask(f"SELECT * FROM view_instance('thread_spans', '{threads[name]}')")
        by_id = {row["id"]: row for row in rows}
        last = f"last of {name}"
        expected = Counter({"step": STEPS, "work": STEPS, "inner": STEPS, last: 1, "automatic": 1, "thread_main": 1})
        expected["deeper"] = 4 * sum(step % 10 != 0 for step in range(STEPS))
        assert Counter(row["name"] for row in rows if row["depth"] > 0) == expected
        parents = {"thread_main": {-1}, "step": {"thread_main"}, last: {"thread_main"}, "automatic": {last}}
        parents |= {"work": {"step"}, "inner": {"work"}, "deeper": {"inner", "deeper"}}
        for row in rows:
            if row["depth"] == 0:
                continue
            parent = by_id[row["parent"]]
            assert (parent["name"] if parent["id"] != -1 else -1) in parents[row["name"]]
            assert parent["begin"] <= row["begin"] <= row["end"] <= parent["end"]
            assert parent["depth"] == row["depth"] - 1
            assert row["duration"] == row["end"] - row["begin"]
            assert Path(row["filename"]).name == PROGRAM.name
            assert run.said["begin"] - CLOCK_MARGIN <= row["begin"]
            assert row["end"] <= run.said["end"] + CLOCK_MARGIN


def test_async_spans(run: Run) -> None:
    rows = run.ask("SELECT * FROM view_instance('async_events', '{process}')")
    begins = {row["span_id"]: row for row in rows if row["event_type"] == "begin"}
    ends = {row["span_id"]: row for row in rows if row["event_type"] == "end"}
    assert len(rows) == 10 * TASKS
    assert begins.keys() == ends.keys()
    expected = Counter({"outer task": TASKS, "inner task": TASKS, REMOTE_TRACE: TASKS, "answer": TASKS})
    expected.update(f"answer {number}" for number in range(TASKS))
    assert Counter(row["name"] for row in begins.values()) == expected
    adopted = [row for row in begins.values() if row["target"] == "micromegas.traceparent"]
    assert {row["name"] for row in adopted} == {REMOTE_TRACE}
    assert sorted(row["parent_span_id"] for row in adopted) == [REMOTE_SPAN + number for number in range(TASKS)]
    for span_id, row in begins.items():
        assert row["time"] <= ends[span_id]["time"]
        parents = {"inner task": "outer task", "answer": REMOTE_TRACE}
        parents |= {f"answer {number}": "answer" for number in range(TASKS)}
        if row["name"] in parents:
            assert begins[row["parent_span_id"]]["name"] == parents[row["name"]]
            assert row["depth"] == begins[row["parent_span_id"]]["depth"] + 1
        elif row["name"] == "outer task":
            assert row["parent_span_id"] == 0
    inside = run.ask(
        "SELECT count(*) AS n FROM view_instance('async_events', '{process}') b "
        "JOIN view_instance('async_events', '{process}') e ON b.span_id = e.span_id "
        "JOIN view_instance('log_entries', '{process}') l ON l.time >= b.time AND l.time <= e.time "
        "WHERE b.event_type = 'begin' AND e.event_type = 'end' AND l.msg LIKE 'task %'"
    )
    # All tasks overlap, so a log lies in the spans of several; at least in the two of its own.
    assert inside[0]["n"] >= 2 * TASKS


def test_children_are_processes_of_their_own(run: Run) -> None:
    rows = run.ask(
        "SELECT p.process_id, p.exe, l.msg FROM processes p JOIN log_entries l ON l.process_id = p.process_id "
        "WHERE p.parent_process_id = '{process}' ORDER BY l.time"
    )
    by_child: dict[str, list[str]] = {}
    for row in rows:
        by_child.setdefault(row["process_id"], []).append(row["msg"])
    expected = [
        [f"{kind} {number} {step}" for step in range(CHILD_LOGS)]
        for kind in ("forked", "spawned")
        for number in range(2)
    ]
    assert sorted(by_child.values()) == sorted(expected)
    measures = run.ask(
        "SELECT m.value FROM measures m JOIN processes p ON m.process_id = p.process_id "
        "WHERE p.parent_process_id = '{process}' AND m.name = 'child_measure' ORDER BY value"
    )
    assert [row["value"] for row in measures] == [0.0, 1.0]


def test_a_question_that_joins_the_three_kinds(run: Run) -> None:
    """Which measure and which log belong to which span: told by thread and time alone, and always right."""
    for name, stream_id in run.threads().items():
        if name not in WORKERS:
            continue
        rows = run.ask(
            f"SELECT l.msg, m.value FROM view_instance('thread_spans', '{stream_id}') s "
            'JOIN log_entries l ON l.time >= s.begin AND l.time <= s."end" '
            'JOIN measures m ON m.time >= s.begin AND m.time <= s."end" '
            f"WHERE s.name = 'step' AND l.process_id = '{{process}}' AND m.process_id = '{{process}}' "
            f"AND property_get(l.properties, 'thread') = '{name}' AND property_get(m.properties, 'thread') = '{name}' "
            "ORDER BY m.value"
        )
        assert rows == [{"msg": f"step {step} of {name}", "value": step / 2} for step in range(STEPS)]


def test_percentiles_of_spans_beside_measures(run: Run) -> None:
    """Histograms over what came from the recorder."""
    rows = run.ask(
        "SELECT property_get(properties, 'thread') AS thread, "
        "count_from_histogram(make_histogram(0.0, 20.0, 40, value)) AS n, "
        "sum_from_histogram(make_histogram(0.0, 20.0, 40, value)) AS total "
        "FROM measures WHERE process_id = '{process}' AND name = 'duration' GROUP BY 1 ORDER BY 1"
    )
    total = sum(step / 2 for step in range(STEPS))
    assert rows == [{"thread": name, "n": STEPS, "total": total} for name in WORKERS]
