"""What an event costs in the calling thread, beside the floor of the same run and the limit that we set ourselves.

    python bench/hotpath.py [--rounds 9] [--peers]

The floor (bench/floor.c): **E**, an empty `METH_O` call; **R**, the same with a time stamp and one store;
**T** = R - E; **W**, the best empty `with` of a C type. Each statement stands 20 times in a loop whose names are local;
the empty loop is measured in every round and subtracted; the clock is the CPU time of the thread. ns: the best of all
rounds. floor: the same call of a function that takes a time stamp, stores it, and does nothing else (nothing at all
where no event is recorded). That is more than an empty call and T: reading the counter lets nothing else of the
program begin, and an interpreter has the more in flight the longer its way to the call. A server process
(bench/sink.py) takes what is recorded. `--peers` adds other libraries, as far as they are installed (`make bench-peers`
installs them).

`MICROMEGAS_RECORDER_CLOCK=monotonic` has both, floor and recorder, ask the system for the time, as on machines whose
counter can't be used (`make bench-hotpath-clock`): T is ten times as large then, and the limits in units of R with it.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import sysconfig

from peers import peers
from shapes import FLOOR, Best, Shape, context_shapes, floor_shapes, measured, off_shapes, recording_shapes
from sink import sink

import micromegas as mm


def show(shapes: dict[str, Shape], best: Best, ours: Best | None = None) -> None:
    for name, shape in shapes.items():
        ns = best.ns[name]
        line = f"{name:<34}{ns:>10.1f}{ns / best.e:>9.2f}{ns / best.r:>8.2f}"
        if shape.limit:
            bound = shape.limit.ns(best)
            line += f"  {shape.limit.text:<14}{bound:>8.1f}{ns / bound:>7.2f}  {'OK' if ns <= bound else 'over':<6}"
            if (call := shape.stamped or shape.call) and not shape.less:
                floor = best.ns[call]
                line += f"{floor:>8.1f}{ns / floor:>7.2f}"
        elif shape.nearest:
            line += f"  {ns / (ours or best).ns[shape.nearest]:.1f} x our {shape.nearest}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peers", action="store_true", help="other libraries, those that are installed")
    options = parser.parse_args()
    clock = "the counter" if FLOOR.USES_COUNTER else "the system's clock"
    config = sysconfig.get_config_var("CONFIG_ARGS") or ""
    print(f"CPython {platform.python_version()}, time stamps of {clock}, {config}")
    print(f"{'shape':<34}{'ns':>10}{'/ E':>9}{'/ R':>8}  {'limit':<14}{'ns':>8}{'of it':>7}{'floor':>16}{'of it':>7}")
    with sink() as server, contextlib.ExitStack() as recording:
        mm.init(url=server.url, level="debug", flush_period=3600, buffer_bytes=256 << 20, capture_logging=False)
        recording.callback(mm.shutdown)
        shapes = floor_shapes() | recording_shapes()
        best = measured(shapes, options.rounds)
        show(shapes, best)
        more = context_shapes()
        print("\nwith more to tell")
        show(more, measured(floor_shapes() | more, options.rounds))
        print(f"lost events: {(mm.status() or {})['lost_events']}")
        recording.close()
        off = floor_shapes() | off_shapes()
        print("\nnot recording")
        show(off, measured(off, options.rounds))
    if options.peers:
        others = floor_shapes() | peers()
        print("\nother libraries")
        show(others, measured(others, options.rounds), best)


if __name__ == "__main__":
    main()
