"""Properties that events get from their context, from the process and from sets made before."""

import pytest


def properties_of(server):
    events = server.captured.events("log")
    return [(event.get("msg", event["desc"]["fmt_str"]), dict(event.get("properties", []))) for event in events]


def test_bound_properties(run, server):
    run(
        """
        mm.init()
        mm.log.info("bare")
        with mm.context(user="alice", n=1):
            mm.log.info("one")
            mm.log.info("two %d", 2, n="own")
            with mm.context(n=2, deep=None):
                mm.log.info(f"three {3}")
            mm.log.info("four")
            mm.bind(step="x")
            mm.log.info("five")
            mm.unbind("user", "nobody")
            mm.log.info("six")
            mm.clear_context()
            mm.log.info("seven")
        mm.log.info("after")
        mm.set_global_properties(build="7", n="global")
        mm.log.info("global")
        with mm.context(n="context"):
            mm.log.info("both", user="u")
            assert mm.bound_properties() == {"n": "context"}
        mm.set_global_properties()
        mm.log.info("end")
        """
    )
    assert properties_of(server) == [
        ("bare", {}),
        ("one", {"user": "alice", "n": "1"}),
        ("two 2", {"user": "alice", "n": "own"}),
        ("three 3", {"user": "alice", "n": "2", "deep": "None"}),
        ("four", {"user": "alice", "n": "1"}),
        ("five", {"user": "alice", "n": "1", "step": "x"}),
        ("six", {"n": "1", "step": "x"}),
        ("seven", {}),
        ("after", {}),
        ("global", {"build": "7", "n": "global"}),
        ("both", {"build": "7", "n": "context", "user": "u"}),
        ("end", {}),
    ]


def test_tasks_inherit_and_are_isolated(run, server):
    run(
        """
        import asyncio, threading
        mm.init()
        async def work(number):
            mm.bind(task=number)
            for step in range(3):
                await asyncio.sleep(0)
                mm.log.info("%d %d", number, step)
        async def main():
            with mm.context(request="r"):
                await asyncio.gather(*(work(number) for number in range(5)))
                mm.log.info("main")
        asyncio.run(main())
        mm.bind(thread="main")
        thread = threading.Thread(target=lambda: mm.log.info("thread"))
        thread.start(); thread.join()
        """
    )
    seen = properties_of(server)
    expected = {(f"{n} {s}", ("r", str(n))) for n in range(5) for s in range(3)}
    assert {(message, (given["request"], given["task"])) for message, given in seen[:15]} == expected
    assert seen[15] == ("main", {"request": "r"})
    assert seen[16][1] == {}


def test_interned_sets(run, server):
    run(
        """
        mm.init()
        one, two = mm.properties(b=2, a="x"), mm.properties(a="x", b="2")
        assert one is two and one.pairs == (("a", "x"), ("b", "2")) and one.interned
        mm.log.info("set", properties=one)
        mm.log.info("set and %s", "own", properties=one, a="own", c=3)
        with mm.context(a="context", z="z"):
            mm.log.info("over", properties=one)
        mm.log.info("no set", properties="text")
        mm.log.info("none", properties=mm.properties())
        sets = [mm.properties(i=i) for i in range(70_000)]
        assert sets[0].interned and not sets[-1].interned
        mm.log.info("beyond", properties=sets[-1])
        """
    )
    assert properties_of(server) == [
        ("set", {"a": "x", "b": "2"}),
        ("set and own", {"a": "own", "b": "2", "c": "3"}),
        ("over", {"a": "x", "b": "2", "z": "z"}),
        ("no set", {"properties": "text"}),
        ("none", {}),
        ("beyond", {"i": "69999"}),
    ] + [(message, {}) for message in server.captured.messages() if message.startswith("too many property sets: ")]
    assert len(properties_of(server)) == 7


def test_hostile_properties(run, server):
    run(
        """
        class Broken:
            def __str__(self): raise ValueError("no")
        class Binds:
            def __str__(self):
                mm.bind(inner="yes")
                mm.log.info("inner", a=1)
                return "binds"
        mm.init()
        odd = {"odd name ☃": 1, "": "empty"}
        with mm.context(broken=Broken(), huge="é" * 100_000, lone="\\udc80", nul="\\0", **odd):
            mm.log.info("one")
        mm.log.info("two", x=Binds(), y=Broken())
        mm.clear_context()
        with mm.context(**{f"k{i}": i for i in range(100)}):
            mm.log.info("three", **{f"own{i}": i for i in range(100)})
        def generator():
            with mm.context(g=1):
                yield
        import contextvars
        closed = generator()
        contextvars.copy_context().run(next, closed)
        closed.close()
        mm.log.info("four")
        assert mm.flush()
        assert mm.status()["refused_values"] == 36 + 68, mm.status()
        """
    )
    seen = [(message, given) for message, given in properties_of(server) if not message.startswith("lost")]
    assert seen[0][1] == {
        "broken": "<unprintable Broken object>",
        "huge": "é" * 8192 + "… [cut: 100000 characters]",
        "lone": "\\udc80",
        "nul": "\0",
        "odd name ☃": "1",
        "": "empty",
    }
    assert seen[1] == ("inner", {"inner": "yes", "a": "1"})
    assert seen[2] == ("two", {"x": "binds", "y": "<unprintable Broken object>"})
    assert len(seen[3][1]) == 64 + 32
    assert seen[4] == ("four", {})


@pytest.mark.parametrize("clock", ["counter", "monotonic"])
def test_calls_that_come_again_get_what_is_bound_then(run, server, clock):
    """The first call of a site goes the long way, later ones a short one: both give the same."""
    run(
        """
        mm.init()
        def leave(number):
            mm.log.info("literal")
            mm.log.info("value %d", number)
            mm.log.info("values %s %s %r", "text", 1.5, None, own=number, n="own")
            mm.log.info("long %s", "x" * 100)
            mm.log.info("object %s", [number], more="m")
            mm.log.info("literal with one", own=number)
        leave(0)
        leave(1)
        with mm.context(user="alice", n=1):
            leave(2)
            with mm.context(deep="é" * 300):
                leave(3)
        mm.set_global_properties(build="7", n="global")
        leave(4)
        with mm.context(n="context"):
            leave(5)
        mm.set_global_properties()
        leave(6)
        """,
        env={"MICROMEGAS_RECORDER_CLOCK": clock},
    )
    ambient = [
        {},
        {},
        {"user": "alice", "n": "1"},
        {"user": "alice", "n": "1", "deep": "é" * 300},
        {"build": "7", "n": "global"},
        {"build": "7", "n": "context"},
        {},
    ]
    wanted = []
    for number, around in enumerate(ambient):
        own = {"own": str(number)}
        wanted += [
            ("literal", around),
            (f"value {number}", around),
            ("values text 1.5 None", around | own | {"n": "own"}),
            ("long " + "x" * 100, around),
            (f"object [{number}]", around | {"more": "m"}),
            ("literal with one", around | own),
        ]
    assert properties_of(server) == wanted
