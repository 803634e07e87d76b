"""How long a service's telemetry takes from its first request to the first complete answer in SQL, and how much memory.

    python bench/service.py [--rounds 3] [--memory-limit-mb 512]

Posts the recorded traffic of a service (470 505 events in 13 blocks) to a fresh `micromegas serve` and asks one
question over all of its logs, measures and spans until the answer is complete. Beside it, in the same run, the floor:
the same requests posted to a bare handler of the same HTTP server, plus pyarrow writing the finished rows to Parquet
files with the same options. It must never count the start of a server, nor what was warmed by an earlier round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import pyarrow as pa
from e2e.posting import Sender, assert_all_accepted, post_all
from e2e.recordings import VECTORS, Request
from e2e.serving import serving
from ingest import bare_process, cpu_seconds

from micromegas.client import Client
from micromegas.config import LakeSettings, QuerySettings
from micromegas.views.catalogue import VIEW_SETS
from micromegas.views.partition_writer import RowFile

MIB = 1024 * 1024
CONNECTIONS = 3
"""As the original's sender has."""
EVENTS = 470_505
COUNTS = {"logs": 20_505, "measures": 50_000, "spans": 200_004}
"""Rows: two events are one span, and each of the four threads has a root."""
ALL_TIME = ("1970-01-02T00:00:00Z", "2200-01-01T00:00:00Z")


@dataclass(frozen=True, slots=True)
class Measured:
    """One round: wall seconds and CPU seconds of the server, its peak memory in bytes."""

    posting: float
    complete: float
    cpu: float
    peak_memory: int


@dataclass(frozen=True, slots=True)
class Floor:
    """Wall seconds of what nobody can do without."""

    posting: float
    writing: float

    @property
    def total(self) -> float:
        return self.posting + self.writing


def recorded_requests() -> tuple[list[Request], list[str]]:
    """The requests in recorded order, and the ids of the streams that hold spans."""
    folder = VECTORS / "service"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    requests = [Request(each["path"], (folder / each["file"]).read_bytes()) for each in manifest["requests"]]
    streams = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*insert_stream.expected.json")]
    return requests, [stream["stream_id"] for stream in streams if "cpu" in stream["tags"]]


def views(threads: list[str]) -> dict[str, tuple[str, list[str]]]:
    """By kind of row: the view set, and what stands behind FROM for it."""
    return {
        "logs": ("log_entries", ["log_entries"]),
        "measures": ("measures", ["measures"]),
        "spans": ("thread_spans", [f"view_instance('thread_spans', '{each}')" for each in threads]),
    }


def question(threads: list[str]) -> str:
    """Rows of each kind and a sum over a column of theirs, in one statement."""
    summed = {"logs": "sum(character_length(msg))", "measures": "sum(value)", "spans": "sum(duration)"}
    kinds = []
    for kind, (_, tables) in views(threads).items():
        rows = " UNION ALL ".join(f"SELECT * FROM {table}" for table in tables)
        kinds.append(f"(SELECT count(*) AS {kind}, {summed[kind]} AS {kind}_sum FROM ({rows}))")
    return f"SELECT * FROM {' CROSS JOIN '.join(kinds)}"


def is_complete(answer: pa.Table) -> bool:
    return all(answer[kind].to_pylist() == [count] for kind, count in COUNTS.items())


def measure(
    settings: LakeSettings, arguments: tuple[str, ...], requests: list[Request], threads: list[str]
) -> tuple[Measured, dict[str, list[pa.Table]]]:
    """A round on a fresh lake, and the rows of each view set."""
    sql = question(threads)
    with serving(settings, "serve", *arguments) as service, Client(f"grpc://127.0.0.1:{service.flight_port}") as client:
        assert service.query("SELECT 1").num_rows == 1
        cpu_before = cpu_seconds(service.pid)
        begun = time.perf_counter()
        assert_all_accepted(requests, post_all(service.http_port, requests, CONNECTIONS))
        posted = time.perf_counter()
        while not is_complete(client.query(sql, *ALL_TIME)):
            time.sleep(0.01)
        complete = time.perf_counter()
        measured = Measured(
            posted - begun, complete - begun, cpu_seconds(service.pid) - cpu_before, service.peak_memory()
        )
        with Client(f"grpc://127.0.0.1:{service.flight_port}", preserve_dictionary=True) as keeping:
            rows = {
                view: [keeping.query(f"SELECT * FROM {table}", *ALL_TIME) for table in tables]
                for view, tables in views(threads).values()
            }
    return measured, rows


def post_to_bare_handler(requests: list[Request]) -> float:
    """Wall seconds of the same requests to a handler that only reads them."""
    with bare_process() as (_, port):
        Sender(port).post("/", b"")
        begun = time.perf_counter()
        assert_all_accepted(requests, post_all(port, requests, CONNECTIONS))
        return time.perf_counter() - begun


def write_rows(rows: dict[str, list[pa.Table]], folder: Path) -> float:
    """Wall seconds of pyarrow writing finished rows, a file per view instance, with the options of partitions."""
    seconds = 0.0
    for view, tables in rows.items():
        for number, table in enumerate(tables):
            finished = table.cast(VIEW_SETS[view].schema).combine_chunks()
            begun = time.perf_counter()
            file = RowFile(folder / f"{view}-{number}.parquet", VIEW_SETS[view])
            file.write(finished)
            file.close()
            seconds += time.perf_counter() - begun
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-limit-mb", type=int, default=QuerySettings().memory_bytes // MIB)
    options = parser.parse_args()
    requests, threads = recorded_requests()
    limit = ("--memory-limit-mb", str(options.memory_limit_mb))
    measured: list[Measured] = []
    floors: list[Floor] = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="mm-bench-") as folder:
            one, rows = measure(LakeSettings(lake_dir=Path(folder) / "lake"), limit, requests, threads)
            measured.append(one)
            floors.append(Floor(post_to_bare_handler(requests), write_rows(rows, Path(folder))))

    def median(values: list[float]) -> float:
        return statistics.median(values)

    ours = median([each.complete for each in measured])
    floor = median([each.total for each in floors])
    sent = sum(len(each.body) for each in requests)
    print(f"{EVENTS} events in {sent / MIB:.1f} MiB, {CONNECTIONS} connections, median of {options.rounds} rounds")
    print(f"first request to first complete answer  {ours:6.2f} s wall  ({ours / floor:.1f} x the floor)")
    print(f"  of it until the last 200              {median([each.posting for each in measured]):6.2f} s")
    print(f"  CPU of the server                     {median([each.cpu for each in measured]):6.2f} s")
    print(f"floor                                   {floor:6.2f} s wall")
    print(f"  posting to a bare handler             {median([each.posting for each in floors]):6.2f} s")
    print(f"  pyarrow writing the rows              {median([each.writing for each in floors]):6.2f} s")
    peak = max(each.peak_memory for each in measured) / MIB
    print(
        f"peak memory of the server               {peak:6.0f} MiB  (queries limited to {options.memory_limit_mb} MiB)"
    )


if __name__ == "__main__":
    main()
