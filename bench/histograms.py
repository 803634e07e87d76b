"""CPU and memory of `make_histogram` over many groups, beside the engine's own `sum` over the same rows.

    python bench/histograms.py [--rows 10000000] [--groups 100000] [--bins 100] [--memory-mb 64] [--repeat 3]

Each runs in a process of its own, with the environment of a server, whose peak of memory is printed; the CPU seconds
are the least of `--repeat` runs, taken in turn. These are `sum`, the histograms without a limit, and with a
limit that they exceed many times over, so that they must spill. The aim is 8 times the CPU seconds of `sum`. At last
one histogram of all rows, within the same limit.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext

from micromegas.cli.engine_process import ENGINE_ENVIRONMENT
from micromegas.query import functions

AIM = 8.0
HISTOGRAM = "make_histogram(0.0, 100.0, {bins}, value)"
STATEMENTS = {
    "sum": "SELECT key, sum(value) FROM measures GROUP BY key",
    "histograms": f"SELECT key, {HISTOGRAM} FROM measures GROUP BY key",
    "one histogram": f"SELECT {HISTOGRAM} FROM measures",
}


def write_measures(path: Path, rows: int, groups: int) -> None:
    """Values of random groups, so that each batch has rows of most groups."""
    random = np.random.default_rng(1)
    table = pa.table({"key": random.integers(0, groups, rows), "value": random.random(rows) * 100})
    pq.write_table(table, path)


def run(folder: Path, statement: str, memory_mb: int) -> dict[str, float]:
    """Runs a statement to its end; memory_mb = 0 sets no limit."""
    runtime = RuntimeEnvBuilder().with_disk_manager_specified(str(folder))
    if memory_mb:
        runtime = runtime.with_fair_spill_pool(memory_mb * 1024 * 1024)
    options = {"datafusion.execution.batch_size": "32768", "datafusion.sql_parser.dialect": "postgresql"}
    context = SessionContext(SessionConfig(options), runtime)
    functions.register(context)
    context.register_parquet("measures", str(folder / "measures.parquet"))
    begin = time.process_time()
    rows = sum(batch.to_pyarrow().num_rows for batch in context.sql(functions.expanded(statement)).execute_stream())
    cpu = time.process_time() - begin
    return {"cpu": cpu, "rows": rows, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def in_process(folder: Path, statement: str, memory_mb: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--run", statement, "--folder", str(folder), "--memory-mb", str(memory_mb)]
    environment = {**ENGINE_ENVIRONMENT, **os.environ}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--bins", type=int, default=100)
    parser.add_argument("--memory-mb", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run is not None:
        sys.stdout.write(json.dumps(run(arguments.folder, arguments.run, arguments.memory_mb)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_measures(folder / "measures.parquet", arguments.rows, arguments.groups)
        print(f"{arguments.rows} rows, {arguments.groups} groups, {arguments.bins} bins")
        limit = arguments.memory_mb
        cases = [("sum", 0), ("histograms", 0), ("histograms", limit), ("one histogram", limit)]
        best: dict[tuple[str, int], dict[str, float]] = {}
        for case in cases * arguments.repeat:
            found = in_process(folder, STATEMENTS[case[0]].format(bins=arguments.bins), case[1])
            best[case] = min(best.get(case, found), found, key=lambda run: run["cpu"])
        for (title, limit), found in best.items():
            told = f"limit {limit} MB" if limit else "no limit"
            print(
                f"{title:14} {told:12} {found['cpu']:6.2f} s CPU, {found['cpu'] / best[cases[0]]['cpu']:5.1f} x sum "
                f"(aim {AIM:g}), peak {found['peak_mb']:5.0f} MB, {found['rows']} rows"
            )


if __name__ == "__main__":
    main()
