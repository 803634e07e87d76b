"""Exceptions in log events: whatever the exception is and does."""

import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

from micromegas.record import exceptions


def test_the_message_goes_on_with_the_traceback(run, server):
    run(
        """
        mm.init()
        def fail():
            {}["no such key"]
        try:
            fail()
        except KeyError as error:
            kept = error
            mm.log.exception("could not %s", "look", attempt=1)
            mm.log.error("explicit", exc_info=error)
            mm.log.warn("handled", exc_info=True)
        mm.log.info("later", exc_info=kept)
        mm.log.info("triple", exc_info=(type(kept), kept, kept.__traceback__))
        mm.log.exception("nothing is handled here")
        mm.log.error("none", exc_info=None)
        mm.log.error("false", exc_info=False)
        """
    )
    events = server.captured.events("log")
    for event, message, level in zip(
        events, ("could not look", "explicit", "handled", "later", "triple"), (2, 2, 3, 4, 4), strict=False
    ):
        first, *rest = event["msg"].split("\n")
        assert first == message
        assert rest[0] == "Traceback (most recent call last):"
        assert rest[-1] == "KeyError: 'no such key'"
        assert any("in fail" in line for line in rest)
        properties = dict(event["properties"])
        assert properties.pop("attempt", "1") == "1"
        assert properties == {"exception.type": "KeyError", "exception.message": "'no such key'"}
        assert event["desc"]["level"] == level
    assert [event.get("msg", event["desc"]["fmt_str"]) for event in events[5:]] == [
        "nothing is handled here",
        "none",
        "false",
    ]


def test_chains_groups_and_notes(run, server):
    run(
        """
        mm.init()
        try:
            try:
                raise ValueError("inner")
            except ValueError as error:
                error.add_note("a note")
                raise RuntimeError("outer") from error
        except RuntimeError:
            mm.log.exception("chained")
        mm.log.error("group", exc_info=ExceptionGroup("many", [ValueError("one"), TypeError("two")]))
        """
    )
    chained, group = server.captured.messages()
    assert (
        chained.index("ValueError: inner\na note")
        < chained.index("direct cause")
        < chained.index("RuntimeError: outer")
    )
    assert "ValueError: one" in group
    assert "TypeError: two" in group


def test_hostile_exceptions(run, server):
    run(
        """
        import sys
        class Broken(Exception):
            def __str__(self): raise ValueError("no")
            __repr__ = __str__
        class Logs(Exception):
            def __str__(self):
                mm.log.error("inside", exc_info=self)
                return "logs"
        class Notes(Exception):
            @property
            def __notes__(self): raise RuntimeError("no")
        class Strange(Exception):
            __module__ = property(lambda self: 1 / 0)
        class Cyclic(Exception): pass
        mm.init()
        for kind in (Broken, Logs, Notes, Strange):
            try:
                raise kind("x")
            except Exception:
                mm.log.exception(kind.__name__)
        cyclic = Cyclic("round"); cyclic.__context__ = Cyclic("and round"); cyclic.__context__.__context__ = cyclic
        mm.log.error("cyclic", exc_info=cyclic)
        mm.log.error("huge", exc_info=ValueError("x" * 10_000_000))
        mm.log.error("exit", exc_info=SystemExit(3))
        mm.log.error("odd", exc_info="text")
        mm.log.error("odd", exc_info=(1, 2))
        def deep(n):
            if n: return deep(n - 1)
            mm.log.exception("at the bottom")
            raise ValueError("deep")
        def deeper():
            return deeper()
        try:
            deep(900)
        except ValueError:
            mm.log.exception("deep")
        try:
            deeper()
        except RecursionError:
            mm.log.exception("recursion")
        chain = None
        for i in range(2000):
            error = ValueError(str(i)); error.__cause__ = chain; chain = error
        mm.log.error("long chain", exc_info=chain)
        mm.log.info("end")
        """
    )
    messages = server.captured.messages()
    starts = [message.split("\n")[0] for message in messages]
    wanted = [
        "Broken",
        "Notes",
        "Strange",
        "cyclic",
        "huge",
        "exit",
        "at the bottom",
        "deep",
        "recursion",
        "long chain",
    ]
    assert [start for start in starts if start in wanted] == wanted
    assert {"Logs", "inside", "end"} <= set(starts)
    assert max(map(len, messages)) < 70_000
    by_start = dict(zip(starts, messages, strict=True))
    assert "SystemExit: 3" in by_start["exit"]
    assert "RecursionError" in by_start["recursion"]
    assert "ValueError: 1999" in by_start["long chain"]
    huge = [event for event in server.captured.events("log") if event.get("msg", "").startswith("huge")]
    assert dict(huge[0]["properties"])["exception.message"].endswith("[cut: 10000000 characters]")


def test_at_the_recursion_limit_the_event_still_comes(run, server):
    run(
        """
        mm.init()
        def dive():
            try:
                dive()
            except RecursionError as error:
                mm.log.error("bottom", exc_info=error)
                raise
        try:
            dive()
        except RecursionError:
            pass
        """
    )
    messages = server.captured.messages()
    assert messages
    assert all(message.startswith("bottom\n") and "RecursionError" in message for message in messages)


def test_the_text_is_what_the_interpreter_prints(run, server):
    done = run(
        """
        import traceback
        mm.init()
        try:
            int("x")
        except ValueError as error:
            mm.log.exception("m")
            print(traceback.format_exc(), end="")
        """
    )
    assert server.captured.messages() == ["m\n" + done.stdout.rstrip("\n")]


FAILURES = [
    "raise ValueError(7)",
    "raise type('Broken', (ValueError,), {'__str__': lambda self: 1 / 0})()",
    "error = KeyError(1); error.add_note('a note\\nof two lines'); raise error",
    "raise RuntimeError('x') from KeyError(1)",
    "try: {}[1]\n    except KeyError: raise RuntimeError('in the other')",
    "try: {}[1]\n    except KeyError: raise RuntimeError('alone') from None",
    "raise ExceptionGroup('some', [ValueError(1), KeyError(2)])",
    "value = 1; print(valeu)",
    "'x'.uppre",
    "import no_such_module",
    "compile('a b', 'x', 'exec')",
    "raise AssertionError",
    "(1 +\n        int('x'))",
    "deep(2)",
    "deep(3)",
    "deep(9)",
    "deep(250)",
    "first(198)",
    "first(199)",
    "first(220)",
]
DEEP = """
def deep(depth):
    return deep(depth - 1) if depth else int("x")

def first(depth):
    return second(depth - 1) if depth > 0 else int("x")

def second(depth):
    return first(depth - 1) if depth > 0 else int("y")
"""


def test_frames_that_were_printed_before(tmp_path):
    """What was printed of a place in the code is kept: the text is always what the interpreter prints."""
    fails: list[Callable[[], object]] = []
    for name in ("one.py", "other.py"):  # the same code twice, and once more without its source
        text = DEEP + "".join(f"def fail_{number}():\n    {body}\n" for number, body in enumerate(FAILURES))
        (tmp_path / name).write_text(text)
        for path in (str(tmp_path / name), "<nowhere>"):
            scope: dict[str, Any] = {"__name__": "twins"}
            exec(compile(text, path, "exec"), scope)
            fails += [scope[f"fail_{number}"] for number in range(len(FAILURES))]
    for fail in fails * 2:
        try:
            fail()
        except Exception as error:
            expected = traceback.format_exception(error, limit=-exceptions.MAX_FRAMES)
            told = exceptions.describe(error)
            assert told is not None
            assert told[0] == "".join(expected).rstrip("\n")
        else:
            raise AssertionError(fail)


def test_tracebacks_that_are_made_up_tell_their_own_lines():
    """Without an offset, which would tell the line."""
    frame = sys._getframe()
    lines = (frame.f_lineno, frame.f_lineno - 1)
    for line in lines:
        told = exceptions.describe(ValueError("made").with_traceback(types.TracebackType(None, frame, -1, line)))
        assert f", line {line}, in " in told[0]
