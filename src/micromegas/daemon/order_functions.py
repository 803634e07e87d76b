"""What administrators call in SQL: `materialize_partitions`, `regenerate_partitions`, `retire_partitions`, and the
scalar `retire_partition_by_file` and `retire_partition_by_metadata`.

They only put the orders of `Administration` into the engine's words. An order must be carried out once per statement,
and never for an EXPLAIN.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from micromegas.daemon.administration import Administration
from micromegas.daemon.insert_clock import SECOND
from micromegas.daemon.ordered_buckets import KeepGoing, OrderRefused
from micromegas.lake import Lake, PartitionRange
from micromegas.query import QueryError
from micromegas.query.functions import Argument, ScalarFunction
from micromegas.query.scans import FilterColumns, ScanNeed
from micromegas.query.table_function import Parameter, ParameterKind, TableFunction
from micromegas.query.tables import Preparation, QueryTable, TableFiles
from micromegas.views.arrow_types import TIMESTAMP, required
from micromegas.views.partition_writer import InsertRange

LOG_SCHEMA = pa.schema([required("time", TIMESTAMP), required("msg", pa.utf8())])
"""One row per step: when it was done, and what it was."""

# No order that a statement's time admits says more than this.
_MAX_LOG_BYTES = 256 * 1024 * 1024
_LINES_PER_BATCH = 8192

_VIEW_SET, _INSTANCE = Parameter("view_set"), Parameter("instance_id")
_BEGIN, _END = Parameter("begin", ParameterKind.TIME), Parameter("end", ParameterKind.TIME)
_STEP = Parameter("delta_seconds", ParameterKind.INTEGER)

Order = Callable[[KeepGoing], Iterator[str]]
"""Carries an order out while the log that it gives is read."""


class _OrderLog(QueryTable):
    """The log of one order; reading it carries the order out."""

    def __init__(self, name: str, order: Order, lake: Lake) -> None:
        self.name = name
        self.schema = LOG_SCHEMA
        self.filter_columns = FilterColumns()
        self._order = order
        self._lake = lake

    def files(self, need: ScanNeed, preparation: Preparation) -> TableFiles:
        if preparation.explain_only:
            return TableFiles()
        try:
            batches = self._batches(preparation.is_wanted)
            return TableFiles(spooled=preparation.spool.write(LOG_SCHEMA, batches, self.name, _MAX_LOG_BYTES))
        except OrderRefused as refused:
            raise QueryError("invalid", str(refused)) from None

    def _batches(self, is_wanted: KeepGoing) -> Iterator[pa.RecordBatch]:
        lines: list[tuple[int, str]] = []
        for line in self._order(is_wanted):
            lines.append((self._lake.clock(), line))
            if len(lines) == _LINES_PER_BATCH:
                yield _batch(lines)
                lines = []
        if lines:
            yield _batch(lines)


def _batch(lines: list[tuple[int, str]]) -> pa.RecordBatch:
    times, texts = zip(*lines, strict=True)
    return pa.RecordBatch.from_arrays([pa.array(times, TIMESTAMP), pa.array(texts, pa.utf8())], schema=LOG_SCHEMA)


class _OrderFunction(TableFunction):
    """A table function that is an order."""

    schemas = (LOG_SCHEMA,)
    for_administrators = True

    def __init__(self, lake: Lake, administration: Administration) -> None:
        self._lake = lake
        self._administration = administration

    def table(self, *arguments: Any, **_: Any) -> QueryTable:
        shown = "|".join(str(argument) for argument in arguments)
        return _OrderLog(f"{self.name}|{shown}", self._order(*arguments), self._lake)

    @abstractmethod
    def _order(self, *arguments: Any, **_: Any) -> Order:
        """The order for checked arguments."""


class _MaterializePartitions(_OrderFunction):
    name = "materialize_partitions"
    parameters = (_VIEW_SET, _BEGIN, _END, _STEP)
    description = (
        "Sees to it that each bucket of `delta_seconds` of insert time from `begin` to `end` is one partition of a "
        "global view, as the daemon does by itself; a row per bucket says what was done. What is up to date, "
        "not over yet, or part of a partition that reaches beyond the bucket is left alone. Views defined by SQL are "
        "kept in whole minutes. For administrators."
    )
    example = (
        "SELECT msg FROM materialize_partitions('log_entries', '2001-01-01T00:00:00Z', '2001-01-01T02:00:00Z', 3600)"
    )

    def _order(self, view_set: str, begin: int, end: int, step_s: int) -> Order:
        whole = InsertRange(begin, end)
        return lambda keep_going: self._administration.materialize(view_set, whole, step_s * SECOND, keep_going)


class _RegeneratePartitions(_OrderFunction):
    name = "regenerate_partitions"
    parameters = (_VIEW_SET, _BEGIN, _END, _STEP)
    description = (
        "Makes the buckets anew from their blocks or source rows, whatever is there. Refused where the buckets don't "
        "tile the range, are not over yet or would cut a partition, and where blocks are gone that rows were made of. "
        "For administrators."
    )
    example = (
        "SELECT msg FROM regenerate_partitions('log_entries', '2001-01-01T00:00:00Z', '2001-01-01T02:00:00Z', 3600)"
    )

    def _order(self, view_set: str, begin: int, end: int, step_s: int) -> Order:
        whole = InsertRange(begin, end)
        return lambda keep_going: self._administration.regenerate(view_set, whole, step_s * SECOND, keep_going)


class _RetirePartitions(_OrderFunction):
    name = "retire_partitions"
    parameters = (_VIEW_SET, _INSTANCE, _BEGIN, _END)
    description = (
        "Retires, in one transaction, the partitions of a view instance that lie wholly within a range of insert time; "
        "a row per partition and one for all. Running queries go on, the next ones make the rows again from what "
        "blocks there are. For administrators."
    )
    example = (
        "SELECT msg FROM retire_partitions('log_entries', 'global', '2001-01-01T00:00:00Z', '2001-01-02T00:00:00Z')"
    )

    def _order(self, view_set: str, instance_id: str, begin: int, end: int) -> Order:
        return lambda _keep_going: self._administration.retire(view_set, instance_id, InsertRange(begin, end))


def order_table_functions(lake: Lake, administration: Administration) -> list[TableFunction]:
    """The orders that stand in FROM."""
    return [
        function(lake, administration)
        for function in (_MaterializePartitions, _RegeneratePartitions, _RetirePartitions)
    ]


def order_scalar_functions(administration: Administration) -> list[ScalarFunction]:
    """The orders that stand in SELECT: each batch of rows (32 768 at most) is carried out whole or not at all."""

    def by_file(paths: pa.Array) -> pa.Array:
        return pa.array(administration.retire_files(paths.to_pylist()), pa.string())

    def by_metadata(
        view_sets: pa.Array, instances: pa.Array, begins: pa.Array, ends: pa.Array, schema_hashes: pa.Array
    ) -> pa.Array:
        times = [column.cast(pa.int64()).to_pylist() for column in (begins, ends)]
        rows = zip(view_sets.to_pylist(), instances.to_pylist(), *times, schema_hashes.to_pylist(), strict=True)
        ranges = [None if None in row[:4] else PartitionRange(*row) for row in rows]
        return pa.array(administration.retire_ranges(ranges), pa.string())

    text = pa.string()
    path = (Argument("path", text),)
    named = (Argument("view_set", text), Argument("instance_id", text))
    covered = (Argument("begin", TIMESTAMP), Argument("end", TIMESTAMP))
    hashed = (Argument("schema_hash", pa.binary()),)
    # Volatile: called once per row, and never while the engine plans.
    return [
        ScalarFunction(
            "retire_partition_by_file",
            path,
            text,
            by_file,
            "Retires the partition of a file, as `list_partitions()` names it. The result begins with `SUCCESS:` or "
            "`ERROR:`; where one row of a batch (32 768 rows at most) fails, none of its partitions is retired. For "
            "administrators.",
            "SELECT retire_partition_by_file('views/log_entries/global/none.parquet') AS outcome",
            volatility="volatile",
        ),
        ScalarFunction(
            "retire_partition_by_metadata",
            named + covered + hashed,
            text,
            by_metadata,
            "Retires the partition of exactly this insert range, also one without rows, which has no file; with a "
            "`schema_hash` only if that is its `file_schema_hash`. Results and failures as of "
            "`retire_partition_by_file`. For administrators.",
            "SELECT retire_partition_by_metadata('log_entries', 'global', '2001-01-01T00:00:00Z', "
            "'2001-01-01T01:00:00Z') AS outcome",
            volatility="volatile",
            optional=1,
        ),
    ]
