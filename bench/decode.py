"""How much CPU it takes to turn stored blocks into Arrow rows, beside the floor of only decompressing them.

    python bench/decode.py [--repeat 20]

Prints, for each builder over the recorded `service` session, millions of events per CPU-second (the best of the
repeats, one thread) for: decompressing the same buffers with liblz4 (the floor); the builder with its batch (the
product); the same events as Python dicts (`decode_events`). It must never count the reading of the recording.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cbor2
import lz4.frame

from micromegas import _core
from micromegas._engine import AsyncEventsBuilder, LogEntriesBuilder, MeasuresBuilder, ThreadSpansBuilder

REPOSITORY = Path(__file__).resolve().parent.parent


def best_cpu_seconds(work: Callable[[], object], repeat: int) -> float:
    def once() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return min(once() for _ in range(repeat))


def rows(
    make: Callable[[], LogEntriesBuilder | MeasuresBuilder | AsyncEventsBuilder], blocks: list[SimpleNamespace]
) -> None:
    builder = make()
    for block in blocks:
        builder.append(block)
    builder.take()


def spans(blocks: list[SimpleNamespace]) -> None:
    for stream_id in {block.stream_id for block in blocks}:
        builder = ThreadSpansBuilder(stream_id)
        for block in blocks:
            if block.stream_id == stream_id:
                builder.append(block)
        builder.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=20)
    repeat = parser.parse_args().repeat
    # the tests know how a recording becomes blocks; their folder is on no path by itself
    sys.path[:0] = [str(REPOSITORY / "tests")]
    from engine.test_builders import Sources

    session = Sources("service")
    cases: list[tuple[str, str, Callable[[list[SimpleNamespace]], None]]] = [
        ("log_entries", "log", lambda blocks: rows(LogEntriesBuilder, blocks)),
        ("measures", "metrics", lambda blocks: rows(MeasuresBuilder, blocks)),
        ("thread_spans", "cpu", spans),
    ]
    print(f"{'view':14}{'events':>8}{'floor':>10}{'builder':>10}{'dicts':>10}   (million events per CPU-second)")
    for view, tag, build in cases:
        pairs = session.tagged(tag)
        events = sum(len(block.events) for _, block in pairs)
        blocks = sorted((session.source(*pair) for pair in pairs), key=lambda block: block.begin_ticks)
        buffers = [buffer for block in blocks for buffer in cbor2.loads(block.payload).values()]
        layouts = [(block.dependencies_metadata, block.objects_metadata, block.payload) for block in blocks]
        measured = [
            best_cpu_seconds(work, repeat)
            for work in (
                lambda buffers=buffers: [lz4.frame.decompress(buffer) for buffer in buffers],
                lambda build=build, blocks=blocks: build(blocks),
                lambda layouts=layouts: [_core.decode_events(*layout) for layout in layouts],
            )
        ]
        print(f"{view:14}{events:8}" + "".join(f"{events / seconds / 1e6:10.1f}" for seconds in measured))


if __name__ == "__main__":
    main()
