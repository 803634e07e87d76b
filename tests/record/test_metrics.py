"""Measures and counters: exact values, exact sums, whatever is given."""

import math


def test_values(run, server):
    run(
        """
        import decimal, fractions, math
        class Index:
            def __index__(self): return 7
        class Real:
            def __float__(self): return 2.25
        class Broken:
            def __float__(self): raise RuntimeError("no")
        mm.init()
        m = mm.metric("m", "ms")
        for value in (0, 1, 2**30, 2**62, 2**63 - 1, True, Index(), -1, -2**31, 2**63, 2**64, -2**70, 1.5, -0.0,
                      math.inf, -math.inf, math.nan, Real(), decimal.Decimal("0.5"), fractions.Fraction(1, 4)):
            m.record(value)
        for value in ("1", b"1", None, [], Broken(), 10**400, 1j, object()):
            m.record(value)
        assert mm.status()["refused_values"] == 8, mm.status()
        """
    )
    values = server.captured.measures("m")
    assert values[:7] == [0, 1, 2**30, 2**62, 2**63 - 1, 1, 7]
    assert all(isinstance(value, int) for value in values[:7])
    assert all(isinstance(value, float) for value in values[7:])
    assert values[7:13] == [-1.0, -(2.0**31), 2.0**63, 2.0**64, -(2.0**70), 1.5]
    assert math.copysign(1, values[13]) == -1
    assert values[14:16] == [math.inf, -math.inf]
    assert math.isnan(values[16])
    assert values[17:] == [2.25, 0.5, 0.25]
    assert any("values refused: 8" in message for message in server.captured.messages())


def test_description(run, server):
    run(
        """
        mm.init()
        mm.metric("plain", "ms").record(1)
        for properties in ({"b": 2, "a": "é"}, {"a": "é", "b": 2}):
            mm.metric("tagged", "bytes", properties=properties, target="some.target").record(2)
        mm.metric("tagged", "bytes", properties={"a": "\\x00", "\\udc80": ""}).record(0.5)
        mm.metric("").record(3)
        """
    )
    events = server.captured.events("metrics")
    plain = events[0]["desc"]
    assert (plain["name"], plain["unit"], plain["target"], plain["line"]) == ("plain", "ms", "__main__", 4)
    assert events[1]["$type"] == "TaggedIntegerMetricEvent"
    assert events[1]["desc"] == events[2]["desc"]
    assert events[1]["desc"]["target"] == "some.target"
    assert events[1]["properties"] == events[2]["properties"] == [["a", "é"], ["b", "2"]]
    assert events[3]["$type"] == "TaggedFloatMetricEvent"
    assert events[3]["properties"] == [["a", "\0"], ["\\udc80", ""]]
    assert events[4]["desc"]["name"] == ""


def test_counters_add_up(run, server):
    run(
        """
        import math, threading
        early = mm.counter("early")
        early.add(3)
        mm.init(flush_period=0.02)
        c = mm.counter("hits")
        again = mm.counter("hits")
        def work():
            for _ in range(100_000):
                c.add(1)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
        again.add(5)
        negative = mm.counter("negative"); negative.add(-7); negative.add(2)
        real = mm.counter("real"); real.add(0.5); real.add(0.25)
        mixed = mm.counter("mixed"); mixed.add(2); mixed.add(0.5); mixed.add(True)
        idle = mm.counter("idle")
        for bad in (math.nan, math.inf, 10**400, "1", None, 1e308):
            real.add(bad)
        real.add(1e308)
        large = mm.counter("large")
        for _ in range(5):
            large.add(2**63 - 1); large.add(2**64)
        large.add(-(2**62)); large.add(7)
        often = mm.counter("often")
        for _ in range(3000): often.add(2**53)
        """
    )
    captured = server.captured
    assert sum(captured.measures("hits")) == 400_005
    assert len(captured.measures("hits")) >= 2
    assert sum(captured.measures("early")) == 3
    assert sum(captured.measures("negative")) == -5
    assert sum(captured.measures("mixed")) == 3.5
    assert captured.measures("idle") == []
    assert sum(captured.measures("real")) == 0.75 + 1e308
    assert sum(captured.measures("large")) == 5 * (2.0**63 + 2**64) - 2**62 + 7
    assert sum(captured.measures("often")) == 3000 * 2.0**53


def test_a_million_events_from_one_thread_without_loss(run, server):
    run(
        """
        mm.init()
        m = mm.metric("n", "count")
        for i in range(1_000_000):
            m.record(i)
        assert mm.flush(60)
        assert mm.status()["lost_events"] == 0
        """
    )
    captured = server.captured
    values = captured.measures("n")
    assert len(values) == 1_000_000
    assert values == list(range(1_000_000))


def test_full_buffers_drop_the_newest_and_count_exactly(run, server):
    done = run(
        """
        mm.init(buffer_bytes=1 << 20)
        m = mm.metric("n")
        for i in range(1_000_000):
            m.record(i)
        mm.flush(60)
        print(mm.status()["lost_events"])
        """
    )
    captured = server.captured
    lost = int(done.stdout)
    values = captured.measures("n")
    assert lost > 0
    assert len(values) + lost == 1_000_000
    assert values == sorted(values)
    assert sum(captured.measures("lost_events")) == lost
    assert any(f"buffers full: 0 logs, {lost} measures, 0 span events" in text for text in captured.messages())
