"""What `import micromegas` takes of a program's start.

    python bench/start.py [--runs 40]

Interpreters are started in turn, one that imports nothing, one for each of the modules; of the CPU times of each the
least counts. Beside ours: modules that most programs import.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

LIMIT_MS = 30
MODULES = ["", "micromegas", "logging", "asyncio", "json, urllib.request"]


def cpu_ms(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    options = parser.parse_args()
    best = dict.fromkeys(MODULES, float("inf"))
    for _ in range(options.runs):
        for names in MODULES:
            best[names] = min(best[names], cpu_ms(f"import {names}" if names else "pass"))
    nothing = best.pop("")
    print(f"CPython {sys.version.split()[0]}; an interpreter that imports nothing: {nothing:.1f} ms of CPU")
    for names, ms in best.items():
        verdict = ("  OK" if ms - nothing <= LIMIT_MS else "  over") if names == "micromegas" else ""
        limit = f", limit {LIMIT_MS}" if names == "micromegas" else ""
        print(f"import {names:<24}{ms - nothing:>7.1f} ms more{limit}{verdict}")


if __name__ == "__main__":
    main()
