"""What a query decoded of the tail is there for the next one, within its bytes, and never instead of other rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pyarrow as pa
import pytest
from query.asking import ask, column, one
from query.conftest import SETTINGS
from query.traffic import MadeTraffic, materialize

from micromegas.config import QuerySettings
from micromegas.lake import BlockRow, Lake
from micromegas.query import QueryEngine, QueryError, tail
from micromegas.query.hot_blocks import HotBlocks
from micromegas.views.log_entries import LOG_ENTRIES
from micromegas.views.measures import MEASURES


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the payload of each block was read to be decoded."""
    counted: Counter[str] = Counter()
    original = Lake.read_payloads

    def counting(lake: Lake, rows: Sequence[BlockRow]) -> list[bytes]:
        counted.update(row.block_id for row in rows)
        return original(lake, rows)

    monkeypatch.setattr(Lake, "read_payloads", counting)
    return counted


def test_a_dashboard_decodes_each_block_once(lake: Lake, engine: QueryEngine, read: Counter[str]) -> None:
    traffic = MadeTraffic(lake)
    for number in range(10):
        block = traffic.logs(f"{number}", "x")
        traffic.values(1.0, 2.0)
        found = ask(engine, "SELECT count(*), count(DISTINCT msg) FROM log_entries")
        assert (column(found, 0), column(found, 1)) == ([2 * number + 2], [number + 2])
        assert one(ask(engine, "SELECT sum(value) FROM measures")) == 3.0 * (number + 1)
        assert read[block.block_id] == 1
    assert set(read.values()) == {1}
    # Partitions take over.
    materialize(lake, LOG_ENTRIES, pieces=2)
    assert one(ask(engine, "SELECT count(*) FROM log_entries")) == 20


def test_a_broken_block_is_tried_each_time_and_hides_nothing(
    local_lake: Lake, local_engine: QueryEngine, read: Counter[str]
) -> None:
    traffic = MadeTraffic(local_lake)
    good = traffic.logs("a")
    broken = traffic.broken_logs()
    for _ in range(3):
        assert one(ask(local_engine, "SELECT count(*) FROM log_entries")) == 1
    assert read == {good.block_id: 1, broken.block_id: 3}
    assert column(ask(local_engine, "SELECT block_id FROM list_block_errors()")) == [broken.block_id]


@pytest.mark.parametrize("seed", range(4))
def test_within_its_bytes_and_like_a_fresh_look(local_lake: Lake, seed: int) -> None:
    random = Random(seed)
    traffics = [MadeTraffic(local_lake, number + 1) for number in range(2)]
    hot = HotBlocks(local_lake, random.choice([0, 2_000, 20_000, 2**30]))
    sent = 0
    for _ in range(25):
        traffic = random.choice(traffics)
        kind = random.randrange(8)
        if kind == 0:
            traffic.broken_logs()
        elif kind < 3:
            traffic.values(random.random())
        else:
            sent += 1
            traffic.logs(*(f"{sent}-{place}" for place in range(random.randrange(1, 20))))
        view_set = random.choice([LOG_ENTRIES, MEASURES])
        assert view_set.decoded is not None
        known = local_lake.metadata.blocks(tag=view_set.decoded.stream_tag)
        blocks = random.sample(known, random.randrange(len(known) + 1))
        fresh = HotBlocks(local_lake, 0)
        assert rows_of(hot.rows(view_set, blocks)) == rows_of(fresh.rows(view_set, blocks))
        assert sum(batch.nbytes for batch in hot._kept.values()) <= hot._bytes <= hot._max_bytes


def rows_of(batches: Iterator[pa.RecordBatch]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for batch in batches:
        assert batch.schema.field("time").type == pa.timestamp("ns", "+00:00")
        columns = [
            each.cast(pa.int64()) if pa.types.is_timestamp(each.type) else each.cast(plain_type(each.type))
            for each in batch.columns
        ]
        counted.update(map(str, zip(*(each.to_pylist() for each in columns), strict=True)))
    return counted


def plain_type(data_type: pa.DataType) -> pa.DataType:
    return data_type.value_type if pa.types.is_dictionary(data_type) else data_type


def test_queries_at_once_share_what_is_kept(lake: Lake, engine: QueryEngine) -> None:
    traffic = MadeTraffic(lake)
    for number in range(30):
        traffic.logs(f"{number}")
    with ThreadPoolExecutor(8) as threads:
        counts = list(threads.map(lambda _: one(ask(engine, "SELECT count(*) FROM log_entries")), range(16)))
    assert counts == [30] * 16


def test_a_tail_beyond_the_budget_is_told_and_not_cut(
    local_lake: Lake, monkeypatch: pytest.MonkeyPatch, read: Counter[str]
) -> None:
    traffic = MadeTraffic(local_lake)
    blocks = [traffic.logs(f"{number}", "x" * 100) for number in range(6)]
    size = sum(row.payload_size for row in local_lake.metadata.blocks())
    engine = QueryEngine(local_lake, QuerySettings(tail_bytes=size - 1))
    try:
        with pytest.raises(QueryError, match="let the daemon catch up or narrow the range") as failure:
            ask(engine, "SELECT count(*) FROM log_entries")
        assert failure.value.kind == "exhausted"
        assert not read, "nothing is decoded for an answer that can't be whole"
        monkeypatch.setattr(tail, "MAX_TAIL_BLOCKS", 5)
        with pytest.raises(QueryError, match="more than 5 blocks"):
            ask(engine, "SELECT count(*) FROM log_entries")
    finally:
        engine.close()
    enough = QueryEngine(local_lake, SETTINGS)
    monkeypatch.setattr(tail, "MAX_TAIL_BLOCKS", len(blocks))
    try:
        assert one(ask(enough, "SELECT count(*) FROM log_entries")) == 12
    finally:
        enough.close()
