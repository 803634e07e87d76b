"""Measures with properties of their own and of their context: the same in both encodings, whatever is given."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record.conftest import KILL, WAIT_RECOVERED

import micromegas as mm
from micromegas import _core
from micromegas.testing import capture


def tagged(server) -> list[tuple[Any, dict[str, str]]]:
    events = server.captured.events("metrics")
    return [(event["value"], dict(event.get("properties", []))) for event in events if event["desc"]["name"] == "m"]


def test_properties_of_one_measure(run, server):
    run(
        """
        mm.init()
        m = mm.metric("m", "ms")
        m.record_with(1, user="ann", n=2, ratio=0.5, on=True, none=None)
        m.record_with(-1.5, user="bob")
        m.record(3)
        m.record_with(4)
        m.record_with(2**62, properties=mm.properties(a=1, b=2), b="own")
        m.record_with(2**70, properties="text")
        own = mm.metric("m", "ms", properties={"user": "declared", "k": "v"})
        own.record_with(5, user="call")
        own.record_with(6)
        own.record(7)
        """
    )
    assert tagged(server) == [
        (1, {"user": "ann", "n": "2", "ratio": "0.5", "on": "True", "none": "None"}),
        (-1.5, {"user": "bob"}),
        (3, {}),
        (4, {}),
        (2**62, {"a": "1", "b": "own"}),
        (float(2**70), {"properties": "text"}),
        (5, {"user": "call", "k": "v"}),
        (6, {"user": "declared", "k": "v"}),
        (7, {"user": "declared", "k": "v"}),
    ]
    kinds = [event["$type"] for event in server.captured.events("metrics")]
    tagged_kinds = ["TaggedIntegerMetricEvent", "TaggedFloatMetricEvent"]
    assert kinds[:4] == [*tagged_kinds, "IntegerMetricEvent", "IntegerMetricEvent"]


def test_context_only_where_it_is_asked_for(run, server):
    run(
        """
        import asyncio, contextvars
        mm.init()
        plain, own = mm.metric("m"), mm.metric("m", properties={"k": "own", "p": "own"}, context=True)
        m = mm.metric("m", context=True)
        m.record(0)
        mm.set_global_properties(build="7", k="process", who="process")
        m.record(1)
        with mm.context(k="context", who="context"):
            plain.record(2); plain.record_with(3, x=1)
            m.record(4); m.record(0.5); m.record(10**30)
            m.record_with(5, who="call")
            own.record(6); own.record_with(7, p="call", who="call")
        mm.set_global_properties()
        async def work(number):
            mm.bind(task=number)
            await asyncio.sleep(0)
            m.record(100 + number)
        async def main():
            with mm.context(request="r"):
                await asyncio.gather(*(work(number) for number in range(3)))
        asyncio.run(main())
        m.record(8)
        """
    )
    seen = tagged(server)
    assert seen[:11] == [
        (0, {}),
        (1, {"build": "7", "k": "process", "who": "process"}),
        (2, {}),
        (3, {"x": "1"}),
        (4, {"build": "7", "k": "context", "who": "context"}),
        (0.5, {"build": "7", "k": "context", "who": "context"}),
        (1e30, {"build": "7", "k": "context", "who": "context"}),
        (5, {"build": "7", "k": "context", "who": "call"}),
        (6, {"build": "7", "k": "own", "who": "context", "p": "own"}),
        (7, {"build": "7", "k": "own", "who": "call", "p": "call"}),
        (100, {"request": "r", "task": "0"}),
    ]
    assert sorted(seen[11:13], key=str) == [(101, {"request": "r", "task": "1"}), (102, {"request": "r", "task": "2"})]
    assert seen[13] == (8, {})


def test_hostile_properties_and_values(run, server):
    done = run(
        """
        import json
        class Broken:
            def __str__(self): raise ValueError("no")
            def __float__(self): raise ValueError("no")
        class Records:
            def __str__(self):
                with mm.context(inner=1):
                    m.record_with(100, inside=self.__class__.__name__)
                return "records"
        class Stops:
            def __str__(self): raise KeyboardInterrupt
        m = mm.metric("m", "ms", context=True)
        m.record_with(1, before="init")
        mm.init()
        mm.metric("m", properties={"k": Broken(), 7: "seven", "long": "é" * 100_000}).record(1)
        odd = {"": Broken(), "odd \\0 ☃": "\\udc80", "lone\\udc81": "x"}
        m.record_with(2, **odd, **{"long": "é" * 100_000, "n" * 9000: 1})
        m.record_with(3, x=Records())
        m.record_with(4, **{f"k{i}": i for i in range(40)})
        m.record_with(5, properties=mm.properties(**{f"s{i}": i for i in range(64)}), **{f"k{i}": i for i in range(32)})
        for bad in ("1", None, Broken(), 1j, b"1"):
            m.record_with(bad, x=1)
        for wrong in (lambda: m.record_with(), lambda: m.record_with(1, 2), lambda: m.record_with(x=1)):
            try: wrong()
            except TypeError as error: assert "record_with() takes one value" in str(error)
            else: raise AssertionError
        try: m.record_with(6, x=Stops())
        except KeyboardInterrupt: pass
        else: raise AssertionError
        m.record_with(7, password="hunter2", url="http://ann:secret@host/", note="token=abcdef")
        m.record_with(8, name="n", unit="u", target="t")
        mm.flush()
        refused = mm.status()["refused_values"]
        mm.shutdown()
        m.record_with(9, x=Stops())
        print(json.dumps(refused))
        """
    )
    assert json.loads(done.stdout) == 8 + 5
    cut = "é" * 8192 + "… [cut: 100000 characters]"
    seen = tagged(server)
    assert seen[0] == (1, {"7": "seven", "k": "<unprintable Broken object>", "long": cut})
    assert seen[1] == (
        2,
        {
            "": "<unprintable Broken object>",
            "odd \0 ☃": "\\udc80",
            "lone\\udc81": "x",
            "long": cut,
            "n" * 8192 + "… [cut: 9000 characters]": "1",
        },
    )
    assert seen[2:4] == [(100, {"inner": "1", "inside": "Records"}), (3, {"x": "records"})]
    assert seen[4] == (4, {f"k{i}": str(i) for i in range(32)})
    assert seen[5] == (5, {f"s{i}": str(i) for i in range(64)} | {f"k{i}": str(i) for i in range(32)})
    [(_, secrets)] = [found for found in seen if found[0] == 7]
    assert secrets["password"] == "[scrubbed]"
    assert "secret" not in secrets["url"]
    assert "abcdef" not in secrets["note"]
    assert seen[-1] == (8, {"name_": "n", "unit_": "u", "target_": "t"})


def test_a_killed_process_loses_no_properties(run, server, tmp_path):
    program = f"""
        mm.init(flush_period=86400)
        m = mm.metric("m", "ms", properties={{"own": "o"}}, context=True)
        for i in range(2000):
            with mm.context(turn=i % 7):
                m.record(i); m.record_with(i + 0.5, even=i % 2 == 0)
        print(mm.status()["process_id"], flush=True)
        {KILL}
        """
    dead = run(program, returncode=-9).stdout.strip()
    run("mm.init()\n" + WAIT_RECOVERED)
    events = server.captured.events("metrics", dead)
    assert [(event["value"], dict(event["properties"])) for event in events] == [
        (i + half, {"turn": str(i % 7), "own": "o"} | ({"even": str(i % 2 == 0)} if half else {}))
        for i in range(2000)
        for half in (0, 0.5)
    ]


def test_events_that_find_no_buffer_are_counted(run, server):
    done = run(
        """
        mm.init(buffer_bytes=1 << 20)
        m = mm.metric("m")
        for i in range(100_000):
            m.record_with(i, a="b" * 50)
        mm.flush(60)
        print(mm.status()["losses"]["buffers_full"]["measures"])
        """
    )
    lost = int(done.stdout)
    assert lost > 0
    assert len(tagged(server)) + lost == 100_000


# No letters that words for secrets are made of: what is scrubbed is tested above.
LETTERS = st.one_of(st.sampled_from("ab 0_.-\0\n"), st.characters(min_codepoint=128, exclude_categories=["Cs"]))
NAMES = st.one_of(st.text(LETTERS, max_size=12), st.sampled_from(["name", "unit", "target", "level", "self"]))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(LETTERS, max_size=20),
    st.integers(8180, 8192).map(lambda length: "\N{ROCKET}" * length),
)
NUMBERS = st.one_of(st.integers(-(2**65), 2**65), st.floats(), st.booleans())
SETS = st.dictionaries(NAMES, VALUES, max_size=3)
EVENTS = st.lists(st.tuples(NUMBERS, SETS, SETS, SETS, st.booleans()), min_size=1, max_size=6)


def shown(properties: dict[str, object]) -> dict[str, str]:
    """What arrives of properties given."""
    texts = {}
    for name, value in properties.items():
        sent = f"{name}_" if name in ("name", "unit", "target") else name
        texts[sent] = str(value).encode("utf-8", "backslashreplace").decode()
    return texts


def as_sent(value: float) -> tuple[str, str]:
    is_integer = isinstance(value, int) and 0 <= value < 2**63
    return ("int", str(int(value))) if is_integer else ("float", repr(float(value)))


@settings(max_examples=60, deadline=None)
@given(events=EVENTS)
def test_any_measure_in_both_encodings(events):
    """Against a model, and the blocks as records against the same blocks as columns."""
    with capture() as captured:
        serial = _core.capture_begin()
        try:
            expected = []
            for value, own, bound, called, with_context in events:
                measure = mm.metric("m", "ms", properties=own, context=with_context)
                with mm.context(**bound):
                    measure.record_with(value, **called)
                ambient = bound if with_context else {}
                expected.append((as_sent(value), shown(ambient) | shown(own) | shown(called)))
            bodies = _core.capture_take(serial)
        finally:
            _core.capture_end(serial)
        seen = [(as_given(measure.value), measure.properties) for measure in captured.metrics if measure.name == "m"]
    assert seen == expected
    decoded: list[list[Any]] = [[], []]
    for _, stream, block in bodies:
        _, _, dependencies, objects, tags, _, encoding = _core.parse_stream(stream)
        payload = _core.parse_block(block)[7]
        if tags == ["metrics"]:
            assert encoding == "micromegas-columns/1"
            transit = _core.transit_payload(dependencies, objects, payload)
            decoded[0] += _core.decode_events(dependencies, objects, payload, format=encoding)
            decoded[1] += _core.decode_events(dependencies, objects, transit)
    assert repr(decoded[0]) == repr(decoded[1])
    # a gauge of another test of this process may have been read meanwhile
    assert len([event for event in decoded[0] if event["desc"]["name"] == "m"]) == len(events)


def as_given(value: float) -> tuple[str, str]:
    return type(value).__name__, repr(value)


@pytest.mark.parametrize("encoding", ["transit", "columns"])
def test_special_numbers(run, server, encoding):
    run(
        f"""
        import math
        mm.init(encoding={encoding!r})
        m = mm.metric("m")
        for value in (math.nan, math.inf, -math.inf, -0.0, 2**63 - 1, 2**63, -1):
            m.record_with(value, a="b")
        """
    )
    values = [value for value, properties in tagged(server) if properties == {"a": "b"}]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 0.0, 2**63 - 1, 2.0**63, -1.0]
    assert math.copysign(1, values[3]) == -1
