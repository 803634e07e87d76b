"""How many bytes a row of each view takes in Parquet, by column, beside what pyarrow's own defaults make of the rows.

    python bench/row_sizes.py [--columns]

The rows come the product's way, from blocks in a lake to partitions, out of recorded traffic that does not repeat
itself: the service (its logs, measures and thread spans as recorded; its spans as asynchronous ones, too), the sessions
with images and network packets, and requests of OTLP with random ids. `--columns` adds each column's bytes a row and
its encodings. Peers of the same run: the same rows in the same order by `pyarrow.parquet.write_table` as it comes
(snappy, dictionaries everywhere), and with zstd. Limits: 7 bytes a span, 3 bytes a measure.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from materialize import ingest as ingest_changed
from otlp import traces_request
from traffic import load_scenario

# In place of this folder, whose `query` would hide that of the tests.
sys.path.remove(str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from daemon.log_minutes import keep_stats
from daemon.telemetry import HandClock, cover
from e2e.recordings import VECTORS
from query.asking import ask

from micromegas.config import LakeSettings, QuerySettings
from micromegas.daemon.insert_clock import MINUTE, SECOND
from micromegas.ingest.otlp import otlp_batch
from micromegas.lake import Lake
from micromegas.query import QueryEngine
from micromegas.views.catalogue import VIEW_SETS
from micromegas.wire.otlp import decode_otlp

LIMITS = {"thread_spans": 7.0, "async_spans": 7.0, "measures": 3.0}
VIEWS = (
    "log_entries",
    "measures",
    "thread_spans",
    "async_events",
    "async_spans",
    "otel_spans",
    "net_spans",
    "images",
    "log_stats",
)
OTLP_SPANS = 20_000
END_OF_TIME = 4_000_000_000 * SECOND


@dataclass(frozen=True, slots=True)
class Stored:
    """The partitions of a view, in bytes, and their rows as they lie in them."""

    view: str
    files: list[bytes]

    @property
    def rows(self) -> int:
        return sum(pq.ParquetFile(io.BytesIO(file)).metadata.num_rows for file in self.files)

    @property
    def bytes_per_row(self) -> float:
        return sum(map(len, self.files)) / self.rows

    def written_by_pyarrow(self, **options: str) -> float:
        """Bytes a row of the same tables with pyarrow's defaults, but for `options`."""
        written = 0
        for file in self.files:
            sink = io.BytesIO()
            pq.write_table(pq.read_table(io.BytesIO(file)), sink, **options)
            written += sink.tell()
        return written / self.rows

    def columns(self) -> Iterator[str]:
        """A line for each column that takes more than a hundredth of a byte: its bytes a row, and its encodings."""
        taken: dict[str, int] = {}
        encodings: dict[str, set[str]] = {}
        for file in self.files:
            metadata = pq.ParquetFile(io.BytesIO(file)).metadata
            for group in range(metadata.num_row_groups):
                for index in range(metadata.num_columns):
                    column = metadata.row_group(group).column(index)
                    name = column.path_in_schema
                    taken[name] = taken.get(name, 0) + column.total_compressed_size
                    encodings.setdefault(name, set()).update(column.encodings)
        for name, size in sorted(taken.items(), key=lambda each: -each[1]):
            if size / self.rows >= 0.01:
                yield f"    {name:<24}{size / self.rows:8.2f}  {', '.join(sorted(encodings[name]))}"


def stored(lake: Lake, view: str) -> Stored:
    paths = [each.file_path for each in lake.metadata.all_partitions() if each.view_set == view]
    return Stored(view, [lake.objects.get(path) for path in paths if path is not None])


def spans_of_otlp(count: int) -> bytes:
    """A request whose spans have random ids, as tracers give them, ten to a trace, and last some ms."""
    source = random.Random(1)
    request = traces_request(count)
    now = request.resource_spans[0].scope_spans[0].spans[0].start_time_unix_nano
    trace = b""
    for number, span in enumerate(request.resource_spans[0].scope_spans[0].spans):
        trace = source.randbytes(16) if number % 10 == 0 else trace
        now += int(source.expovariate(1e-6))
        span.trace_id, span.span_id = trace, source.randbytes(8)
        span.start_time_unix_nano = now
        span.end_time_unix_nano = now + int(source.lognormvariate(15, 0.7))
    return bytes(request.SerializeToString())


def fill(lake: Lake) -> None:
    """Everything that the views are made of, in blocks."""
    for scenario in ("service", "unreal_synth", "images"):
        lake.commit(load_scenario(VECTORS / scenario))
    ingest_changed(lake, load_scenario(VECTORS / "service"), 1, asynchronous=True)
    resources = decode_otlp("traces", spans_of_otlp(OTLP_SPANS), is_json=False, max_bytes=1 << 30)
    lake.commit(otlp_batch("traces", resources, lake.clock))


def build(lake: Lake, engine: QueryEngine, clock: HandClock) -> None:
    """Partitions of every view that has any."""
    for view in ("log_entries", "measures", "otel_spans"):
        cover(lake, VIEW_SETS[view], clock)
    keep_stats(lake, engine, clock)
    streams = lake.metadata.stream_rows()
    instances = [("thread_spans", stream.stream_id) for stream in streams if "cpu" in stream.tags]
    for process in sorted({stream.process_id for stream in streams}):
        instances += [(view, process) for view in ("async_events", "async_spans", "net_spans", "images")]
    for view, instance in instances:
        ask(engine, f"SELECT count(*) FROM view_instance('{view}', '{instance}')", begin=0, end=END_OF_TIME)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", action="store_true")
    options = parser.parse_args()
    clock = HandClock()
    within = True
    with (
        tempfile.TemporaryDirectory(prefix="mm-bench-") as folder,
        Lake.open(LakeSettings(lake_dir=Path(folder)), clock) as lake,
    ):
        fill(lake)
        clock.now += 2 * MINUTE
        engine = QueryEngine(lake, QuerySettings())
        try:
            build(lake, engine, clock)
        finally:
            engine.close()
        print(f"{'bytes a row':<14}{'rows':>9}{'ours':>8}{'pyarrow':>9}{'its zstd':>9}  ours / its zstd")
        for view in VIEWS:
            each = stored(lake, view)
            ours = each.bytes_per_row
            snappy, zstd = each.written_by_pyarrow(), each.written_by_pyarrow(compression="zstd")
            limit = LIMITS.get(view)
            within &= limit is None or ours <= limit
            print(
                f"{view:<14}{each.rows:>9}{ours:8.1f}{snappy:9.1f}{zstd:9.1f}{ours / zstd:8.2f}"
                f"{'' if limit is None else f'   limit {limit:g}'}"
            )
            if options.columns:
                print(*each.columns(), sep="\n")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
