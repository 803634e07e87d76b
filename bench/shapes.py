"""The statements that bench/hotpath.py times and bench/instructions.py counts, their limits, and the floor.

Each statement stands 20 times in a loop whose names are local. A new way to record gets a line here.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import itertools
import logging
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from floor import floor

import micromegas as mm

UNROLL = 20
LOOPS = 1000
OLD = sys.version_info < (3, 12)
"""CPython 3.11 has limits of its own: it makes a bound method for each call of a method."""

FLOOR = floor()
EMPTY, STAMPED = "empty METH_O call (E)", "with a time stamp (R)"
METHOD, FAST1, FAST2, FAST4, FAST_NAMED = (
    f"empty method, {arguments}" for arguments in ("METH_O", "1 value", "2 values", "4 values", "1 value, 1 named")
)
STAMPED_METHOD, STAMPED_FAST1, STAMPED_FAST2, STAMPED_FAST4, STAMPED_NAMED = (
    f"stamped method, {arguments}" for arguments in ("METH_O", "1 value", "2 values", "4 values", "1 value, 1 named")
)
STAMPED_WITH = "stamped with, prebound"
PLAIN_WITH, PREBOUND_WITH, UNTRACED = "empty with, plain C type", "empty with, prebound", "f(x) untraced"


@dataclass(frozen=True)
class Best:
    """The best ns of each shape of a run."""

    ns: dict[str, float]

    @property
    def e(self) -> float:
        return self.ns[EMPTY]

    @property
    def r(self) -> float:
        return self.ns[STAMPED]

    @property
    def t(self) -> float:
        return self.r - self.e

    @property
    def w(self) -> float:
        return min(self.ns[PLAIN_WITH], self.ns[PREBOUND_WITH])


@dataclass(frozen=True)
class Limit:
    text: str
    ns: Callable[[Best], float]


@dataclass(frozen=True)
class Shape:
    statement: str
    names: dict[str, object]
    limit: Limit | None = None
    less: str | None = None
    """What is subtracted: the same work without us."""
    call: str | None = None
    """The same call of a function that does nothing."""
    stamped: str | None = None
    """The same call of a function that takes one time stamp, for a shape that records: its floor."""
    nearest: str | None = None
    """Of a peer: the shape of ours that does the same."""
    suspendable: bool = False
    """To stand in a coroutine, in a context of its own, as in a task."""
    loops: int = LOOPS
    around: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext


def times_e(factor: float) -> Limit:
    return Limit(f"{factor:g} E", lambda best: factor * best.e)


def times_r(factor: float, on_311: float) -> Limit:
    factor = on_311 if OLD else factor
    return Limit(f"{factor:g} R", lambda best: factor * best.r)


def times_with(factor: float) -> Limit:
    return Limit(f"{factor:g} (W+2T)", lambda best: factor * (best.w + 2 * best.t))


def added_to_call(calls: int) -> Limit:
    return Limit(f"2T + {calls}E", lambda best: 2 * best.t + calls * best.e)


def times_shape(factor: float, name: str) -> Limit:
    return Limit(f"{factor:g} x that", lambda best: factor * best.ns[name])


def floor_shapes() -> dict[str, Shape]:
    plain_names, stamped_names = ({"plain": kind(), "x": 5} for kind in (FLOOR.Plain, FLOOR.Stamped))
    calls = {
        "plain.method(x)": (METHOD, STAMPED_METHOD),
        "plain.fast('x')": (FAST1, STAMPED_FAST1),
        "plain.fast('x', x)": (FAST2, STAMPED_FAST2),
        "plain.fast('x', x, x, x)": (FAST4, STAMPED_FAST4),
        "plain.fast('x', user=x)": (FAST_NAMED, STAMPED_NAMED),
    }
    return {
        EMPTY: Shape("call(x)", {"call": FLOOR.empty, "x": 5}),
        STAMPED: Shape("call(x)", {"call": FLOOR.stamped, "x": 5}),
        **{empty: Shape(statement, plain_names) for statement, (empty, _) in calls.items()},
        **{stamped: Shape(statement, stamped_names) for statement, (_, stamped) in calls.items()},
        PLAIN_WITH: Shape("with span: pass", {"span": FLOOR.Plain()}),
        PREBOUND_WITH: Shape("with span: pass", {"span": FLOOR.Prebound()}),
        STAMPED_WITH: Shape("with span: pass", {"span": FLOOR.StampedPrebound()}),
        UNTRACED: Shape("f(x)", {"f": plain, "x": 5}),
    }


def plain(a: int) -> int:
    return a


def recording_shapes() -> dict[str, Shape]:
    metric, counter, span, log = mm.metric("bench", "ns"), mm.counter("bench_counter"), mm.span("bench"), mm.log
    text = "sixteen letters."
    return {
        "counter.add(n)": Shape("counter.add(x)", {"counter": counter, "x": 5}, times_e(1.7), call=METHOD),
        "log below its level": Shape("log.trace('x=%s', x)", {"log": log, "x": 5}, times_e(1.7), call=FAST2),
        "metric.record(int)": Shape(
            "metric.record(x)", {"metric": metric, "x": 5}, times_r(1.2, 1.5), call=METHOD, stamped=STAMPED_METHOD
        ),
        "metric.record(float)": Shape(
            "metric.record(x)", {"metric": metric, "x": 1.5}, times_r(1.2, 1.5), call=METHOD, stamped=STAMPED_METHOD
        ),
        "metric.record_with, one property": Shape(
            "metric.record_with(x, user=s)", {"metric": metric, "x": 5, "s": "alice"}
        ),
        "log, literal": Shape(
            "log.info('literal')", {"log": log}, times_r(1.4, 1.65), call=FAST1, stamped=STAMPED_FAST1
        ),
        "log, one int": Shape(
            "log.info('x=%s', x)", {"log": log, "x": 5}, times_r(1.6, 1.8), call=FAST2, stamped=STAMPED_FAST2
        ),
        "log, one str": Shape(
            "log.info('x=%s', x)", {"log": log, "x": text}, times_r(1.6, 1.8), call=FAST2, stamped=STAMPED_FAST2
        ),
        "log, three values": Shape(
            "log.info('%s %d %f', s, x, f)",
            {"log": log, "s": text, "x": 5, "f": 1.5},
            times_r(1.9, 2.0),
            call=FAST4,
            stamped=STAMPED_FAST4,
        ),
        "log, one property": Shape(
            "log.info('literal', user=s)", {"log": log, "s": "alice"}, call=FAST_NAMED, stamped=STAMPED_NAMED
        ),
        "log, f-string": Shape("log.info(f'x={x}')", {"log": log, "x": 5}),
        "with span (two events)": Shape(
            "with span: pass", {"span": span}, times_with(1.15), call=PREBOUND_WITH, stamped=STAMPED_WITH
        ),
        "with span, in a coroutine": Shape(
            "with span: pass",
            {"span": span},
            times_with(1.3),
            call=PREBOUND_WITH,
            suspendable=True,
            stamped=STAMPED_WITH,
        ),
        "with mm.span('name')": Shape("with make('name'): pass", {"make": mm.span}),
        "@trace, added to f(x)": Shape(
            "f(x)", {"f": mm.trace(copy_of_plain()), "x": 5}, added_to_call(5), less=UNTRACED, call=UNTRACED
        ),
        "f(x) of a traced module, added": Shape(
            "f(x)",
            {"f": automatic, "x": 5},
            added_to_call(15 if OLD else 5),
            less=UNTRACED,
            around=tracing_automatically,
        ),
        **logging_shapes(),
    }


def automatic(a: int) -> int:
    return a


def copy_of_plain() -> Callable[[int], int]:
    """A function with code of its own: what traces it may mark the code."""

    def plain(a: int) -> int:
        return a

    return plain


NULL_HANDLER = "logging, NullHandler"


def logging_shapes() -> dict[str, Shape]:
    """stdlib logging alone, with us beside it, and with its methods replaced by ours."""
    quiet, rebound = logging.getLogger("bench.quiet"), logging.getLogger("bench.rebound")
    for logger in (quiet, rebound):
        logger.propagate = False
        logger.addHandler(logging.NullHandler())
        logger.setLevel(logging.INFO)
    names: dict[str, object] = {"log": quiet, "x": 5}
    text = "log.info('x=%s', x)"
    return {
        "logging below its level": Shape("log.debug('x=%s', x)", names, nearest="log below its level"),
        NULL_HANDLER: Shape(text, names, nearest="log, one int", loops=50),
        "logging, recorded by us, too": Shape(
            text, names, times_shape(1.3, NULL_HANDLER), loops=50, around=recording_logging
        ),
        "logger rebound, one int": Shape(
            text,
            {"log": rebound, "x": 5},
            times_shape(1.6, "log, one int"),
            around=functools.partial(rebinding, rebound),
        ),
        "time.perf_counter_ns()": Shape("clock()", {"clock": time.perf_counter_ns}),
    }


@contextlib.contextmanager
def recording_logging() -> Iterator[None]:
    """As `init()` does unless told otherwise."""
    mm.install_logging()
    try:
        yield
    finally:
        mm.uninstall_logging()


@contextlib.contextmanager
def rebinding(logger: logging.Logger) -> Iterator[None]:
    mm.rebind_logger(logger)
    try:
        yield
    finally:
        mm.restore_logger(logger)


def context_shapes() -> dict[str, Shape]:
    """Logs with the properties of a context, and of exceptions. A run of their own: once a program has bound a context,
    every log event asks for it."""
    log, error = mm.log, an_error()
    return {
        "log, one int, context bound": Shape(
            "log.info('x=%s', x)",
            {"log": log, "x": 5},
            call=FAST2,
            stamped=STAMPED_FAST2,
            around=functools.partial(mm.context, user="ann"),
        ),
        "log, one exception": Shape("log.error('failed', exc_info=error)", {"log": log, "error": error}, loops=20),
    }


def an_error() -> Exception:
    """With a traceback."""
    try:
        raise ValueError("no such value")
    except ValueError as error:
        return error


def off_shapes() -> dict[str, Shape]:
    metric, span, log = mm.metric("bench", "ns"), mm.span("bench"), mm.log
    return {
        "off: metric.record(int)": Shape("metric.record(x)", {"metric": metric, "x": 5}, times_e(1.7), call=METHOD),
        "off: log, one int": Shape("log.info('x=%s', x)", {"log": log, "x": 5}, times_e(1.7), call=FAST2),
        "off: span.begin()": Shape("span.begin()", {"span": span}, times_e(1.7)),
        "off: with span": Shape(
            "with span: pass", {"span": span}, Limit("1.7 W", lambda best: 1.7 * best.w), call=PREBOUND_WITH
        ),
    }


def compiled(shape: Shape) -> Callable[[int], float]:
    """`sample(n)`: ns per statement, with the loop."""
    names = shape.names
    keyword = "async def" if shape.suspendable else "def"
    lines = [f"{keyword} sample(n, {', '.join(f'{name}={name}' for name in names)}):", "    begin = clock_()"]
    lines += ["    for _ in repeat_(None, n):"] + [f"        {shape.statement}"] * UNROLL
    lines += ["    return (clock_() - begin) / (n * UNROLL_)"]
    scope = {"clock_": time.thread_time_ns, "repeat_": itertools.repeat, "UNROLL_": UNROLL} | names
    exec("\n".join(lines), scope)
    sample: Any = scope["sample"]
    return functools.partial(_in_context, sample) if shape.suspendable else sample  # type: ignore[no-any-return]


def _in_context(sample: Callable[[int], Coroutine[Any, Any, float]], n: int) -> float:
    try:
        contextvars.copy_context().run(sample(n).send, None)
    except StopIteration as stop:
        return float(stop.value)
    raise AssertionError("a statement has waited")


@contextlib.contextmanager
def tracing_automatically() -> Iterator[None]:
    """Every function of this module is traced."""
    mm.trace_modules(include=[__name__])
    try:
        automatic(5)  # decided about before the clock runs
        yield
    finally:
        mm.untrace_modules()


def measured(shapes: dict[str, Shape], rounds: int) -> Best:
    """Every shape once per round, so that a bad moment of the machine meets all of them."""
    nothing = compiled(Shape("pass", {"x": 0}))
    functions = {name: compiled(shape) for name, shape in shapes.items()}
    for name, function in functions.items():
        with shapes[name].around():
            function(min(200, shapes[name].loops))  # the interpreter specialises, the recorder learns its call sites
    best = dict.fromkeys(shapes, float("inf"))
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        base = min(nothing(LOOPS) for _ in range(3))
        for name, function in functions.items():
            with shapes[name].around():
                sample = min(function(shapes[name].loops) for _ in range(3)) - base
            best[name] = min(best[name], sample)
            mm.flush()  # between the samples, so that the thread behind rests while the next one runs
    gc.enable()
    for name, shape in shapes.items():
        if shape.less:
            best[name] -= best[shape.less]
    return Best(best)
