"""Every feature of the recorder, in both encodings: each event is in SQL once, with the value that the program gave it,
and nothing else is."""

from __future__ import annotations

import json
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
from e2e.everything_program import (
    CHILDREN,
    LEVELS,
    MESSAGES,
    PASSWORD,
    REMOTE_SPAN,
    REMOTE_TRACE,
    STANDARD_LEVELS,
    STEPS,
    TASKS,
    TWINS,
    VALUES,
)
from e2e.reference import comparable_double
from e2e.serving import Service, serving
from spools import forget_buffers

from micromegas.config import LakeSettings

PROGRAM = Path(__file__).with_name("everything_program.py")
FORMATS = {"columns": "micromegas-columns/1", "transit": "micromegas-transit"}
"""What the recorder is told, and what it sends then."""
FAILURES = "micromegas.record.failures"
SCRUBBED = "[scrubbed]"
CLOCK_MARGIN = 50_000_000
"""The process's clock is fitted to the wall clock; both may differ by this much (ns)."""
OWN_TARGETS = ("micromegas.system", "micromegas.recorder", "micromegas.interpreter")
"""Whose measures are of the machine, and come as often as time allows."""

Event = tuple[Any, ...]
Tree = tuple[str, str, tuple[Any, ...]]
"""Name and target of a span, and the trees below it, in their order."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run of the program, and the server that has its telemetry."""

    service: Service
    encoding: str
    said: dict[str, Any]

    @property
    def process_id(self) -> str:
        return str(self.said["process_id"])

    def ask(self, sql: str) -> list[dict[str, Any]]:
        return records(self.service.query(sql.replace("{process}", self.process_id), ranged=True))

    def logs(self, process_id: str | None = None) -> list[dict[str, Any]]:
        return self.ask(f"SELECT * FROM log_entries WHERE process_id = '{process_id or self.process_id}' ORDER BY time")

    def measures(self, condition: str = "true") -> list[dict[str, Any]]:
        return self.ask(f"SELECT * FROM measures WHERE process_id = '{{process}}' AND {condition} ORDER BY time")

    def threads(self) -> dict[str, str]:
        """Stream ids of the process's threads by their names."""
        sql = (
            "SELECT stream_id, property_get(properties, 'thread-name') AS name FROM streams "
            "WHERE process_id = '{process}' AND array_has(tags, 'cpu')"
        )
        rows = self.ask(sql)
        assert len({row["name"] for row in rows}) == len(rows)
        return {row["name"]: row["stream_id"] for row in rows}

    def spans(self, stream_id: str) -> list[dict[str, Any]]:
        return self.ask(f"SELECT * FROM view_instance('thread_spans', '{stream_id}') ORDER BY id")

    def async_events(self) -> list[dict[str, Any]]:
        return self.ask("SELECT * FROM view_instance('async_events', '{process}') ORDER BY time")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """A run in each encoding, against the same server."""
    with serving(LakeSettings(lake_dir=tmp_path_factory.mktemp("lake"))) as service:
        found = {}
        for encoding in FORMATS:
            spool = tmp_path_factory.mktemp(encoding) / "spool"
            environment = {key: value for key, value in os.environ.items() if not key.startswith("MICROMEGAS_")} | {
                "MICROMEGAS_TELEMETRY_URL": f"http://127.0.0.1:{service.http_port}",
                "MICROMEGAS_ENCODING": encoding,
                "MICROMEGAS_SPOOL_DIR": str(spool),
            }
            done = subprocess.run(
                [sys.executable, str(PROGRAM)],
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 1, done.stderr
            assert done.stderr.endswith("RuntimeError: the end\n"), done.stderr
            left = list(spool.iterdir())
            forget_buffers(spool)
            assert left == []
            found[encoding] = Run(service, encoding, json.loads(done.stdout))
        yield found


@pytest.fixture(params=FORMATS)
def run(runs: dict[str, Run], request: pytest.FixtureRequest) -> Run:
    return runs[request.param]


# ---- log events


def shape(message: str) -> str:
    """The message; of one with a traceback, its first line and its last one."""
    if "Traceback (most recent call last)" not in message:
        return message
    lines = message.split("\n")
    return f"{lines[0].partition(' at 0x')[0]} … {lines[-1]}"


def log_of(row: dict[str, Any]) -> Event:
    return row["target"], row["level"], shape(row["msg"]), frozenset(properties_of(row["properties"]))


def expected_logs() -> Counter[Event]:
    def of(target: str, level: int, message: str, **properties: str) -> Event:
        return target, level, message, frozenset(properties.items())

    def raised(target: str, level: int, message: str, kind: str, text: str, **properties: str) -> Event:
        told = {"exception.type": kind, "exception.message": text} | properties
        return target, level, f"{message} … {kind}: {text}", frozenset(told.items())

    expected = Counter(of("everything.levels", level, f"level {name}") for name, level in LEVELS.items())
    expected[of("everything.quiet", 3, "at the level of its target")] += 1
    for template, values in MESSAGES:
        of_mapping = len(values) == 1 and isinstance(values[0], dict)
        message = template % (values[0] if of_mapping else values) if values else template
        expected[of("everything.messages", 4, message)] += 1
    expected.update(
        [
            of(
                "everything.messages",
                4,
                "two %s %s % (1,) [not formatted: not enough arguments for format string]",
            ),
            of("everything.messages", 4, f"login of ann with password={SCRUBBED}", password=SCRUBBED),
        ]
    )
    own, shared = "everything.properties", {"region": "eu", "tier": "gold"}
    expected.update(
        [
            of(own, 4, "own", user="ann", number="3", flag="True", nothing="None", text="é\0"),
            of(own, 4, "set", **shared),
            of(own, 4, "set and own", user="ann", **shared),
            of(own, 4, "context", request="r-1", user="bob"),
            of(own, 4, "inner context, own wins", request="r-2", user="carl"),
            of(own, 4, "context again", request="r-1", user="bob"),
            of(own, 4, "bound", session="s-1"),
            of(own, 4, "unbound"),
            of(own, 4, "global", build="42"),
            of(own, 4, "not global"),
            raised("everything.exceptions", 2, "while looking", "ValueError", "bad é", attempt="1"),
            raised("everything.exceptions", 3, "given", "ValueError", "bad é"),
            of("everything.exceptions", 2, "nothing is handled"),
        ]
    )
    expected.update(of("everything.stdlib", level, f"number {n}") for n, level in STANDARD_LEVELS.items())
    expected.update(
        [
            of("everything.stdlib", 4, "extra", customer="ann", count="2"),
            raised("everything.stdlib", 2, "caught", "OSError", "no disk"),
            of("everything.rebound", 4, "fast 1"),
            of("everything.rebound", 4, "slow 2"),
            of("py.warnings", 3, "old api", category="FutureWarning"),
            of("__main__", 5, "checkout"),
            of(FAILURES, 2, "Exception ignored in: <function Noisy.__del__ … RuntimeError: in a destructor"),
            of(FAILURES, 2, "unhandled exception in thread failing … LookupError: in a thread"),
            of(
                FAILURES,
                2,
                "Task exception was never retrieved (task: forgotten) … LookupError: in a task",
            ),
            of(
                "micromegas.record.gauges",
                3,
                "gauge broken failed (told once, counted in gauge_errors): OSError('no sensor')",
            ),
            of("micromegas.recorder", 3, "lost since the start of the process: values refused: 1"),
            of(FAILURES, 1, "unhandled exception in the main thread … RuntimeError: the end"),
        ]
    )
    return expected


def test_everything_has_arrived(run: Run) -> None:
    assert run.said["has_arrived"] is True
    status = run.said["status"]
    assert (status["lost_events"], status["refused_values"], status["last_error"]) == (0, 1, None)
    assert status["spool_error"] is None
    assert status["private_buffers"] == 0
    assert run.ask("SELECT * FROM list_block_errors()") == []
    rows = run.ask("SELECT DISTINCT \"streams.format\" AS format FROM blocks WHERE process_id = '{process}'")
    assert rows == [{"format": FORMATS[run.encoding]}]


def test_every_event_of_every_block_is_a_row(run: Run) -> None:
    blocks = run.ask(
        "SELECT stream_id, nb_objects, \"streams.tags\" AS tags FROM blocks WHERE process_id = '{process}'"
    )
    events: Counter[str] = Counter()
    for block in blocks:
        events[block["tags"][0]] += block["nb_objects"]
    assert events["log"] == len(run.logs())
    assert events["metrics"] == len(run.measures())
    spans = [row for stream_id in run.threads().values() for row in run.spans(stream_id) if row["depth"] > 0]
    assert events["cpu"] == 2 * len(spans) + len(run.async_events())


def test_logs(run: Run) -> None:
    rows = run.logs()
    found = Counter(map(log_of, rows))
    frames = [event for event in found if event[0] == "micromegas.frames"]
    told = sum(int(event[2].split()[2]) for event in frames)  # by one event per flush period
    assert (told, {event[1] for event in frames}) == (3, {3})
    for event in frames:
        del found[event]
    assert found == expected_logs()
    for row in rows:
        assert run.said["begin"] - CLOCK_MARGIN <= row["time"]
        assert (row["exe"], row["process_id"]) == ("everything", run.process_id)
    assert max(row["time"] for row in rows if row["msg"] != rows[-1]["msg"]) <= run.said["end"] + CLOCK_MARGIN
    assert rows[-1]["msg"].startswith("unhandled exception in the main thread")
    in_order = [row["msg"] for row in rows if row["target"] == "everything.levels"]
    assert in_order == [f"level {name}" for name in LEVELS]


def test_tracebacks_are_whole(run: Run) -> None:
    [row] = [row for row in run.logs() if row["msg"].startswith("while looking")]
    lines = row["msg"].split("\n")
    assert lines[1] == "Traceback (most recent call last):"
    for part in ("KeyError: 'lost'", "direct cause", f'File "{PROGRAM}", line ', "in log_exceptions", '{}["lost"]'):
        assert any(part in line for line in lines), part


def test_no_secret_arrives(run: Run) -> None:
    assert all(PASSWORD not in row["msg"] and PASSWORD.encode() not in row["properties"] for row in run.logs())


# ---- measures


def test_measures(run: Run) -> None:
    rows = run.measures("target IN ('everything.measures', 'everything.frames', '__main__')")
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
        assert run.said["begin"] - CLOCK_MARGIN <= row["time"] <= run.said["end"] + CLOCK_MARGIN
    of_single = [
        [(row["value"], dict(properties_of(row["properties"]))) for row in by_name.pop(name)]
        for name in ("single", "told")
    ]
    assert of_single == [
        [
            (1.0, {"kind": "s"}),
            (2.5, {"kind": "own", "user": "ann"}),
            (3.0, {"kind": "s", "region": "eu", "name_": "taken"}),
        ],
        [(1.0, {"request": "r-1"}), (2.0, {"request": "r-2", "user": "bob"}), (3.0, {})],
    ]
    facts = {
        name: {(row["target"], row["unit"], frozenset(properties_of(row["properties"]))) for row in of_name}
        for name, of_name in by_name.items()
    }
    own = "everything.measures"
    nothing: frozenset[tuple[str, str]] = frozenset()
    assert facts == {
        "values": {(own, "bytes", frozenset({("kind", "all"), ("a", "é")}))},
        "plain": {("__main__", "", nothing)},
        "declared again": {(own, "s", nothing)},
        "hits": {(own, "count", nothing)},
        "paid": {(own, "euro", frozenset({("till", "1")}))},
        "depth": {(own, "count", nothing)},
        "gauge_errors": {(own, "count", frozenset({("gauge", "broken")}))},
        "DeltaTime": {("everything.frames", "seconds", frozenset({("frame", "slow")}))},
        "FramesOverBudget": {("everything.frames", "count", frozenset({("frame", "slow")}))},
    }
    values = {name: [row["value"] for row in of_name] for name, of_name in by_name.items()}
    assert list(map(comparable_double, values["values"])) == [comparable_double(float(value)) for value in VALUES]
    assert values["plain"] == list(range(STEPS))
    assert values["declared again"] == [number / 8 for number in range(STEPS)]
    assert sum(values["hits"]) == TWINS * 2000
    assert sum(values["paid"]) == TWINS * 500
    assert set(values["depth"]) == {7.0}
    assert sum(values["gauge_errors"]) >= 1
    assert sum(values["FramesOverBudget"]) == len(values["DeltaTime"]) == 3
    assert all(0.001 <= value < 60 for value in values["DeltaTime"])


def test_what_is_measured_beside_the_program(run: Run) -> None:
    rows = run.measures("target LIKE 'micromegas.%'")
    facts = {(row["target"], row["name"], row["unit"]) for row in rows}
    assert facts >= {
        ("micromegas.system", "total_memory", "bytes"),
        ("micromegas.system", "process_resident_bytes", "bytes"),
        ("micromegas.recorder", "QueueSizeBytes", "bytes"),
        ("micromegas.recorder", "HttpRequestCompletionTime", "ns"),
        ("micromegas.interpreter", "event_loop_lag", "ms"),
        ("micromegas.interpreter", "gc_pause", "ns"),
    }
    [total] = [row["value"] for row in rows if row["name"] == "total_memory"]
    assert total == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    generations = {dict(properties_of(row["properties"]))["generation"] for row in rows if row["name"] == "gc_pause"}
    assert generations >= {"0", "2"}
    assert all(row["value"] >= 0 for row in rows)


# ---- spans of threads


def trees(rows: list[dict[str, Any]]) -> list[Tree]:
    """The spans below the root of a thread."""
    below: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row["depth"] > 0:
            below.setdefault(row["parent"], []).append(row)
            parent = next(other for other in rows if other["id"] == row["parent"])
            assert parent["depth"] == row["depth"] - 1
            assert parent["begin"] <= row["begin"] <= row["end"] <= parent["end"]
            assert row["duration"] == row["end"] - row["begin"]
            assert Path(row["filename"]).name == PROGRAM.name
            assert row["line"] > 0

    def tree(row: dict[str, Any]) -> Tree:
        children = sorted(below.get(row["id"], []), key=lambda child: (child["begin"], child["id"]))
        return row["name"], row["target"], tuple(map(tree, children))

    roots = [row for row in rows if row["depth"] == 0]
    return [tree(child) for root in roots for child in sorted(below.get(root["id"], []), key=lambda row: row["begin"])]


def span(name: str, *children: Tree) -> Tree:
    return name, "__main__", children


def test_thread_spans(run: Run) -> None:
    found = {name: trees(run.spans(stream_id)) for name, stream_id in run.threads().items()}
    main = found.pop("MainThread")
    assert main == []  # all its spans are async
    recursion = span("plain", span("plain", span("plain")))
    once = [
        *(span(f"Shop.{name}") for name in ("method", "of_class", "static", "till")),
        span("called otherwise"),
        span("left by an exception", span("raises")),
        span("by hand"),
    ]
    expected = {
        f"twin-{number}": [
            *(span("outer", span(f"step {step} of {number}", recursion)) for step in range(STEPS)),
            *once,
        ]
        for number in range(TWINS)
    }
    expected["automatic"] = [span("automatic", span("inside_automatic"))]
    assert found == expected


# ---- async spans


def async_trees(rows: list[dict[str, Any]]) -> Counter[Any]:
    begins = {row["span_id"]: row for row in rows if row["event_type"] == "begin"}
    ends = {row["span_id"]: row for row in rows if row["event_type"] == "end"}
    assert begins.keys() == ends.keys()
    assert len(rows) == 2 * len(begins)
    below: dict[int, list[dict[str, Any]]] = {}
    for row in begins.values():
        assert row["time"] <= ends[row["span_id"]]["time"]
        assert (row["name"], row["target"]) == (ends[row["span_id"]]["name"], ends[row["span_id"]]["target"])
        below.setdefault(row["parent_span_id"], []).append(row)
        if row["parent_span_id"] in begins:
            assert row["depth"] == begins[row["parent_span_id"]]["depth"] + 1

    def tree(row: dict[str, Any]) -> Any:
        return row["name"], row["target"], frozenset(Counter(map(tree, below.get(row["span_id"], []))).items())

    return Counter(tree(row) for row in begins.values() if row["parent_span_id"] not in begins)


def test_async_spans(run: Run) -> None:
    def of(name: str, *children: Any) -> Any:
        return name, "__main__", frozenset(Counter(children).items())

    rows = run.async_events()
    call = of("coroutine", of("inside a coroutine"))
    adopted = (REMOTE_TRACE, "micromegas.traceparent", frozenset({(of("answer"), 1)}))
    expected = Counter(
        [of("generator"), of("gathering", *[call] * TASKS), of("async_generator"), adopted, of("left by an exception")]
    )
    expected.update(of("traced_task", of(f"in task {number}", call)) for number in range(TASKS))
    # `asyncio.run` ends with tasks of its own, and those are traced, too.
    for name in ("BaseEventLoop.shutdown_asyncgens", "BaseEventLoop.shutdown_default_executor"):
        expected[name, "asyncio.base_events", frozenset()] += 1
    assert async_trees(rows) == expected
    [remote] = {row["parent_span_id"] for row in rows if row["target"] == "micromegas.traceparent"}
    assert remote == REMOTE_SPAN
    [gathering] = {row["span_id"] for row in rows if row["name"] == "gathering"}
    trace = run.process_id.replace("-", "")
    assert run.said["traceparent"] == f"00-{trace}-{gathering:016x}-01"


# ---- processes


def test_processes(run: Run) -> None:
    [row] = run.ask("SELECT * FROM processes WHERE process_id = '{process}'")
    assert (row["exe"], row["parent_process_id"]) == ("everything", "")
    properties = dict(properties_of(row["properties"]))
    assert (properties["stage"], properties["language"]) == ("test é", "python")
    assert properties["python_version"] == ".".join(map(str, sys.version_info[:3]))
    assert abs(row["start_time"] - run.said["begin"]) < 10_000_000_000


def test_children(run: Run) -> None:
    children = run.ask("SELECT * FROM processes WHERE parent_process_id = '{process}'")
    told = {}
    for child in children:
        process_id = child["process_id"]
        [log] = [log_of(row) for row in run.logs(process_id)]
        kind = log[2].removeprefix("a child that was ")
        assert log == ("__main__", 4, f"a child that was {kind}", frozenset())
        measures = run.ask(
            f"SELECT name, unit, value FROM measures WHERE process_id = '{process_id}' AND target = '__main__'"
        )
        assert measures == [{"name": "child_measure", "unit": "count", "value": float(CHILDREN.index(kind))}]
        streams = run.ask(f"SELECT stream_id FROM streams WHERE process_id = '{process_id}' AND array_has(tags, 'cpu')")
        assert [trees(run.spans(row["stream_id"])) for row in streams] == [[span("child span")]]
        told[kind] = child["exe"]
    assert told == {"forked": "everything", "started": "child"}


# ---- both encodings


def comparable(run: Run) -> dict[str, Any]:
    """Everything that does not depend on when and where the program ran."""
    measures = [row for row in run.measures() if row["target"] not in OWN_TARGETS and row["name"] != "DeltaTime"]
    sums: Counter[Event] = Counter()
    values: Counter[Event] = Counter()
    for row in measures:
        facts = row["target"], row["name"], row["unit"], frozenset(properties_of(row["properties"]))
        if row["name"] in ("hits", "paid", "FramesOverBudget"):
            sums[facts] += row["value"]
        elif row["name"] not in ("depth", "gauge_errors"):  # asked for as often as time allowed
            values[*facts, comparable_double(row["value"])] += 1
    logs = [row for row in run.logs() if row["target"] not in ("micromegas.frames", FAILURES)]
    places = [
        {(row["name"], row["target"], row["filename"], row["line"]) for row in rows if row["line"] > 0}
        for rows in (run.async_events(), *(run.spans(stream_id) for _, stream_id in sorted(run.threads().items())))
    ]
    return {
        "logs": Counter((row["target"], row["level"], row["msg"], row["properties"]) for row in logs),
        "sums": sums,
        "values": values,
        "threads": {name: trees(run.spans(stream_id)) for name, stream_id in run.threads().items()},
        "async spans": async_trees(run.async_events()),
        "places": places,
    }


def test_both_encodings_say_the_same(runs: dict[str, Run]) -> None:
    columns, transit = (comparable(runs[encoding]) for encoding in ("columns", "transit"))
    for part, found in columns.items():
        assert found == transit[part], part
