"""Spans that a program left unbalanced are balanced by us, exactly counted, and told."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from record.conftest import WAIT_RECOVERED

KINDS = ("no_begin", "no_end", "left_open")


def measured(server) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for event in server.captured.events("metrics"):
        if event["desc"]["name"] == "mended_spans":
            [[_, mend]] = event["properties"]
            counts[mend] += event["value"]
    return {kind: counts[kind] for kind in KINDS}


def test_each_kind(run, server):
    done = run(
        """
        import json, threading
        mm.init()
        a, b, c = mm.span("a"), mm.span("b"), mm.span("c")
        assert mm.status()["mended_spans"] == {"no_begin": 0, "no_end": 0, "left_open": 0}
        a.end(); b.end()                      # never begun
        a.begin(); b.begin(); c.begin()
        a.end()                               # b and c end with it
        def work():
            a.begin(); b.begin()
            c.end()
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()  # two are open in each
        with a, b: pass
        assert mm.flush()
        while mm.status()["mended_spans"]["left_open"] < 6: mm.flush()
        b.begin()
        print(json.dumps(mm.status()["mended_spans"]))
        """
    )
    assert json.loads(done.stdout) == {"no_begin": 5, "no_end": 2, "left_open": 6}
    assert measured(server) == {"no_begin": 5, "no_end": 2, "left_open": 7}


def test_a_balanced_program_has_none(run, server):
    run(
        """
        import asyncio, threading
        mm.init(flush_period=0.01)
        @mm.trace
        def recursion(depth): return depth and recursion(depth - 1)
        @mm.trace
        def fails(): raise ValueError
        @mm.trace
        def numbers():
            with mm.span("inside"): yield 1
        async def task():
            with mm.span("task"): await asyncio.sleep(0.001)
        def work():
            for _ in range(300):
                with mm.span("outer"), mm.span_named("named"):
                    recursion(5)
                    try: fails()
                    except ValueError: pass
                    list(numbers())
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        async def tasks(): await asyncio.gather(*(task() for _ in range(20)))
        asyncio.run(tasks())
        """
    )
    assert measured(server) == dict.fromkeys(KINDS, 0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("settings", ["flush_period=0.01", "flush_period=60, encoding='transit', span_sampling=0.5"])
def test_any_order_against_a_model(run, server, seed, settings):
    order = random.Random(seed)
    acts = [(order.randrange(6), order.random() < 0.55) for _ in range(3000)]
    expected = dict.fromkeys(KINDS, 0)
    open_spans: list[int] = []
    for span, begins in acts:
        if begins:
            open_spans.append(span)
        elif span in open_spans:
            while open_spans.pop() != span:
                expected["no_end"] += 1
        else:
            expected["no_begin"] += 1
    expected["left_open"] = len(open_spans)
    run(
        f"""
        import json
        mm.init({settings})
        spans = [mm.span(f"s{{i}}") for i in range(6)]
        for number, (span, begins) in enumerate(json.loads({json.dumps(acts)!r})):
            (spans[span].begin if begins else spans[span].end)()
            if number % 500 == 0: mm.flush()
        """
    )
    assert measured(server) == expected


def test_those_of_a_killed_process_are_told_by_its_heir(run, server):
    dead = run(
        """
        import os, signal
        mm.init(flush_period=86400)
        a, b = mm.span("a"), mm.span("b")
        b.end(); a.begin(); b.begin(); a.end()
        print(mm.status()["process_id"], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        returncode=-9,
    ).stdout.strip()
    run("mm.init()\n" + WAIT_RECOVERED)
    assert measured(server) == {"no_begin": 1, "no_end": 1, "left_open": 0}
    assert [event["$type"] for event in server.captured.events("cpu", dead)] == [
        "BeginThreadSpanEvent",
        "BeginThreadSpanEvent",
        "EndThreadSpanEvent",
        "EndThreadSpanEvent",
    ]
