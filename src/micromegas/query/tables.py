"""The tables that a statement can name, and how the rows it needs of them become files to scan.

A table must never be scanned from anything but the files chosen here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from datafusion import DataFrame, Expr, col, lit

from micromegas.lake import ChosenPartitions, Lake, Partition, PartitionIndex, TailConditions, TooManyPartitions
from micromegas.query.bounds import MAX_TIME, Bounds, TimeRange
from micromegas.query.errors import QueryError
from micromegas.query.hot_blocks import HotBlocks
from micromegas.query.just_in_time import JustInTime
from micromegas.query.partition_files import PartitionFiles
from micromegas.query.scans import FilterColumns, ScanNeed
from micromegas.query.session import Place
from micromegas.query.spool import Spool
from micromegas.query.tail import tail_blocks, tail_conditions
from micromegas.views.partition_writer import InsertRange
from micromegas.views.view_set import GLOBAL_INSTANCE, InstanceKind, ViewSet

MAX_FILES = 10_000
EVER = InsertRange(0, MAX_TIME)


@dataclass(frozen=True, slots=True)
class Preparation:
    """What the tables of one statement share: the request's range, its spool, and whether it only explains.

    `is_wanted` turns false once nobody waits for the answer any more. What is run meanwhile takes the memory of `place`
    (None: of no share). `user` asks.
    """

    request_range: TimeRange
    spool: Spool
    explain_only: bool
    max_tail_bytes: int
    max_list_bytes: int
    is_wanted: Callable[[], bool]
    place: Place | None = None
    user: str = ""

    def within_request(self, bounds: Bounds, columns: FilterColumns) -> Bounds:
        """Bounds of rows, with these columns, that the request's range lets pass; one that ends before it begins is
        taken to let none pass."""
        within = bounds.both(Bounds(self.request_range))
        return within if self.request_range.is_empty else within.of_rows_with(columns.time)


@dataclass(frozen=True, slots=True)
class TableFiles:
    """URLs of Parquet files (`older`: by the hash of the older schema that they have) and of spooled Arrow files that
    together hold the table's rows; or `derived`, the rows made of other tables."""

    parquet: list[str] = field(default_factory=list)
    older: dict[bytes, list[str]] = field(default_factory=dict)
    spooled: list[str] = field(default_factory=list)
    derived: DataFrame | None = None

    @property
    def is_empty(self) -> bool:
        return not self.parquet and not self.older and not self.spooled and self.derived is None


class QueryTable(ABC):
    """A table of a statement, called `name` in its plans."""

    name: str
    schema: pa.Schema
    filter_columns: FilterColumns

    @property
    def view_set(self) -> ViewSet | None:
        """Whose row filter applies; None for lists that know no time."""
        return None

    by_insert_time = False
    """Whether its rows can be told apart by insert time, so that a view may be reduced from it."""

    @abstractmethod
    def files(self, need: ScanNeed, preparation: Preparation) -> TableFiles:
        """The rows within `need.bounds` and the request's range, and maybe others. Blocks. Raises `QueryError`."""

    def files_inserted_within(
        self, ranges: Sequence[InsertRange], need: ScanNeed, preparation: Preparation
    ) -> TableFiles:
        """The rows within `need.bounds` of some ranges of insert time, which are in order. Files may hold others, to be
        told by column `insert_time`; derived rows are exact."""
        raise QueryError("internal", f"{self.name} can't be read by insert time")


def in_range(frame: DataFrame, view_set: ViewSet | None, request_range: TimeRange) -> DataFrame:
    """The rows within the request's range, both ends inclusive."""
    if view_set is None:
        return frame
    lowest, highest = view_set.min_column, view_set.max_column
    if request_range.end is not None:
        frame = frame.filter(col(f'"{lowest}"') <= _moment(view_set, lowest, request_range.end))
    if request_range.begin is not None:
        frame = frame.filter(col(f'"{highest}"') >= _moment(view_set, highest, request_range.begin))
    return frame


def _moment(view_set: ViewSet, column: str, nanoseconds: int) -> Expr:
    return lit(pa.scalar(nanoseconds, pa.int64()).cast(view_set.schema.field(column).type))


@dataclass(slots=True)
class LakeAccess:
    """What tables read from."""

    lake: Lake
    just_in_time: JustInTime
    partition_files: PartitionFiles
    hot_blocks: HotBlocks

    def files_of(self, view_set: ViewSet, partitions: list[Partition], bounds: Bounds) -> TableFiles:
        """Checked files of the partitions that may hold rows within bounds."""
        chosen = [
            partition
            for partition in partitions
            if partition.min_event_time is not None
            and partition.max_event_time is not None
            and bounds.time.overlaps(partition.min_event_time, partition.max_event_time)
        ]
        if len(chosen) > MAX_FILES:
            raise _too_many_files(view_set, len(chosen))
        self.partition_files.check(chosen)
        files = TableFiles()
        for each in chosen:
            if each.file_path is None:
                continue
            is_current = each.schema_hash == view_set.schema_hash
            urls = files.parquet if is_current else files.older.setdefault(each.schema_hash, [])
            urls.append(self.lake.objects.url_of(each.file_path))
        return files


def _too_many_files(view_set: ViewSet, count: int) -> QueryError:
    return QueryError(
        "exhausted", f"{view_set.name}: {count} files in range, at most {MAX_FILES} fit; narrow the range"
    )


def filter_columns_of(view_set: ViewSet) -> FilterColumns:
    """Time columns, and those columns of a view that are worth choosing blocks by."""
    names = view_set.schema.names
    return FilterColumns(
        view_set.time_columns,
        "insert_time" if "insert_time" in names else None,
        [name for name in ("process_id", "stream_id", "block_id") if name in names],
    )


class GlobalView(QueryTable):
    """A global view made of blocks: its partitions, and the blocks that are in none yet."""

    def __init__(self, access: LakeAccess, view_set: ViewSet) -> None:
        self.name = f"{view_set.name}|{GLOBAL_INSTANCE}"
        self.schema = view_set.schema
        self.filter_columns = filter_columns_of(view_set)
        self.by_insert_time = "insert_time" in view_set.schema.names
        self._view_set = view_set
        self._access = access
        self._index = PartitionIndex(access.lake.metadata, view_set.name, GLOBAL_INSTANCE)

    @property
    def view_set(self) -> ViewSet:
        return self._view_set

    def files(self, need: ScanNeed, preparation: Preparation) -> TableFiles:
        return self._files([EVER], preparation.within_request(need.bounds, self.filter_columns), preparation)

    def files_inserted_within(
        self, ranges: Sequence[InsertRange], need: ScanNeed, preparation: Preparation
    ) -> TableFiles:
        return self._files(ranges, need.bounds, preparation)

    def _files(self, ranges: Sequence[InsertRange], bounds: Bounds, preparation: Preparation) -> TableFiles:
        if bounds.time.is_empty:
            return TableFiles()
        uncovered = None if preparation.explain_only else tail_conditions(self._view_set, bounds)
        chosen = self._choose(ranges, bounds, uncovered)
        files = self._access.files_of(self._view_set, chosen.partitions, bounds)
        limit = preparation.max_tail_bytes
        blocks = tail_blocks(self._view_set, chosen.blocks, bounds, limit)
        if blocks:
            batches = _while_wanted(self._access.hot_blocks.rows(self._view_set, blocks), preparation)
            files.spooled.extend(preparation.spool.write(self.schema, batches, self._view_set.name, limit))
        return files

    def _choose(
        self, ranges: Sequence[InsertRange], bounds: Bounds, uncovered: TailConditions | None
    ) -> ChosenPartitions:
        try:
            return self._index.choose(
                self._view_set.readable,
                event_begin=bounds.time.begin,
                event_end=bounds.time.end,
                insert_end=MAX_TIME,
                inserted=[(each.begin, each.end) for each in ranges],
                max_partitions=MAX_FILES,
                uncovered=uncovered,
            )
        except TooManyPartitions as many:
            raise _too_many_files(self._view_set, many.count) from None


def _while_wanted(batches: Iterator[pa.RecordBatch], preparation: Preparation) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if not preparation.is_wanted():
            raise QueryError("exhausted", "nobody waits for the answer any more")
        yield batch


class InstanceView(QueryTable):
    """A view of one process or stream, built just in time."""

    def __init__(self, access: LakeAccess, view_set: ViewSet, instance_id: str) -> None:
        self.name = f"{view_set.name}|{instance_id}"
        self.schema = view_set.schema
        self.filter_columns = filter_columns_of(view_set)
        self._view_set = view_set
        self._instance_id = instance_id
        self._access = access

    @property
    def view_set(self) -> ViewSet:
        return self._view_set

    def files(self, need: ScanNeed, preparation: Preparation) -> TableFiles:
        self._check_instance()
        bounds = preparation.within_request(need.bounds, self.filter_columns)
        if self._view_set.needs_range and bounds.time.is_open:
            raise QueryError(
                "invalid",
                f"{self._view_set.name} needs a time range: send one with the query, or restrict "
                f"{' and '.join(self._view_set.time_columns)} in its WHERE clause",
            )
        rows = self._access.just_in_time.rows(
            self._view_set,
            self._instance_id,
            bounds.time,
            build=not preparation.explain_only,
            is_wanted=preparation.is_wanted,
        )
        files = self._access.files_of(self._view_set, rows.partitions, bounds)
        if rows.unfinished is not None and rows.unfinished.num_rows:
            limit = preparation.max_tail_bytes
            files.spooled.extend(preparation.spool.write(self.schema, [rows.unfinished], self._view_set.name, limit))
        return files

    def _check_instance(self) -> None:
        metadata = self._access.lake.metadata
        if self._view_set.instance_kind is InstanceKind.PROCESS:
            known = bool(metadata.processes([self._instance_id]))
        else:
            known = bool(metadata.streams([self._instance_id]))
        if not known and self._view_set.instance_kind is not None:
            raise QueryError("invalid", f"unknown {self._view_set.instance_kind.value} {self._instance_id}")
