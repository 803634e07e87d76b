"""Frames and their budgets; spans left out: whole trees by share, or all but those around slow frames. What is left out
is counted exactly, and what is sent is paired."""

from collections import Counter

import pytest


def trees(events):
    """The names of the outermost spans, and of all; fails when begins and ends don't pair."""
    roots, names, stack = Counter(), Counter(), []
    for event in events:
        name = event["thread_span_desc"]["name"]
        if event["$type"].startswith("Begin"):
            if not stack:
                roots[name] += 1
            names[name] += 1
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    return roots, names


def test_frames(run, server):
    run(
        """
        import time
        mm.init(flush_period=60)
        fast = mm.frame("fast", budget_ms=60_000.0)
        for _ in range(5):
            with fast: pass
        with mm.frame("slow", budget_ms=1, properties={"scene": "menu"}, target="game"):
            with fast: time.sleep(0.02)
        try:
            with mm.frame(): raise KeyError
        except KeyError: pass
        for wrong in (0, -1, float("nan"), 1e300):
            try: mm.frame(budget_ms=wrong)
            except ValueError: pass
            else: raise AssertionError(wrong)
        """
    )
    captured = server.captured
    frames: dict[str, list[float]] = {}
    for event in captured.events("metrics"):
        if event["desc"]["name"] == "DeltaTime":
            assert event["desc"]["unit"] == "seconds"
            frames.setdefault(dict(event["properties"])["frame"], []).append(event["value"])
    assert {name: len(values) for name, values in frames.items()} == {"fast": 6, "slow": 1, "main": 1}
    assert 0.02 <= frames["slow"][0] < 30
    assert frames["fast"][-1] <= frames["slow"][0]
    [over] = [event for event in captured.events("metrics") if event["desc"]["name"] == "FramesOverBudget"]
    assert (over["value"], over["desc"]["target"]) == (1, "game")
    assert dict(over["properties"]) == {"frame": "slow", "scene": "menu"}
    [message] = captured.messages()
    assert message.startswith("frame slow: 1 over the budget of 1.0 ms, the longest took ")


@pytest.mark.parametrize(
    ("sampling", "usual", "rare"),
    [
        ("0.3", (200, 400), (200, 400)),
        ("{'rare': 0.1}", (1000, 1000), (50, 160)),
        ("{'*': 0, 'rare': 1}", (0, 0), (1000, 1000)),
    ],
)
def test_shares_keep_whole_trees(run, server, sampling, usual, rare):
    run(
        f"""
        def work(span):
            with span:
                for _ in range(3):
                    with inner: pass
        mm.init(span_sampling={sampling}, flush_period=0.01)
        usual, rare, inner = mm.span("usual"), mm.span("rare"), mm.span("inner")
        for _ in range(1000):
            work(usual)
            work(rare)
        """
    )
    captured = server.captured
    roots, names = trees(captured.events("cpu"))
    assert usual[0] <= roots["usual"] <= usual[1]
    assert rare[0] <= roots["rare"] <= rare[1]
    assert names["inner"] == 3 * (roots["usual"] + roots["rare"])
    left_out = sum(captured.measures("span_events_left_out"))
    assert left_out + 2 * sum(names.values()) == 2 * 2000 * 4
    assert captured.measures("lost_events") == []


def test_shares_of_async_trees(run, server):
    run(
        """
        import asyncio
        mm.init(span_sampling=0.5, flush_period=0.01)
        async def task():
            async with mm.span("outer"):
                await asyncio.sleep(0)
                async with mm.span("inner"):
                    await asyncio.sleep(0)
        async def main():
            await asyncio.gather(*(task() for _ in range(400)))
        asyncio.run(main())
        """
    )
    events = server.captured.events("cpu")
    begins = {event["span_id"]: event for event in events if event["$type"].startswith("Begin")}
    ends = {event["span_id"] for event in events if event["$type"].startswith("End")}
    assert set(begins) == ends
    outer = {id for id, event in begins.items() if event["span_desc"]["name"] == "outer"}
    inner = [event["parent_span_id"] for event in begins.values() if event["span_desc"]["name"] == "inner"]
    assert sorted(inner) == sorted(outer)
    assert 120 <= len(outer) <= 280


def test_spikes_keep_what_surrounds_slow_frames(run, server):
    """Frames are short, but for two that are a hundred times longer; another thread works all the time."""
    done = run(
        """
        import threading, time
        mm.init(span_sampling="spikes", flush_period=0.02)
        frame, work, over, all_along = mm.frame(), mm.span("work"), mm.span("over"), mm.span("all along")
        done, others = threading.Event(), []
        def other():
            with all_along:
                while not done.is_set():
                    with mm.span("other"): time.sleep(0.001)
                    others.append(1)
        thread = threading.Thread(target=other, name="other")
        thread.start()
        with mm.span("program"):
            for number in range(130):
                if number == 30: mm.flush()
                with frame:
                    if number in (60, 100):
                        with over: time.sleep(0.4)
                    else:
                        with work: time.sleep(0.004)
        done.set()
        thread.join()
        print(2 * (130 + 2 + len(others)))
        """
    )
    captured = server.captured
    events = [event for events in captured.threads().values() for event in events]
    totals = Counter(e["thread_span_desc"]["name"] for e in events if e["$type"].startswith("Begin"))
    assert totals["over"] == 2
    assert totals["work"] <= 98  # the first 30 frames can't be slow
    sent = 0
    for name, events in captured.threads().items():
        roots, names = trees(events)
        sent += len(events)
        assert names["other" if name == "other" else "over"] > 0
        assert set(roots) <= {"program", "all along", "other", "work", "over"}
    left_out = sum(captured.measures("span_events_left_out"))
    assert sent + left_out == int(done.stdout)
    assert len(captured.measures("DeltaTime")) == 130


def test_spikes_without_frames_send_no_spans(run, server):
    run(
        """
        mm.init(span_sampling="spikes", flush_period=0.01)
        for _ in range(100_000):
            with mm.span("x"): pass
        mm.log.info("done")
        """
    )
    captured = server.captured
    assert captured.events("cpu") == []
    assert sum(captured.measures("span_events_left_out")) == 200_000


@pytest.mark.parametrize("wrong", ["'sometimes'", "1.5", "-0.1", "{'a': 2}", "{'a': None}", "float('nan')", "[1]"])
def test_samplings_that_can_not_be(run, wrong):
    done = run(f"mm.init(span_sampling={wrong})", returncode=1)
    assert "ValueError: span sampling" in done.stderr


def test_sampling_from_the_environment(run, server):
    run("mm.init()\nwith mm.span('x'): pass\nmm.log.info('x')", env={"MICROMEGAS_SPAN_SAMPLING": "0"})
    assert server.captured.events("cpu") == []
    assert server.captured.messages() == ["x"]
