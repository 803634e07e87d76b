"""Clocks of processes that did not tell their frequency, and between which times the events of each block are.

Takes some seconds per 100 000 blocks. What is computed here stays as it is, whatever later releases do.
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0008"
branch_labels = None
depends_on = None

SECOND = 1_000_000_000
LARGEST = 2**63 - 1
CHUNK = 10_000

UNKNOWN_CLOCKS = """
SELECT process_id, start_time, last_block_end_ticks, clock_end_time FROM processes WHERE tsc_frequency <= 0
"""

# Differences of ticks may be beyond a bigint.
WIDEST_BLOCK = """
SELECT b.begin_ticks, b.begin_time, b.end_ticks, b.end_time FROM blocks b
JOIN streams s ON s.stream_id = b.stream_id
WHERE b.process_id = :process_id AND b.insert_time IS NOT NULL AND s.format LIKE 'micromegas-%'
ORDER BY CAST(b.end_ticks AS NUMERIC) - CAST(b.begin_ticks AS NUMERIC) DESC, b.block_id LIMIT 1
"""

FARTHEST_TICKS = """
SELECT min(b.begin_ticks), max(b.begin_ticks), min(b.end_ticks), max(b.end_ticks) FROM blocks b
JOIN streams s ON s.stream_id = b.stream_id
WHERE b.process_id = :process_id AND b.insert_time IS NOT NULL AND s.format LIKE 'micromegas-%'
"""

BLOCKS = """
SELECT b.block_id, b.begin_ticks, b.end_ticks, s.format, p.process_id, p.start_time, p.tsc_frequency
FROM blocks b
JOIN streams s ON s.stream_id = b.stream_id
JOIN processes p ON p.process_id = b.process_id
{condition}
ORDER BY b.block_id LIMIT :chunk
"""


def upgrade() -> None:
    op.add_column("processes", sa.Column("clock", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("blocks", sa.Column("min_event_time", sa.BigInteger(), nullable=True))
    op.add_column("blocks", sa.Column("max_event_time", sa.BigInteger(), nullable=True))
    frequencies = measure_clocks()
    set_event_times(frequencies)
    op.drop_column("processes", "clock_end_time")
    op.create_index("ix_blocks_max_event_time", "blocks", ["max_event_time"])
    set_back = sa.text("begin_time > end_time")
    op.create_index("ix_blocks_set_back", "blocks", ["begin_time"], sqlite_where=set_back, postgresql_where=set_back)


def measure_clocks() -> dict[str, int]:
    """By process, the frequency that its blocks tell; stored as its clock."""
    connection = op.get_bind()
    processes = sa.table("processes", sa.column("process_id"), sa.column("clock", sa.Text))
    frequencies: dict[str, int] = {}
    for process_id, start_time, ticks, time in connection.execute(sa.text(UNKNOWN_CLOCKS)).all():
        clock = first_clock(process_id, start_time, ticks, time)
        if clock is None:
            continue
        frequencies[str(process_id)] = clock["frequency"]
        text = json.dumps(clock, separators=(",", ":"), sort_keys=True)
        value = sa.cast(sa.literal(text, sa.Text), sa.JSON) if connection.dialect.name == "postgresql" else text
        connection.execute(sa.update(processes).where(processes.c.process_id == process_id).values(clock=value))
    return frequencies


def first_clock(process_id: object, start_time: int, ticks: int | None, time: int | None) -> dict[str, Any] | None:
    """What the newest block of a process tells, given where that ends, or else the widest one, or none but how near the
    start of the process they all are; None when nothing does."""
    connection = op.get_bind()
    ends = [] if ticks is None or time is None else [((0, start_time), (ticks, time))]
    widest = None
    if not ends or not frequency_of(*ends[0]):
        widest = connection.execute(sa.text(WIDEST_BLOCK), {"process_id": process_id}).first()
    if widest is not None:
        ends.append(((widest[0], widest[1]), (widest[2], widest[3])))
    for reference, end in ends:
        if frequency := frequency_of(reference, end):
            passed = end[0] - reference[0]
            return measured(frequency, reference, passed, end[0] + passed)
    if widest is None:
        return None
    farthest = connection.execute(sa.text(FARTHEST_TICKS), {"process_id": process_id}).one()
    if any(abs(tick) > SECOND for tick in farthest):
        return None
    return measured(SECOND, (0, start_time), 0, max(farthest[3], 0) + 1)


def frequency_of(reference: tuple[int, int], end: tuple[int, int]) -> int:
    """Ticks per second between two (ticks, ns); 0 when there is none."""
    elapsed = end[1] - reference[1]
    return min(LARGEST, max(0, rounded((end[0] - reference[0]) * SECOND, elapsed))) if elapsed > 0 else 0


def measured(frequency: int, reference: tuple[int, int], measured_over: int, next_look: int) -> dict[str, Any]:
    """A clock as it is stored."""
    return {
        "doubt": None,
        "frequency": frequency,
        "later_rates": [],
        "measured_over": measured_over,
        "next_look": next_look,
        "reference": list(reference),
    }


def set_event_times(frequencies: dict[str, int]) -> None:
    """Of blocks whose process and stream are known."""
    connection = op.get_bind()
    update = sa.text("UPDATE blocks SET min_event_time = :earliest, max_event_time = :latest WHERE block_id = :id")
    last = None
    while True:
        condition = "" if last is None else "WHERE b.block_id > :last"
        values = {"chunk": CHUNK} if last is None else {"chunk": CHUNK, "last": last}
        rows = connection.execute(sa.text(BLOCKS.format(condition=condition)), values).all()
        if not rows:
            return
        last = rows[-1][0]
        found = []
        for block_id, begin, end, stream_format, process_id, start_time, announced in rows:
            frequency = announced if announced > 0 else frequencies.get(str(process_id), 0)
            if stream_format.startswith("otlp/v1/"):
                times = [begin, end]
            elif stream_format.startswith("micromegas-") and frequency > 0:
                times = [start_time + rounded(ticks * SECOND, frequency) for ticks in (begin, end)]
            else:
                continue
            earliest, latest = (max(-LARGEST - 1, min(LARGEST, time)) for time in sorted(times))
            found.append({"id": block_id, "earliest": earliest, "latest": latest})
        if found:
            connection.execute(update, found)


def rounded(dividend: int, divisor: int) -> int:
    """To the nearest integer, halves away from zero."""
    quotient = (2 * abs(dividend) + divisor) // (2 * divisor)
    return quotient if dividend >= 0 else -quotient
