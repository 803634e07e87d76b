"""What is measured without the program's doing: machine, process, recorder, gauges, garbage collector, event loops."""

import itertools
import os

import pytest

ON = {"MICROMEGAS_SYSTEM_METRICS": "on"}
PROC = pytest.mark.skipif(not os.path.exists("/proc/meminfo"), reason="the system monitor reads /proc")


@PROC
def test_machine_and_process(run, server):
    run(
        """
        import time
        mm.init(flush_period=0.1)
        deadline = time.monotonic() + 20
        ballast = bytearray(64 << 20)
        while mm.status()["sent_events"] < 12 and time.monotonic() < deadline:
            time.sleep(0.05)
        """,
        env=ON,
    )
    events = [event for event in server.captured.events("metrics") if event["desc"]["target"] == "micromegas.system"]
    units = {event["desc"]["name"]: event["desc"]["unit"] for event in events}
    assert units == {
        "total_memory": "bytes",
        "used_memory": "bytes",
        "free_memory": "bytes",
        "cpu_usage": "percent",
        "process_resident_bytes": "bytes",
        "process_virtual_bytes": "bytes",
        "process_peak_resident_bytes": "bytes",
    }
    captured = server.captured
    [total] = captured.measures("total_memory")
    assert total == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert all(0 < used <= total for used in captured.measures("used_memory"))
    assert all(0.0 <= share <= 100.0 for share in captured.measures("cpu_usage"))
    virtual, resident = captured.measures("process_virtual_bytes"), captured.measures("process_resident_bytes")
    peak = captured.measures("process_peak_resident_bytes")
    assert resident[0] <= peak[0]
    assert resident[0] < virtual[0]


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_system_metrics_can_be_off(run, server, how):
    argument = "system_metrics=False, " if how == "argument" else ""
    env = ON if how == "argument" else {"MICROMEGAS_SYSTEM_METRICS": "no"}
    run(f'mm.init({argument}flush_period=0.01)\nmm.metric("m").record(1)\nassert mm.flush()\nmm.log.info("x")', env=env)
    assert {event["desc"]["name"] for event in server.captured.events("metrics")} == {"m"}


@PROC
def test_a_forked_child_is_measured_as_a_process_of_its_own(run, server):
    run(
        """
        import os
        mm.init()
        child = os.fork()
        if child == 0:
            mm.log.info("child")
            assert mm.flush()
            mm.shutdown()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        env=ON,
    )
    captured = server.captured
    assert len(captured.processes) == 2
    for process in captured.processes:
        assert len(captured.measures("total_memory", process["process_id"])) == 1


def test_the_recorder_measures_itself_beside_the_events_of_others(run, server):
    run(
        """
        mm.init(flush_period=60)
        for step in range(3):
            mm.log.info("step %d", step)
            assert mm.flush()
        for _ in range(5):
            assert mm.flush()  # with nothing to tell, nothing is told
        """,
        env=ON,
    )
    events = [event for event in server.captured.events("metrics") if event["desc"]["target"] == "micromegas.recorder"]
    values = {}
    for event in events:
        values.setdefault((event["desc"]["name"], event["desc"]["unit"]), []).append(event["value"])
    assert set(values) == {
        ("QueueSize", "count"),
        ("QueueSizeBytes", "bytes"),
        ("HttpInFlightRequests", "count"),
        ("HttpRequestCompletionTime", "ns"),
    }
    times = values["HttpRequestCompletionTime", "ns"]
    assert times
    assert all(time > 0 for time in times)


def test_dropped_blocks_and_lost_events_are_counted_by_class_and_reason(run, server):
    blocks = itertools.count()
    server.answer = lambda route, number: 403 if route == "insert_block" and next(blocks) < 3 else 200
    done = run(
        """
        mm.init(flush_period=60)
        for _ in range(5): mm.log.info("x")
        mm.metric("m").record(1)
        with mm.span("s"): pass
        mm.flush()
        mm.log.info("later")
        assert mm.flush()
        print(mm.status()["losses"]["refused"])
        """,
        env=ON,
    )
    counts = eval(done.stdout)
    assert counts["logs"] == 5
    captured = server.captured
    lost = {}
    for event in captured.events("metrics"):
        if event["desc"]["name"] == "lost_events":
            properties = dict(event["properties"])
            assert properties["reason"] == "refused"
            lost[properties["class"]] = lost.get(properties["class"], 0) + event["value"]
    assert lost == {name: count for name, count in counts.items() if count}
    assert sum(captured.measures("DroppedUploads")) == 3


def test_gauges(run, server):
    run(
        """
        import threading, time
        asked = 0
        def ask():
            global asked
            asked += 1
            assert threading.current_thread().daemon
            return asked
        early = mm.gauge("asked", "count", ask)
        assert asked == 0
        mm.init(flush_period=0.01, gauge_period=0.002)
        later = mm.gauge("later", "ms", lambda: 2.5, properties={"a": 1})
        while asked < 10: time.sleep(0.001)
        early.close()
        first = asked
        seen = threading.Event()
        mm.gauge("seen", "count", lambda: seen.set() or 1)
        seen.wait()
        assert asked <= first + 1
        """
    )
    captured = server.captured
    values = captured.measures("asked")
    assert values[:10] == list(range(1, 11))
    later = [event for event in captured.events("metrics") if event["desc"]["name"] == "later"]
    assert {event["value"] for event in later} == {2.5}
    assert (later[0]["desc"]["unit"], later[0]["properties"], later[0]["desc"]["target"]) == (
        "ms",
        [["a", "1"]],
        "__main__",
    )


def test_gauges_that_fail_are_told_once_and_counted(run, server):
    done = run(
        """
        import sys, time
        mm.init(gauge_period=0.001)
        class Broken(Exception):
            def __repr__(self): raise RuntimeError("no")
        def fail(): raise ValueError("full moon")
        def leave(): sys.exit(3)
        def worse(): raise Broken
        broken = [mm.gauge(name, "count", ask) for name, ask in
                  [("fails", fail), ("leaves", leave), ("worse", worse), ("text", lambda: "1")]]
        fine = mm.gauge("fine", "count", lambda: 1)
        while broken[0].errors < 5 or broken[1].errors < 5 or broken[2].errors < 5: time.sleep(0.001)
        assert broken[3].errors == 0
        assert mm.status()["refused_values"] >= 4
        mm.shutdown()
        print(broken[0].errors)
        """
    )
    captured = server.captured
    told = [text for text in captured.messages() if text.startswith("gauge ")]
    assert sorted(text.split()[1] for text in told) == ["fails", "leaves", "worse"]
    assert any("full moon" in text for text in told)
    failures = [
        event["value"]
        for event in captured.events("metrics")
        if event["desc"]["name"] == "gauge_errors" and event["properties"] == [["gauge", "fails"]]
    ]
    assert sum(failures) == int(done.stdout)
    assert captured.measures("fine")


def test_gauges_live_with_sessions_and_forks(run, server):
    run(
        """
        import os, threading, time
        def sampled():
            return [t for t in threading.enumerate() if t.name == "micromegas-gauges"]
        pids = set()
        mm.gauge("pid", "count", lambda: pids.add(os.getpid()) or os.getpid())
        assert not sampled()
        for session in range(3):
            mm.init(gauge_period=0.001)
            pids.clear()
            while not pids: time.sleep(0.001)
            assert len(sampled()) == 1
            if session == 1:
                child = os.fork()
                if child == 0:
                    while os.getpid() not in pids: time.sleep(0.001)
                    assert mm.flush()
                    mm.shutdown()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
            assert mm.shutdown()
            assert not sampled()
        """
    )
    captured = server.captured
    assert len(captured.processes) == 4
    for process in captured.processes:
        assert len(set(captured.measures("pid", process["process_id"]))) == 1
    parents: set[int] = set()
    children: set[int] = set()
    for process in captured.processes:
        pids = children if process["parent_process_id"] else parents
        pids.update(int(pid) for pid in captured.measures("pid", process["process_id"]))
    assert (len(parents), len(children), len(parents & children)) == (1, 1, 0)


def test_a_gauge_that_hangs_does_not_keep_the_process(run, server):
    run(
        """
        import threading
        mm.init()
        begun = threading.Event()
        mm.gauge("hangs", "count", lambda: (begun.set(), threading.Event().wait()) and 1)
        begun.wait()
        mm.log.info("the end")
        """
    )
    assert server.captured.messages() == ["the end"]


def test_garbage_collections(run, server):
    run(
        """
        import gc
        gc.disable()
        mm.init()
        before = list(gc.callbacks)
        monitor = mm.monitor_gc()
        assert mm.monitor_gc() is monitor
        for generation, times in ((0, 5), (1, 3), (2, 2)):
            for _ in range(times): gc.collect(generation)
        [callback] = [c for c in gc.callbacks if c not in before]
        for arguments in ((), ("start",), (1, 2), ("start", "x")):
            try: callback(*arguments)
            except TypeError: pass
            else: raise AssertionError
        callback("stop", {"generation": 0}); callback("start", {})
        for odd in ({}, {"generation": 7}, {"generation": -1}, {"generation": "x"}, {"generation": 2**80}):
            callback("stop", odd); callback("start", odd)
        monitor.close()
        gc.collect()
        assert gc.callbacks == before
        mm.monitor_gc()
        mm.shutdown()
        assert gc.callbacks == before
        """
    )
    pauses: dict[str, list[int]] = {}
    for event in server.captured.events("metrics"):
        assert (event["desc"]["name"], event["desc"]["unit"]) == ("gc_pause", "ns")
        pauses.setdefault(dict(event["properties"])["generation"], []).append(event["value"])
    assert {generation: len(values) for generation, values in pauses.items()} == {"0": 5, "1": 3, "2": 2}
    assert all(0 < pause < 60e9 for values in pauses.values() for pause in values)


def test_event_loop_lag(run, server):
    run(
        """
        import asyncio, time
        mm.init()
        async def main():
            monitor = mm.monitor_loop(period=0.005)
            await asyncio.sleep(0.05)
            time.sleep(0.3)
            await asyncio.sleep(0.02)
            monitor.close()
            await asyncio.sleep(0.02)
            assert mm.flush()
            before = mm.status()["sent_events"]
            await asyncio.sleep(0.05)
            mm.flush()
            assert mm.status()["sent_events"] == before
            mm.monitor_loop(period=60)  # must keep nobody waiting
        asyncio.run(main())
        for wrong in (0, -1, float("nan")):
            try: mm.monitor_loop(asyncio.new_event_loop(), period=wrong)
            except ValueError: pass
            else: raise AssertionError
        try: mm.monitor_loop()
        except RuntimeError: pass
        else: raise AssertionError
        """
    )
    lags = server.captured.measures("event_loop_lag")
    assert max(lags) > 250
    assert all(lag >= 0 for lag in lags)
    assert len(lags) >= 2


@pytest.mark.parametrize("period", ["0", "-1", "float('nan')", "float('inf')"])
def test_a_gauge_period_that_is_none(run, server, period):
    done = run(f"mm.init(gauge_period={period})", returncode=1)
    assert "ValueError: gauge period of" in done.stderr
