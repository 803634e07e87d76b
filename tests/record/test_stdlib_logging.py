"""What a program logs through the standard library's `logging`, whatever configures it and whenever."""

import itertools
import json
import sys

import pytest

CONFIGURATIONS = {
    "install": "mm.install_logging()",
    "basic": "logging.basicConfig(force=True, level=1, stream=open(os.devnull, 'w'))",
    "dict": """logging.config.dictConfig({'version': 1, 'handlers': {'h': {'class': 'logging.NullHandler'}},
    'root': {'level': 1, 'handlers': ['h']}})""",
    "file": """logging.config.fileConfig(io.StringIO('''[loggers]
keys=root
[handlers]
keys=h
[formatters]
keys=
[logger_root]
level=NOTSET
handlers=h
[handler_h]
class=NullHandler
args=()
'''))""",
    "clear": "logging.root.handlers.clear(); logging.root.setLevel(1)",
}


@pytest.mark.parametrize("order", list(itertools.permutations(CONFIGURATIONS, 3)), ids="-".join)
def test_in_any_order_of_configurations(run, server, order):
    """Loggers from before and after each of them are heard, also those that a configuration disables."""
    if "install" not in order:
        order = (*order, "install")
    steps = [f"logging.getLogger('before.{i}')\n{CONFIGURATIONS[name]}\n" for i, name in enumerate(order)]
    run(
        "import io, logging, os\n"
        + "import logging.config\n" * (len(order[0]) % 2)
        + "".join(steps).replace("logging.config.", "__import__('logging.config').config.")
        + """
mm.init(level="trace", capture_logging=True)
for i in range(4): logging.getLogger(f"before.{i}").warning("old")
logging.getLogger("after").error("new %d", 1)
"""
    )
    targets = [event["desc"]["target"] for event in server.captured.events("log")]
    assert targets[-1] == "after"
    named = {f"before.{i}" for i in range(4)}
    first = order.index("install")
    # What was disabled before we came was disabled by somebody.
    assert {f"before.{i}" for i in range(first, 4)} <= set(targets) <= named | {"after"}


def test_what_an_event_holds(run, server):
    """`taskName` is no property: a record's own from 3.12 on, where nobody can give another, nor before."""
    extra = {"user": "ann", "n": 5} | ({} if sys.version_info >= (3, 12) else {"taskName": "odd"})
    run(
        """
        import logging
        mm.init(level="trace")
        log = logging.getLogger("shop.cart")
        log.setLevel(1)
        log.propagate = False
        log.warning("literal")
        log.info("%s has %d", "ann", 3)
        log.error("%(a)s", {"a": "mapping"})
        log.info("with extra", extra=EXTRA)
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("failed", extra={"k": 1})
        log.debug("stack", stack_info=True)
        log.info("misfit %d", "x")
        for number in (1, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 99):
            log.log(number, "number %d", number)
        log.info({"not": "text"})
        log.info("many" + " %d" * 40, *range(40))
        """.replace("EXTRA", repr(extra))
    )
    events = server.captured.events("log")
    assert {event["desc"]["target"] for event in events} == {"shop.cart"}
    assert all(event["desc"]["file"].endswith("program.py") for event in events)
    assert events[0]["desc"]["fmt_str"] == "literal"
    assert (events[0]["desc"]["line"], events[0]["desc"]["level"]) == (8, 3)
    assert [event["msg"] for event in events[1:4]] == ["ann has 3", "mapping", "with extra"]
    assert dict(events[3]["properties"]) == {"user": "ann", "n": "5"}
    assert events[4]["msg"].startswith("failed\nTraceback")
    given = {"exception.type": "ZeroDivisionError", "exception.message": "division by zero", "k": "1"}
    assert dict(events[4]["properties"]) == given
    assert events[5]["msg"].startswith("stack\nStack (most recent call last):")
    assert events[6]["msg"].startswith("misfit %d % ('x',) [not formatted")
    levels = {event["msg"]: event["desc"]["level"] for event in events[7:19]}
    wanted = {1: 6, 5: 6, 10: 5, 15: 5, 20: 4, 25: 4, 30: 3, 35: 3, 40: 2, 45: 2, 50: 1, 99: 1}
    assert levels == {f"number {number}": level for number, level in wanted.items()}
    assert events[19]["msg"] == "{'not': 'text'}"
    assert events[20]["msg"] == "many " + " ".join(map(str, range(40)))


def test_levels_of_ours_and_theirs(run, server):
    run(
        """
        import logging
        mm.install_logging(levels={25: "error"})
        mm.init(level="info,noisy=off")
        logging.root.setLevel(1)
        logging.getLogger("a").debug("below ours")
        logging.getLogger("a").log(25, "mapped")
        logging.getLogger("noisy.x").critical("muted")
        logging.getLogger("b").setLevel(logging.ERROR)
        logging.getLogger("b").warning("below theirs")
        for wrong in ("loud", "off"):
            try: mm.install_logging(levels={1: wrong})
            except ValueError: mm.log.info("refused")
        """
    )
    events = server.captured.events("log")
    assert [event["desc"]["fmt_str"] for event in events] == ["mapped", "refused", "refused"]


def test_the_programs_own_output_is_as_without_us(run, server):
    """No handler of ours is in a list: `basicConfig` still works, and so does the last resort. Nothing comes twice."""
    text = """
        import logging, logging.config, sys
        {init}
        logging.getLogger("a").warning("last resort")
        logging.basicConfig(format="%(levelname)s %(message)s")
        logging.getLogger("a").warning("basic")
        logging.config.dictConfig({{"version": 1}})
        logging.getLogger("a").warning("disabled")
        logging.getLogger("b").warning("b")
        logging.getLogger("b").disabled = True
        logging.getLogger("b").warning("nobody")
        """
    without = run(text.format(init="mm.init(capture_logging=False)")).stderr
    assert server.captured.messages() == []
    assert run(text.format(init="mm.init()")).stderr == without
    assert server.captured.messages() == ["last resort", "basic", "disabled", "b"]


def test_off_by_the_environment_and_undone(run, server):
    run(
        """
        import logging
        untouched = logging.Logger.callHandlers
        mm.init()
        assert logging.Logger.callHandlers is untouched
        mm.install_logging(); mm.install_logging()
        logging.getLogger("a").warning("one")
        mm.uninstall_logging()
        assert logging.Logger.callHandlers is untouched
        logging.getLogger("a").warning("two")
        """,
        env={"MICROMEGAS_CAPTURE_LOGGING": "0"},
    )
    assert server.captured.messages() == ["one"]


def test_a_handler_for_one_logger(run, server):
    run(
        """
        import logging
        from micromegas.record.stdlib_logging import Handler
        mm.init(capture_logging=False)
        logging.getLogger("one").addHandler(Handler(level=logging.ERROR))
        logging.getLogger("one").warning("below")
        logging.getLogger("one.x").error("heard")
        logging.getLogger("two").error("not heard")
        mm.install_logging()
        logging.getLogger("one").error("once")
        """
    )
    assert server.captured.messages() == ["heard", "once"]


def test_no_deadlock_and_no_recursion(run, server):
    """Logging from `__str__`, from signal handlers, from threads, with the lock of `logging` held across a fork."""
    done = run(
        """
        import json, logging, os, signal, threading
        mm.init()
        log = logging.getLogger("x")
        log.setLevel(1)
        log.addHandler(logging.NullHandler())
        class Logs:
            def __str__(self):
                log.info("inner %s", self)
                return "outer"
        log.info("%s", Logs())
        signal.signal(signal.SIGALRM, lambda *_: log.warning("alarm"))
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        def work():
            for i in range(3000): log.info("work %d", i)
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads: thread.start()
        for i in range(3000): log.debug("main %d", i)
        for thread in threads: thread.join()
        signal.setitimer(signal.ITIMER_REAL, 0)
        holder = threading.Event(); leave = threading.Event()
        def hold():
            for handler in log.handlers: handler.acquire()
            holder.set(); leave.wait()
            for handler in log.handlers: handler.release()
        thread = threading.Thread(target=hold); thread.start(); holder.wait()
        child = os.fork()
        if child == 0:
            log.error("in the child")
            mm.flush()
            os._exit(0)
        leave.set(); thread.join()
        print(json.dumps(os.waitpid(child, 0)[1]))
        """
    )
    assert json.loads(done.stdout) == 0
    messages = server.captured.messages()
    assert "outer" in messages
    assert sum(message.startswith("work") for message in messages) == 9000
    assert sum(message.startswith("main") for message in messages) == 3000
    assert messages.count("in the child") == 1


def test_call_sites_do_not_grow_with_texts(run, server):
    """f-strings, and records that came by a pickle with texts of their own, are few places."""
    run(
        """
        import logging, logging.handlers, pickle
        mm.init()
        log = logging.getLogger("x")
        log.setLevel(1)
        for i in range(2000):
            log.info(f"varying {i}")
            record = logging.makeLogRecord({"name": "far" + "away", "msg": f"m {i}", "levelno": 20, "pathname": "p.py"})
            log.handle(pickle.loads(pickle.dumps(record)))
        """
    )
    events = server.captured.events("log")
    assert len(events) == 4000
    assert len({(e["desc"]["fmt_str"], e["desc"]["line"], e["desc"]["target"]) for e in events}) <= 4


def test_rebound_loggers(run, server):
    run(
        """
        import logging, logging.config
        mm.init(level="trace,deaf=off", capture_logging=False)
        parent, log = logging.getLogger("app"), logging.getLogger("app.db")
        assert mm.rebind_logger(log) is log and mm.rebind_logger("app.db") is log
        def speak(tag):
            for method in ("debug", "info", "warning", "error", "critical"):
                getattr(log, method)(tag + " " + method)
        speak("a")  # the root's level: warning
        parent.setLevel("DEBUG"); speak("b")
        logging.disable(logging.INFO); speak("c")
        logging.disable(logging.NOTSET); log.setLevel(logging.CRITICAL); speak("d")
        log.setLevel(15); speak("e")
        log.info("%s and %d", "text", 3, extra={"user": "ann"}, stacklevel=2)
        try:
            [][0]
        except IndexError:
            log.exception("failed")
        log.info("stack", stack_info=True)
        mm.rebind_logger("deaf").critical("never")
        mm.restore_logger(log)
        assert "info" not in vars(log)
        log.error("through logging again")
        """
    )
    events = server.captured.events("log")
    texts = [event.get("msg", event["desc"]["fmt_str"]) for event in events]
    everything = ("debug", "info", "warning", "error", "critical")
    expected = [f"a {level}" for level in everything[2:]]
    expected += [f"b {level}" for level in everything] + [f"c {level}" for level in everything[2:]]
    expected += ["d critical"] + [f"e {level}" for level in everything[1:]]
    assert texts[: len(expected)] == expected
    rest = events[len(expected) :]
    assert rest[0]["msg"] == "text and 3"
    assert dict(rest[0]["properties"]) == {"user": "ann"}
    assert rest[1]["msg"].startswith("failed\nTraceback")
    assert rest[2]["msg"].startswith("stack\nStack")
    assert len(rest) == 3
    assert {event["desc"]["target"] for event in events} == {"app.db"}
    assert all(event["desc"]["file"].endswith("program.py") for event in events)


def test_warnings(run, server):
    done = run(
        """
        import warnings
        mm.init()
        shown = warnings.showwarning
        mm.capture_warnings(); mm.capture_warnings()
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.warn("not shown")
        warnings.warn("%s stays", UserWarning)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.warn("caught by the program")
        assert len(caught) == 1
        from micromegas.record.warnings_capture import release_warnings
        release_warnings()
        assert warnings.showwarning is shown
        """,
        args=("-W", "always"),
    )
    events = server.captured.events("log")
    assert [event["msg"] for event in events] == ["old thing", "%s stays"]
    assert [dict(event["properties"])["category"] for event in events] == ["DeprecationWarning", "UserWarning"]
    assert [event["desc"]["line"] for event in events] == [7, 11]
    assert {event["desc"]["target"] for event in events} == {"py.warnings"}
    assert "DeprecationWarning: old thing" in done.stderr


def test_log_calls(run, server):
    run(
        """
        import asyncio, inspect
        @mm.log_calls
        def plain(a, b=2):
            "doc"
            return a + b
        class Thing:
            @mm.log_calls(level="info")
            def method(self): return self
            @staticmethod
            @mm.log_calls
            def static(): return 3
            @mm.log_calls
            @classmethod
            def of_class(cls): return cls
        @mm.log_calls
        async def work(): return 5
        mm.init(level="trace", capture_logging=False)
        assert plain(1) == 3 and plain.__doc__ == "doc" and str(inspect.signature(plain)) == "(a, b=2)"
        thing = Thing()
        assert thing.method() is thing and Thing.static() == 3 and Thing.of_class() is Thing
        assert asyncio.run(work()) == 5
        try: plain("x")
        except TypeError: mm.log.info("raised")
        """
    )
    events = server.captured.events("log")
    texts = [event["desc"]["fmt_str"] for event in events]
    assert texts == ["plain", "Thing.method", "Thing.static", "Thing.of_class", "work", "plain", "raised"]
    assert [event["desc"]["level"] for event in events] == [6, 4, 6, 6, 6, 6, 4]
    assert events[0]["desc"]["line"] == 4
    assert events[0]["desc"]["target"] == "__main__"


def test_log_calls_leaves_functions_of_the_kind_that_they_are(run, server):
    """Frameworks ask: a coroutine function that is none any more is never awaited."""
    run(
        """
        import asyncio, inspect
        @mm.log_calls
        async def work(): return 5
        @mm.log_calls
        def numbers(n):
            "doc"
            try:
                sent = yield n
                yield sent
            except KeyError:
                yield "thrown"
            finally:
                mm.log.info("numbers end")
            return "end"
        @mm.log_calls
        async def letters():
            try:
                sent = yield "a"
                yield sent
            finally:
                mm.log.info("letters end")
        assert inspect.iscoroutinefunction(work)
        assert inspect.isgeneratorfunction(numbers) and numbers.__doc__ == "doc"
        assert inspect.isasyncgenfunction(letters)
        mm.init(level="trace", capture_logging=False)
        generator = numbers(1)
        assert (next(generator), generator.send(2), generator.throw(KeyError)) == (1, 2, "thrown")
        try: next(generator)
        except StopIteration as end: assert end.value == "end"
        async def main():
            assert await work() == 5
            generator = letters()
            assert await anext(generator) == "a"
            assert await generator.asend("b") == "b"
            await generator.aclose()
        asyncio.run(main())
        assert mm.flush()
        """
    )
    assert server.captured.messages() == ["numbers", "numbers end", "work", "letters", "letters end"]
