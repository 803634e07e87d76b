"""Blocks are cut the same way by everybody, and a source hash tells one set of blocks from another."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from micromegas.lake import STAMP_MARGIN, BlockRow, Partition
from micromegas.views.block_groups import DAY, BlockGroup, block_groups
from micromegas.views.carried import in_tick_order
from micromegas.views.coverage import uncovered
from micromegas.views.partition_writer import InsertRange, source_hash, sum_source_hashes

MORNING = 20_000 * DAY + DAY // 4


def block(number: int, insert_time: int, nb_objects: int = 10) -> BlockRow:
    return BlockRow(
        block_id=f"{number:08}",
        stream_id="stream",
        process_id="process",
        begin_time=number * 100,
        begin_ticks=number,
        end_time=number * 100 + 99,
        end_ticks=number + 1,
        nb_objects=nb_objects,
        object_offset=0,
        payload_size=1,
        insert_time=insert_time,
        object_key="key",
        payload_offset=0,
        min_event_time=number * 1000,
        max_event_time=number * 1000 + 999,
    )


def test_groups_are_full_and_in_order() -> None:
    blocks = [block(number, MORNING + number) for number in range(10)]
    groups = block_groups(blocks, max_objects=40)
    assert [len(group.blocks) for group in groups] == [4, 4, 2]
    assert [each for group in groups for each in group.blocks] == blocks
    assert [group.insert_range for group in groups] == [
        InsertRange(MORNING, MORNING + 4),
        InsertRange(MORNING + 4, MORNING + 8),
        InsertRange(MORNING + 8, MORNING + 10),
    ]
    assert groups[0].event_bounds == (-STAMP_MARGIN, 3999 + STAMP_MARGIN)
    of_no_clock = replace(blocks[0], min_event_time=None, max_event_time=None)
    (group,) = block_groups([of_no_clock, *blocks[1:]])
    assert group.event_bounds == (-(2**63), 2**63 - 1)


def test_one_insert_time_is_never_parted() -> None:
    blocks = [block(number, MORNING + number // 6) for number in range(12)]
    assert [len(group.blocks) for group in block_groups(blocks, max_objects=25)] == [6, 6]
    assert [len(group.blocks) for group in block_groups([block(0, MORNING, 1000)], max_objects=25)] == [1]
    assert block_groups([]) == []


def test_midnight_cuts() -> None:
    midnight = MORNING // DAY * DAY + DAY
    blocks = [block(0, midnight - 1), block(1, midnight), block(2, midnight + 1)]
    assert [len(group.blocks) for group in block_groups(blocks)] == [1, 2]


def stored(group: BlockGroup) -> Partition:
    """The partition that is built of a group."""
    begin, end = group.insert_range.begin, group.insert_range.end
    return replace(
        partition(begin, end), partition_id=f"{begin}-{end}", source_hash=source_hash(group.blocks) + b"and more"
    )


def followed(blocks: list[BlockRow], in_order: bool = False) -> tuple[list[BlockGroup], int]:
    """Blocks that come one by one while partitions are built each time: the last groups, and how many events were
    read in all."""
    partitions: dict[str, Partition] = {}
    events = 0
    groups: list[BlockGroup] = []
    for count in range(1, len(blocks) + 1):
        groups = block_groups(
            blocks[:count], partitions.values(), in_order=in_order, max_objects=2000, small_objects=100
        )
        assert [each for group in groups for each in group.blocks] == blocks[:count]
        fresh = [group for group in groups if stored(group).partition_id not in partitions]
        events += sum(each.nb_objects for group in fresh for each in group.blocks)
        partitions = {stored(group).partition_id: stored(group) for group in groups}
    return groups, events


def test_a_process_that_goes_on_costs_what_is_new_of_it() -> None:
    blocks = [block(number, MORNING + number, 10) for number in range(2000)]
    groups, events = followed(blocks)
    # Each event is read while it is among the newest hundred or so, and when as many came: log2(2000 / 100) times.
    assert events < 20_000 * (6 + 5)
    assert len(groups) < 10 + 6
    assert max(sum(each.nb_objects for each in group.blocks) for group in groups) <= 2000


def test_only_the_last_groups_change_when_blocks_come() -> None:
    random = Random(1)
    times = sorted(MORNING + random.randrange(DAY * 2) for _ in range(300))
    blocks = [block(number, moment, random.randrange(50)) for number, moment in enumerate(times)]
    groups, _ = followed(blocks)
    assert len({group.insert_range.begin // DAY for group in groups}) == 3
    for group in groups:
        assert group.insert_range.begin // DAY == (group.insert_range.end - 1) // DAY


def test_what_was_stored_of_other_blocks_does_not_count() -> None:
    blocks = [block(number, MORNING + number, 200) for number in range(10)]
    groups = block_groups(blocks, max_objects=400)
    kept = stored(groups[1])
    sizes = [len(group.blocks) for group in block_groups(blocks, [kept], max_objects=1500)]
    assert sizes == [2, 2, 6]
    changed = [replace(each, nb_objects=201) if each.insert_time == MORNING + 3 else each for each in blocks]
    without = [each for each in blocks if each.insert_time != MORNING + 3]
    for others in (changed, without):
        assert [len(group.blocks) for group in block_groups(others, [kept], max_objects=5000)] == [len(others)]


def test_no_cut_parts_what_a_late_block_reaches_over() -> None:
    random = Random(4)
    for _ in range(100):
        numbers = sorted(range(40), key=lambda number: number + random.choice([0, 0, 0, 0, 9]))
        blocks = [
            replace(block(number, MORNING + place // 2, 30), stream_id=random.choice(["one", "two"]))
            for place, number in enumerate(numbers)
        ]
        groups = block_groups(blocks, in_order=True, max_objects=60)
        assert [each for group in groups for each in group.blocks] == blocks
        cuts = {group.blocks[0].insert_time for group in groups[1:]}
        for cut in {each.insert_time for each in blocks[1:]} - {MORNING}:
            is_in_order = all(
                in_tick_order(before) < in_tick_order(behind)
                for before in blocks
                for behind in blocks
                if before.insert_time < cut <= behind.insert_time and before.stream_id == behind.stream_id
            )
            # With so small a limit every cut that may be is one.
            assert (cut in cuts) == is_in_order


def test_partitions_that_a_late_block_reaches_over_are_joined() -> None:
    blocks = [block(number, MORNING + number, 200) for number in range(8)]
    late = replace(blocks[5], block_id="late", insert_time=MORNING + 100, end_ticks=5)
    partitions = [stored(group) for group in block_groups(blocks, max_objects=200, in_order=True)]
    assert len(partitions) == 8
    joined = block_groups([*blocks, late], partitions, in_order=True, max_objects=200)
    assert [len(group.blocks) for group in joined] == [1, 1, 1, 1, 1, 4]


def test_retention_of_whole_days_keeps_the_cuts_of_the_others() -> None:
    random = Random(2)
    times = sorted(MORNING + random.randrange(DAY * 3) for _ in range(300))
    blocks = [block(number, moment, random.randrange(50)) for number, moment in enumerate(times)]
    horizon = MORNING // DAY * DAY + DAY
    everything = block_groups(blocks, max_objects=200)
    kept = block_groups([each for each in blocks if each.insert_time >= horizon], max_objects=200)
    assert kept == [group for group in everything if group.insert_range.begin >= horizon]


def test_source_hashes() -> None:
    blocks = [block(number, number + 1, number) for number in range(20)]
    shuffled = list(blocks)
    Random(3).shuffle(shuffled)
    assert source_hash(blocks) == source_hash(shuffled)
    assert source_hash(blocks) == sum_source_hashes([source_hash(blocks[:7]), source_hash(blocks[7:])])
    assert source_hash([]) == sum_source_hashes([])
    different = [
        blocks[1:],
        [*blocks, blocks[0]],
        [block(0, 1, 1), *blocks[1:]],
        [block(99, 1, 0), *blocks[1:]],
        [block(0, 1, 1), block(1, 2, 0), *blocks[2:]],
    ]
    assert source_hash(blocks) not in {source_hash(each) for each in different}


def partition(begin: int, end: int) -> Partition:
    return Partition(
        view_set="log_entries",
        instance_id="global",
        begin_insert_time=begin,
        end_insert_time=end,
        min_event_time=None,
        max_event_time=None,
        updated=0,
        file_path=None,
        file_size=0,
        num_rows=0,
        schema_hash=b"",
        source_hash=b"",
    )


def test_coverage() -> None:
    assert uncovered([], 5, 10) == [InsertRange(5, 10)]
    assert uncovered([], 10, 10) == []
    some = [partition(20, 30), partition(0, 10), partition(10, 12)]
    assert uncovered(some, 0, 40) == [InsertRange(12, 20), InsertRange(30, 40)]
    assert uncovered(some, 5, 25) == [InsertRange(12, 20)]
    assert uncovered(some, 15, 16) == [InsertRange(15, 16)]
    assert uncovered(some, 22, 30) == []
