"""Names made of data don't take memory without end, lose nothing, and are told once."""

from __future__ import annotations

import json

import pytest
from record.conftest import WAIT_RECOVERED

GROWTH = """
import resource
def peak_kib(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
"""


def told(server):
    return [message for message in server.captured.messages() if message.startswith("too many ")]


def rows(server):
    """Measures as readers make them: properties of these names stand for the measure's own."""
    for event in server.captured.events("metrics"):
        properties = dict(event.get("properties", []))
        described = {key: event["desc"][key] for key in ("name", "unit", "target")}
        own = {key: properties.get(key, described[key]) for key in described}
        others = {key: value for key, value in properties.items() if key not in described}
        yield own["name"], own["unit"], own["target"], event["value"], others


def test_metrics(run, server):
    run(
        """
        mm.init()
        early = mm.metric("early", "ms")
        for i in range(20_000):
            mm.metric(f"m{i}", "ms", properties={"name": "p", "k": i % 3}).record(i)
        late = mm.metric("late", "s", context=True, target="t")
        early.record(1)
        late.record(2.5); late.record(-1); late.record("no"); late.record(True)
        with mm.context(user="ann", unit="context"):
            late.record_with(7, user="bob", target="call")
            mm.metric("m19999", "ms", properties={"name": "p", "k": 1}).record_with(8, k="call")
        assert mm.flush(60)
        assert mm.status()["limits_reached"] == ["metrics"], mm.status()
        assert mm.status()["lost_events"] == 0 and mm.status()["refused_values"] == 1
        """
    )
    made = [row for row in rows(server) if row[0] not in ("lost_events",)]
    tagged = [{"name_": "p", "k": str(remainder)} for remainder in range(3)]
    assert made[:20_000] == [(f"m{i}", "ms", "__main__", i, tagged[i % 3]) for i in range(20_000)]
    assert made[20_000:] == [
        ("early", "ms", "__main__", 1, {}),
        ("late", "s", "t", 2.5, {}),
        ("late", "s", "t", -1, {}),
        ("late", "s", "t", 1, {}),
        ("late", "s", "t", 7, {"user": "bob", "unit_": "context", "target_": "call"}),
        ("m19999", "ms", "__main__", 8, {"name_": "p", "k": "call"}),
    ]
    described = {event["desc"]["name"] for event in server.captured.events("metrics")}
    assert "(metric beyond the limit of descriptions)" in described
    assert len(described) < 16_400
    assert len(told(server)) == 1


def test_counters(run, server):
    run(
        """
        import math
        mm.init()
        for i in range(5_000):
            counter = mm.counter(f"c{i}", "bytes", properties={"k": "v"})
            counter.add(i); counter.add(0.5)
        for bad in (math.nan, math.inf, 10**400, "1", None):
            counter.add(bad)
        counter.add(2**64)
        assert mm.flush(60)
        assert mm.status()["limits_reached"] == ["counters"], mm.status()
        assert mm.status()["refused_values"] == 5
        """
    )
    sums: dict[str, float] = {}
    for name, unit, target, value, properties in rows(server):
        if name.startswith("c"):
            assert (unit, target, properties) == ("bytes", "__main__", {"k": "v"})
            sums[name] = sums.get(name, 0) + value
    assert sums == {f"c{i}": i + 0.5 for i in range(4_999)} | {"c4999": 4999.5 + 2.0**64}
    assert len(told(server)) == 1


@pytest.mark.parametrize(
    ("statement", "limits"),
    [
        ("mm.metric(f'm{i}' + 'x' * 500, 'u' * 500, properties={'p': 'y' * 500}).record(i)", "metrics"),
        ("mm.counter(f'c{i}' + 'x' * 500).add(1)", "metrics counters"),
        ("mm.properties(i=i, text='x' * 500)", "property_sets"),
        ("mm.logger(f'l{i}' + 'x' * 500).info('said')", "loggers"),
        ("mm.trace(name=f's{i}' + 'x' * 500)(lambda: None)()", "spans"),
        ("m.record_with(i, i=i, text='x' * 500)", ""),
        ("m.record_with(i, properties=mm.properties(i=i))", "property_sets"),
    ],
)
def test_a_loop_takes_memory_up_to_an_end(run, server, statement, limits):
    """As much again, and again, as what takes a kind to its limit: the peak stays where it was."""
    done = run(
        GROWTH
        + f"""
mm.init(buffer_bytes=8 << 20, queue_bytes=1 << 20, spool=False)
m = mm.metric("m")
def loop(begin, end):
    for i in range(begin, end):
        {statement}
        if i % 2000 == 0: mm.flush(30)
loop(0, 70_000); mm.flush(30)
before = peak_kib()
loop(70_000, 140_000); mm.flush(30)
print(peak_kib() - before, *mm.status()["limits_reached"])
"""
    )
    grown, *reached = done.stdout.split()
    assert reached == limits.split()
    assert int(grown) < 16 << 10, "KiB: 80 000 times the texts of this statement are more than 40 MB"


def test_texts_have_an_end_too(run, server):
    """Few metrics with much to tell are beyond the limit of bytes, and arrive as they are."""
    done = run(
        """
        import json
        mm.init()
        for i in range(300):
            mm.metric(f"m{i}", properties={f"p{j}": chr(65 + j) * 8000 for j in range(40)}).record(i)
        assert mm.flush(60)
        print(json.dumps(mm.status()["limits_reached"]))
        """
    )
    assert json.loads(done.stdout) == ["metrics"]
    expected = {f"p{j}": chr(65 + j) * 8000 for j in range(40)}
    made = [(name, value, properties) for name, _, _, value, properties in rows(server)]
    assert [(name, value) for name, value, _ in made] == [(f"m{i}", i) for i in range(300)]
    assert all(properties == expected for _, _, properties in made)


def test_a_child_is_told_what_its_parent_was(run, server):
    run(
        """
        import os
        mm.init()
        for i in range(17_000): mm.metric(f"m{i}")
        assert mm.flush(30)
        child = os.fork()
        if child == 0:
            mm.metric("of the child").record(1)
            assert mm.status()["limits_reached"] == ["metrics"]
            assert mm.shutdown()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """
    )
    assert len(told(server)) == 2
    assert [row[0] for row in rows(server)] == ["of the child"]


def test_beyond_the_limit_and_killed(run, server):
    dead = run(
        """
        import os, signal
        mm.init(flush_period=86400)
        for i in range(17_000): mm.metric(f"m{i}", "ms").record(i)
        print(mm.status()["process_id"], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        returncode=-9,
    ).stdout.strip()
    run("mm.init()\n" + WAIT_RECOVERED)
    assert server.captured.events("metrics", dead)
    made = [(name, unit, value) for name, unit, _, value, _ in rows(server)]
    assert made == [(f"m{i}", "ms", i) for i in range(17_000)]
