"""How many machine instructions each hot shape adds to an empty call: a gate that repeats on the noisiest machine.

    python bench/instructions.py            # exit status 1 when a shape has become dearer
    python bench/instructions.py --write    # takes what it counts as what is expected from now on

valgrind's callgrind counts the calling thread's instructions. "own" is what a statement takes more than the same call
of a function that does nothing, so the interpreter's build does not show. A shape may take a tenth more of its whole
count than bench/instructions.json tells for this version of Python: less than that compilers differ by. Those of
"clock" ask the system for the time, as on machines whose counter is of no use.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from shapes import (
    EMPTY,
    FLOOR,
    UNROLL,
    Shape,
    compiled,
    context_shapes,
    floor_shapes,
    off_shapes,
    recording_shapes,
)

import micromegas as mm

EXPECTED = Path(__file__).with_suffix(".json")
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
MARGIN = 1.10
LOOPS = 150
NOTHING = Shape("pass", {"x": 0})
CLOCK = "clock: "


def gated() -> dict[str, Shape]:
    return {name: shape for name, shape in recording_shapes().items() if shape.call}


def gated_off() -> dict[str, Shape]:
    return {name: shape for name, shape in off_shapes().items() if shape.call}


def gated_in_context() -> dict[str, Shape]:
    return {name: shape for name, shape in context_shapes().items() if shape.call}


def run_everything() -> None:
    """Under callgrind: each statement between two marks, in the order of `names_in_order`."""
    begin_recording()
    run({"": NOTHING} | floor_shapes() | gated())
    if os.environ.get("MICROMEGAS_RECORDER_CLOCK"):
        os._exit(0)
    run(gated_off())
    begin_recording()
    run(gated_in_context())
    os._exit(0)


def begin_recording() -> None:
    mm.init(url="http://127.0.0.1:9", flush_period=3600, level="debug")


def run(shapes: dict[str, Shape]) -> None:
    functions = [(compiled(shape), shape.around) for shape in shapes.values()]
    for function, around in functions:
        with around():
            function(20)
    for function, around in functions:
        with around():
            FLOOR.mark()
            function(LOOPS)
            FLOOR.mark()
    mm.shutdown(1)  # nobody answers; what is left of the buffers goes


def names_in_order() -> list[str]:
    return ["", *floor_shapes(), *gated(), *gated_off(), *gated_in_context()]


def counted(**environment: str) -> dict[str, float]:
    """Instructions per statement; with the system's clock only of those that tell the time."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--separate-threads=yes", "--dump-before=end_of_count", f"--callgrind-out-file={folder}/out"]
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "-q", *options, sys.executable, __file__, "--run"],
            env=os.environ | {"PYTHONHASHSEED": "0", "MICROMEGAS_SPOOL_DIR": f"{folder}/spool"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"callgrind failed:\n{done.stdout}")
        totals = {}
        for path in Path(folder).iterdir():
            if match := re.fullmatch(r"out\.(\d+)-01", path.name):
                total = re.search(r"^totals: (\d+)", path.read_text(), re.MULTILINE)
                totals[int(match[1])] = int(total[1]) if total else 0
    # Two dumps per statement: the one at its second mark has it.
    names = names_in_order()[: len(totals) // 2]
    per_loop = {name: totals[2 * index + 2] / LOOPS for index, name in enumerate(names)}
    return {name: (total - per_loop[""]) / UNROLL for name, total in per_loop.items() if name}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="expect from now on what is counted now")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_everything()
    if not shutil.which("valgrind"):
        print("left out: no valgrind here, so the instructions of the hot path are not counted")
        return 0
    expected = json.loads(EXPECTED.read_text(encoding="utf-8")) if EXPECTED.exists() else {}
    counts, by_clock = counted(), counted(MICROMEGAS_RECORDER_CLOCK="monotonic")
    counts |= {CLOCK + name: by_clock[name] for name in gated()}
    shapes = gated() | gated_off() | gated_in_context()
    shapes |= {CLOCK + name: shape for name, shape in gated().items() if shape.stamped or shape.less}
    own = {name: round(counts[name] - counts[shape.call or ""], 1) for name, shape in shapes.items()}
    if options.write:
        expected[VERSION] = own
        EXPECTED.write_text(json.dumps(dict(sorted(expected.items())), indent=2) + "\n", encoding="utf-8")
    if VERSION not in expected:
        print(f"left out: {EXPECTED.name} has no counts for Python {VERSION}")
        return 0
    print(f"CPython {VERSION}, instructions; an empty METH_O call: {counts[EMPTY]:.0f}")
    print(f"{'shape':<34}{'whole':>8}{'/ E':>7}{'own':>8}{'expected':>10}{'allowed':>9}")
    dearer = []
    for name, shape in shapes.items():
        told = expected[VERSION].get(name)
        if told is None:
            print(f"{name:<34}: not in {EXPECTED.name}; add it with --write")
            dearer.append(name)
            continue
        floor = counts[shape.call or ""]
        allowed = told + (MARGIN - 1) * (floor + told)
        verdict = "OK" if own[name] <= allowed else "dearer"
        print(
            f"{name:<34}{counts[name]:>8.0f}{counts[name] / counts[EMPTY]:>7.2f}{own[name]:>8.1f}"
            f"{told:>10.1f}{allowed:>9.1f}  {verdict}"
        )
        if verdict != "OK":
            dearer.append(name)
    if dearer:
        print(f"dearer than {EXPECTED.name} allows: {', '.join(dearer)}", file=sys.stderr)
    return bool(dearer)


if __name__ == "__main__":
    sys.exit(main())
