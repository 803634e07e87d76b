"""What an event costs in the calling thread: ns, and ratios to an empty C call, beside stdlib logging.

    python bench/hotpath.py [--rounds 9]

Each shape is unrolled 20 times in a loop; the empty loop is measured in every round and subtracted. Clock: CPU time of
the thread. ns: minimum over the rounds; E: the median over the rounds of the ratio to an empty `METH_O` call
(`gc.is_tracked`) of the same round. A capture server of this process takes what is recorded.
"""

import argparse
import gc
import itertools
import logging
import platform
import statistics
import sysconfig
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import micromegas as mm

UNROLL = 20
EMPTY = "empty METH_O call (E)"


class Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def shapes() -> dict[str, tuple[str, dict[str, object]]]:
    quiet = logging.getLogger("bench")
    quiet.propagate = False
    quiet.addHandler(logging.NullHandler())
    quiet.setLevel(logging.INFO)
    metric, counter, span = mm.metric("bench", "ns"), mm.counter("bench_counter"), mm.span("bench")

    def plain(a: int) -> int:
        return a

    class PythonSpan:
        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

    traced = mm.trace(plain)
    log = mm.log
    return {
        EMPTY: ("call(x)", {"call": gc.is_tracked, "x": 5}),
        "untraced f(x)": ("f(x)", {"f": plain, "x": 5}),
        "counter.add(x)": ("counter.add(x)", {"counter": counter, "x": 5}),
        "metric.record(x) int": ("metric.record(x)", {"metric": metric, "x": 5}),
        "metric.record(x) float": ("metric.record(x)", {"metric": metric, "x": 1.5}),
        "log below its level": ("log.trace('x=%s', x)", {"log": log, "x": 5}),
        "log literal": ("log.info('literal')", {"log": log}),
        "log one int": ("log.info('x=%s', x)", {"log": log, "x": 5}),
        "log three values": ("log.info('%s %d %f', s, x, f)", {"log": log, "s": "sixteen letters.", "x": 5, "f": 1.5}),
        "log with property": ("log.info('literal', user=s)", {"log": log, "s": "alice"}),
        "log f-string": ("log.info(f'x={x}')", {"log": log, "x": 5}),
        "with span (two events)": ("with span: pass", {"span": span}),
        "with mm.span('name')": ("with make('name'): pass", {"make": mm.span}),
        "with Python class, empty": ("with span: pass", {"span": PythonSpan()}),
        "@trace f(x), whole call": ("f(x)", {"f": traced, "x": 5}),
        "time.perf_counter_ns()": ("clock()", {"clock": time.perf_counter_ns}),
        "logging below its level": ("log.debug('x=%s', x)", {"log": quiet, "x": 5}),
        "logging NullHandler literal": ("log.info('literal')", {"log": quiet}),
        "logging NullHandler one int": ("log.info('x=%s', x)", {"log": quiet, "x": 5}),
    }


def compiled(statement: str, names: dict[str, object]) -> Callable[[int], float]:
    lines = [f"def sample(n, {', '.join(f'{name}={name}' for name in names)}):", "    begin = clock_()"]
    lines += ["    for _ in repeat_(None, n):"] + [f"        {statement}"] * UNROLL
    lines += ["    return (clock_() - begin) / (n * UNROLL_)"]
    scope = {"clock_": time.thread_time_ns, "repeat_": itertools.repeat, "UNROLL_": UNROLL} | names
    exec("\n".join(lines), scope)
    return scope["sample"]  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    mm.init(url=f"http://127.0.0.1:{server.server_address[1]}", level="debug")
    functions = {name: compiled(*shape) for name, shape in shapes().items()}
    nothing = compiled("pass", {"x": 0})
    figures: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function(500)  # warm: the interpreter specialises, the recorder learns its call sites
    gc.disable()
    for _ in range(rounds):
        base = min(nothing(2000) for _ in range(3))
        for name, function in functions.items():
            repeats = 200 if name.startswith("logging Null") else 2000
            figures[name].append(min(function(repeats) for _ in range(3)) - base)
            mm.flush()  # between the samples, so that the thread behind rests while the next one runs
    print(f"CPython {platform.python_version()}, {sysconfig.get_config_var('CONFIG_ARGS') or ''}")
    print(f"{'shape':<32}{'ns':>9}{'E':>8}")
    for name, samples in figures.items():
        ratio = statistics.median(sample / empty for sample, empty in zip(samples, figures[EMPTY], strict=True))
        print(f"{name:<32}{min(samples):>9.1f}{ratio:>8.1f}")
    print(f"lost events: {(mm.status() or {}).get('lost_events')}")


if __name__ == "__main__":
    main()
