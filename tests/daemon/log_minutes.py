"""Log events at chosen minutes, levels and targets, and what `log_stats` must count of them, in plain Python."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

import pyarrow as pa
from daemon.telemetry import MIDNIGHT, always
from e2e import made_traffic as made
from query.asking import ask

from micromegas.daemon.fresh_partitions import FreshPartitions
from micromegas.daemon.insert_clock import MINUTE
from micromegas.daemon.merge_buckets import TIERS
from micromegas.daemon.merging import Merging
from micromegas.daemon.reduced_partitions import ReducedPartitions
from micromegas.lake import Lake
from micromegas.query import QueryEngine
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.view_set import ViewSet
from micromegas.wire import Batch, Block, Process, Stream

LEVELS = (2, 4)
TARGETS = ("shop::orders", "shop::cache")

Event = tuple[int, int, str]
"""Minute since `made.START_TIME`, level, target."""
Key = tuple[int, str, int, str]
"""Minute of an event as ns since the epoch, process, level, target."""

ALL_STATS = "SELECT time_bin, process_id, level, target, count FROM log_stats"
GROUPED = (
    "SELECT date_bin(INTERVAL '1 minute', time) AS time_bin, process_id, level, target, count(*) AS count "
    "FROM log_entries GROUP BY 1, 2, 3, 4"
)


class LogMinutes:
    """A process that logs at minutes it is told; remembers what it logged."""

    def __init__(self, lake: Lake, seed: int = 1) -> None:
        self._lake = lake
        process = made.MadeProcess(Random(seed), exe=f"program {seed}")
        self.process_id = process.process_id
        self._stream = process.stream("log")
        self.logged: list[Event] = []
        lake.commit(Batch([Process.decode(process.request().body)], [Stream.decode(self._stream.request().body)]))

    def send(self, events: Sequence[Event]) -> Block:
        """Commit a block of events."""
        texts = [made.text_dependency(1, "{}")]
        texts += [made.text_dependency(2 + index, target) for index, target in enumerate(TARGETS)]
        for index in range(len(TARGETS)):
            for level in LEVELS:
                number = 100 + 10 * index + level
                texts.append(struct.pack("<BQQQII", 1, number, 1, 2 + index, level, 12))
        records = []
        for minute, level, target in events:
            number = 100 + 10 * TARGETS.index(target) + level
            ticks = made.START_TICKS + minute * MINUTE + self._stream.random.randrange(MINUTE)
            records.append(made.dynamic(0, struct.pack("<Qq", number, ticks) + made.encoded_string("said")))
        self._stream.now = min((minute for minute, *_ in events), default=0) * MINUTE
        span = (max((minute for minute, *_ in events), default=0) + 1) * MINUTE - self._stream.now
        fields: dict[str, Any] = self._stream.fields(b"".join(texts), b"".join(records), len(records), span)
        block = Block.decode(made.block_request(fields).body)
        self._lake.commit(Batch(blocks=[block]))
        self.logged += events
        return block


def random_events(random: Random, count: int) -> list[Event]:
    return [(random.randrange(5), random.choice(LEVELS), random.choice(TARGETS)) for _ in range(count)]


def counted(processes: Iterable[LogMinutes], minutes: range | None = None) -> Counter[Key]:
    """What `log_stats` must hold, at most for some minutes."""
    return Counter(
        (made.START_TIME + minute * MINUTE, process.process_id, level, target)
        for process in processes
        for minute, level, target in process.logged
        if minutes is None or minute in minutes
    )


def counts(table: pa.Table) -> Counter[Key]:
    """The rows of an answer; each key must be there once."""
    times = table["time_bin"].cast(pa.int64()).to_pylist()
    others = [table[name].to_pylist() for name in ("process_id", "level", "target")]
    keys = list(zip(times, *others, strict=True))
    assert len(set(keys)) == len(keys), "rows are not fully reduced"
    return Counter(dict(zip(keys, table["count"].to_pylist(), strict=True)))


def asked(engine: QueryEngine, sql: str = ALL_STATS, **request: Any) -> Counter[Key]:
    return counts(ask(engine, sql, **request))


def kept(lake: Lake, engine: QueryEngine, clock: Callable[[], int], name: str = "log_stats") -> ReducedPartitions:
    """The keeper of a view defined by SQL."""
    return ReducedPartitions(lake, reduced_view_set(engine, name), engine.reductions, clock)


def reduced_view_set(engine: QueryEngine, name: str = "log_stats") -> ViewSet:
    return next(view_set for view_set in engine.reductions.view_sets if view_set.name == name)


def keep_logs(lake: Lake, clock: Callable[[], int]) -> None:
    """All that is due for `log_entries`."""
    assert FreshPartitions(lake, LOG_ENTRIES, clock).cover(MIDNIGHT, always) == 0
    for tier in TIERS:
        assert Merging(lake, LOG_ENTRIES, tier, clock).merge(always) == 0


def keep_stats(lake: Lake, engine: QueryEngine, clock: Callable[[], int], name: str = "log_stats") -> None:
    """All that is due for a view defined by SQL."""
    keeper = kept(lake, engine, clock, name)
    assert keeper.cover(MIDNIGHT, always) == 0
    for tier in keeper.tiers:
        assert keeper.merge(tier, always) == 0
