"""What a block costs on the wire and in the thread that makes it: records + LZ4 against columns + zstd.

Run it: `PYTHONPATH=src:tests python bench/encoding.py`. Nothing of the data loops: every time, value and order comes
from a seeded generator or from a recording. Each mix says what is random in it, and the random ones what no encoding
can go below (the entropy of their times, sites and values). Bytes are those of the payload; ns are CPU time of this
thread per event, the best of several rounds: columns by `_core.columns_payload` (which also takes the records out of an
LZ4 frame that stores them as they are), back by `_core.transit_payload` (which also makes LZ4 of them), LZ4 by the C
library at its fastest level.
"""

from __future__ import annotations

import argparse
import math
import random
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cbor2
import lz4.frame
from codec.block_maker import BlockMaker, member, reference, udt
from e2e.recordings import recording

from micromegas import _core

COLUMNS = "micromegas-columns/1"
SEED = 20261122
TIME = "i64"

DEPENDENCIES = (
    udt("StaticString", 0),
    udt(
        "LogMetadataRecord",
        48,
        member("id", "u64", 0, 8),
        *(reference(name, 8 + 8 * index) for index, name in enumerate(("fmt_str", "target", "module_path", "file"))),
        member("line", "u32", 40, 4),
        member("level", "u32", 44, 4),
    ),
)
SPANS = tuple(
    udt(name, 16, reference("thread_span_desc", 0), member("time", TIME, 8, 8))
    for name in ("BeginThreadSpanEvent", "EndThreadSpanEvent")
)
METRICS = tuple(
    udt(name, 24, reference("desc", 0), member("value", type_name, 8, 8), member("time", TIME, 16, 8))
    for name, type_name in (("IntegerMetricEvent", "u64"), ("FloatMetricEvent", "f64"))
)
LOGS = (
    udt("LogStaticStrEvent", 16, reference("desc", 0), member("time", TIME, 8, 8)),
    udt("LogStringEventV2", 0),
    udt("TaggedLogString", 0),
    udt("LogTemplateEvent", 0),
)


@dataclass
class Mix:
    name: str
    maker: BlockMaker
    count: int
    floor: float | None = None
    """Bytes per event below which nothing can go, where that is known."""


class Clock:
    def __init__(self, source: random.Random, mean_ns: float) -> None:
        self._source = source
        self._mean = mean_ns
        self.now = 1_000_000_000_000

    def tick(self) -> int:
        self.now += 30 + int(self._source.expovariate(1 / self._mean))
        return self.now

    @property
    def bits(self) -> float:
        return math.log2(math.e * self._mean)


def describe(maker: BlockMaker, count: int, template: Callable[[int], str]) -> list[int]:
    target, file = maker.text("service.handlers"), maker.text("/srv/app/service/handlers.py")
    found = []
    for index in range(count):
        text = maker.text(template(index))
        body = struct.pack("<4QII", text, target, target, file, 10 + 7 * index, 4)
        found.append(maker.dependency("LogMetadataRecord", body))
    return found


def random_spans(count: int) -> Mix:
    source = random.Random(SEED)
    maker = BlockMaker(SPANS, DEPENDENCIES)
    sites = describe(maker, 50, "function_{}".format)
    clock = Clock(source, 10_000)
    open_sites: list[int] = []
    for _ in range(count):
        if open_sites and (len(open_sites) > 20 or source.random() < 0.5):
            maker.event("EndThreadSpanEvent", struct.pack("<Qq", open_sites.pop(), clock.tick()))
        else:
            open_sites.append(source.choice(sites))
            maker.event("BeginThreadSpanEvent", struct.pack("<Qq", open_sites[-1], clock.tick()))
    floor = (clock.bits + 1 + math.log2(50) / 2) / 8
    return Mix("spans, random: 50 sites, begin or end by coin, 10 µs ± exponential", maker, count, floor)


def realistic_spans(count: int) -> Mix:
    """A program of nested functions: which one calls which is fixed, how often and how long is not."""
    source = random.Random(SEED)
    maker = BlockMaker(SPANS, DEPENDENCIES)
    sites = describe(maker, 40, "function_{}".format)
    callees = [[child for child in range(3 * site + 1, 3 * site + 4) if child < 40] for site in range(40)]
    now, made = 1_000_000_000_000, 0

    def work(site: int) -> Iterator[tuple[str, int]]:
        yield "BeginThreadSpanEvent", site
        for callee in callees[site]:
            for _ in range(source.choice((0, 1, 1, 2))):
                yield from work(callee)
        yield "EndThreadSpanEvent", site

    while made < count:
        for name, site in work(0):
            now += 40 + int(source.lognormvariate(7.5 + site % 5 / 3, 0.7))
            maker.event(name, struct.pack("<Qq", sites[site], now))
            made += 1
    return Mix("spans, program: 40 functions, random repetitions, log-normal durations of some µs", maker, made)


def random_metrics(count: int) -> Mix:
    source = random.Random(SEED)
    maker = BlockMaker(METRICS, DEPENDENCIES)
    sites = describe(maker, 50, "metric_{}".format)
    clock = Clock(source, 1_000)
    for _ in range(count):
        site = source.randrange(50)
        value = source.randrange(200_000)
        if site % 2:
            maker.event("FloatMetricEvent", struct.pack("<Qdq", sites[site], value / 100, clock.tick()))
        else:
            maker.event("IntegerMetricEvent", struct.pack("<QQq", sites[site], value, clock.tick()))
    floor = (clock.bits + math.log2(50) + math.log2(200_000)) / 8
    return Mix("metrics, random: 50 names by dice, 200 000 values, 1 µs ± exponential", maker, count, floor)


def tight_metrics(count: int) -> Mix:
    source = random.Random(SEED)
    maker = BlockMaker(METRICS, DEPENDENCIES)
    sites = describe(maker, 50, "metric_{}".format)
    now = 1_000_000_000_000
    for index in range(count):
        site = index % 50
        value = source.randrange(200_000)
        now += 28 + min(int(source.expovariate(1 / 6)), 5_000)
        if site % 2:
            maker.event("FloatMetricEvent", struct.pack("<Qdq", sites[site], value / 100, now))
        else:
            maker.event("IntegerMetricEvent", struct.pack("<QQq", sites[site], value, now))
    floor = (math.log2(math.e * 6) + math.log2(200_000)) / 8
    return Mix("metrics, closed loop: 50 names in turn, 200 000 values, 34 ns apart", maker, count, floor)


def realistic_metrics(count: int) -> Mix:
    """A service: each frame some measures in a fixed order, sums that grow, gauges that walk, durations in ms."""
    source = random.Random(SEED)
    maker = BlockMaker(METRICS, DEPENDENCIES)
    sites = describe(maker, 24, "metric_{}".format)
    levels = [source.randrange(1, 10**6) for _ in sites]
    now, made = 1_000_000_000_000, 0
    while made < count:
        now += int(source.gauss(16_600_000, 400_000))
        for index, site in enumerate(sites):
            if index % 4 == 3 and source.random() < 0.5:
                continue
            now += 60 + int(source.expovariate(1 / 400))
            made += 1
            if index % 3 == 0:
                levels[index] += source.randrange(20)
                maker.event("IntegerMetricEvent", struct.pack("<QQq", site, levels[index], now))
            elif index % 3 == 1:
                levels[index] = max(0, levels[index] + int(source.gauss(0, 50)))
                maker.event("IntegerMetricEvent", struct.pack("<QQq", site, levels[index], now))
            else:
                value = round(source.lognormvariate(1 + index / 12, 0.3), 3)
                maker.event("FloatMetricEvent", struct.pack("<Qdq", site, value, now))
    return Mix("metrics, frames: 24 measures a frame: sums, walking gauges, durations with 3 decimals", maker, made)


def doubles(count: int) -> Mix:
    source = random.Random(SEED)
    maker = BlockMaker(METRICS, DEPENDENCIES)
    sites = describe(maker, 10, "metric_{}".format)
    clock = Clock(source, 1_000)
    for _ in range(count):
        body = struct.pack("<Qdq", source.choice(sites), source.random(), clock.tick())
        maker.event("FloatMetricEvent", body)
    floor = (clock.bits + math.log2(10) + 53) / 8
    return Mix("metrics, doubles with 53 random bits (no decimals to find)", maker, count, floor)


TEXT, INTEGER, FLOAT = 5, 3, 4


def value(each: object) -> bytes:
    if isinstance(each, str):
        raw = each.encode()
        return struct.pack("<BI", TEXT, len(raw)) + raw
    if isinstance(each, float):
        return struct.pack("<Bd", FLOAT, each)
    return struct.pack("<Bq", INTEGER, each)


def logs(count: int, *, as_text: bool, mean_ns: float) -> Mix:
    source = random.Random(SEED)
    templates: list[tuple[str, Callable[[], tuple[object, ...]]]] = [
        ("loaded %s in %d ms", lambda: (f"asset_{source.randrange(2000)}", source.randrange(400))),
        (
            "request %d from %s took %.2f ms",
            lambda: (source.randrange(10**6), source.choice(users), round(source.lognormvariate(2, 0.5), 2)),
        ),
        ("cache hit ratio %.3f", lambda: (round(source.random(), 3),)),
        ("worker %d started", lambda: (source.randrange(64),)),
        ("user %s logged in", lambda: (source.choice(users),)),
        (
            "connection to %s:%d closed after %d bytes",
            lambda: (
                f"10.0.{source.randrange(4)}.{source.randrange(256)}",
                source.randrange(1024, 65536),
                source.randrange(10**5),
            ),
        ),
        ("tick", lambda: ()),
        ("queue length %d", lambda: (int(abs(source.gauss(0, 40))),)),
    ]
    users = [f"{source.choice(('ada', 'grace', 'alan', 'edsger'))}{source.randrange(1000)}" for _ in range(500)]
    maker = BlockMaker(LOGS, DEPENDENCIES)
    sites = describe(maker, len(templates), lambda index: templates[index][0])
    clock = Clock(source, mean_ns)
    for _ in range(count):
        index = source.randrange(len(templates))
        template, values = templates[index]
        made = values()
        if not made:
            maker.event("LogStaticStrEvent", struct.pack("<Qq", sites[index], clock.tick()))
        elif as_text:
            raw = (template % made).encode()
            body = struct.pack("<QqBI", sites[index], clock.tick(), 2, len(raw)) + raw
            maker.event("LogStringEventV2", body)
        else:
            body = struct.pack("<QQqB", sites[index], 0, clock.tick(), len(made)) + b"".join(map(value, made))
            maker.event("LogTemplateEvent", body)
    kept = "made to texts before" if as_text else "templates and values apart"
    return Mix(
        f"logs, {kept}: 8 sites by dice, 0 to 3 random values, {mean_ns / 1000:g} µs ± exponential", maker, count
    )


def mixes(count: int) -> Iterator[Mix]:
    yield random_spans(count)
    yield realistic_spans(count)
    yield random_metrics(count)
    yield tight_metrics(count)
    yield realistic_metrics(count)
    yield doubles(count)
    yield logs(count, as_text=False, mean_ns=10_000)
    yield logs(count, as_text=True, mean_ns=10_000)


def stored(content: bytes) -> bytes:
    """An LZ4 frame that holds the bytes as they are."""
    pieces = [content[start : start + (4 << 20)] for start in range(0, len(content), 4 << 20)]
    return (
        b"\x04\x22\x4d\x18\x60\x70\x73"
        + b"".join(struct.pack("<I", len(piece) | 1 << 31) + piece for piece in pieces)
        + bytes(4)
    )


def best_ns(call: Callable[[], object], rounds: int) -> int:
    def once() -> int:
        start = time.thread_time_ns()
        call()
        return time.thread_time_ns() - start

    return min(once() for _ in range(rounds))


def report(name: str, count: int, metadata: tuple[bytes, bytes], buffers: tuple[bytes, bytes], rounds: int) -> str:
    dependencies, objects = buffers
    payload = cbor2.dumps({"dependencies": stored(dependencies), "objects": stored(objects)})
    packed = [lz4.frame.compress(buffer, store_size=False) for buffer in buffers]
    columns = _core.columns_payload(*metadata, payload)
    column_ns = best_ns(lambda: _core.columns_payload(*metadata, payload), rounds)
    lz4_ns = best_ns(lambda: [lz4.frame.compress(buffer, store_size=False) for buffer in buffers], rounds)
    back_ns = best_ns(lambda: _core.transit_payload(*metadata, columns), rounds)
    figures = (
        len(dependencies) + len(objects),
        sum(map(len, packed)),
        len(columns),
    )
    raw, transit, encoded = (figure / count for figure in figures)
    return (
        f"| {name} | {count} | {raw:.1f} | {transit:.2f} | **{encoded:.2f}** | "
        f"{lz4_ns / count:.0f} | {column_ns / count:.0f} | {back_ns / count:.0f} |"
    )


def recorded_blocks(scenario: str) -> Iterator[tuple[str, int, tuple[bytes, bytes], tuple[bytes, bytes]]]:
    """The largest block of each tag of a recording."""
    requests = [(request.path, request.body) for request in recording(scenario).requests]
    streams = {
        fields[1]: fields for fields in (_core.parse_stream(body) for path, body in requests if "stream" in path)
    }
    largest: dict[str, tuple[int, tuple[bytes, bytes], bytes]] = {}
    for path, body in requests:
        if not path.endswith("block"):
            continue
        fields = _core.parse_block(body)
        stream = streams[fields[1]]
        tag = stream[4][0]
        if tag not in largest or fields[9] > largest[tag][0]:
            largest[tag] = (fields[9], (stream[2], stream[3]), fields[7])
    for tag, (count, metadata, payload) in largest.items():
        frames = cbor2.loads(payload)
        buffers = lz4.frame.decompress(frames["dependencies"]), lz4.frame.decompress(frames["objects"])
        yield f"recorded: {scenario}, {tag}", count, metadata, buffers


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=40_000)
    arguments.add_argument("--rounds", type=int, default=7)
    chosen = arguments.parse_args()
    print("| data | events | raw B | records + LZ4 B | columns B | LZ4 ns | columns ns | back ns |")
    print("|---|---|---|---|---|---|---|---|")
    for mix in mixes(chosen.events):
        maker = mix.maker
        buffers = bytes(maker.dependency_bytes), bytes(maker.event_bytes)
        name = mix.name if mix.floor is None else f"{mix.name}; floor {mix.floor:.2f} B"
        print(report(name, mix.count, maker.metadata(), buffers, chosen.rounds), flush=True)
    for scenario in ("service", "unreal_synth"):
        for name, count, metadata, buffers in recorded_blocks(scenario):
            print(report(name, count, metadata, buffers, chosen.rounds), flush=True)


if __name__ == "__main__":
    main()
