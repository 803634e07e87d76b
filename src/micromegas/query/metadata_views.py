"""The views `blocks`, `processes` and `streams`, always fresh from the metadata database.

Must never list more rows than the statement's own filters ask for, as far as the database can tell.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from micromegas._engine import jsonb_parse
from micromegas.lake import Lake
from micromegas.query.bounds import MAX_TIME, Bounds, TimeRange
from micromegas.query.scans import FilterColumns, ScanNeed
from micromegas.query.tables import Preparation, QueryTable, TableFiles
from micromegas.views.arrow_types import DICT_JSONB, TAGS
from micromegas.views.blocks import BLOCKS
from micromegas.views.partition_writer import InsertRange
from micromegas.views.processes import PROCESSES
from micromegas.views.streams import STREAMS
from micromegas.views.view_set import GLOBAL_INSTANCE, ViewSet

_EMPTY_ROWS_PER_PART = 65_536
_LARGE_BLOCK_COLUMNS = ("streams.dependencies_metadata", "streams.objects_metadata")


def metadata_views(lake: Lake) -> list[QueryTable]:
    """One table per view of the metadata database."""
    return [BlocksView(lake), ProcessesView(lake), StreamsView(lake)]


class _MetadataView(QueryTable):
    """What the three have in common: no files of their own, rows listed anew for each statement."""

    def __init__(self, lake: Lake, view_set: ViewSet, filter_columns: FilterColumns) -> None:
        self.name = f"{view_set.name}|{GLOBAL_INSTANCE}"
        self.schema = view_set.schema
        self.filter_columns = filter_columns
        self._view_set = view_set
        self._lake = lake

    @property
    def view_set(self) -> ViewSet:
        return self._view_set

    def files(self, need: ScanNeed, preparation: Preparation) -> TableFiles:
        if preparation.explain_only:
            return TableFiles()
        batches = self._batches(need, preparation)
        limit = preparation.max_list_bytes
        return TableFiles(spooled=preparation.spool.write(self.schema, batches, self._view_set.name, limit))

    @abstractmethod
    def _batches(self, need: ScanNeed, preparation: Preparation) -> Iterator[pa.RecordBatch]:
        """The rows within the need and the request's range, and maybe others."""


class _AnnouncementsView(_MetadataView):
    """What processes and streams have in common: only the columns that the statement looks at are read."""

    def _batches(self, need: ScanNeed, preparation: Preparation) -> Iterator[pa.RecordBatch]:
        view_set = self._view_set
        bounds = preparation.within_request(need.bounds, self.filter_columns)
        if bounds.time.is_empty:
            return
        # The request's range is a filter that the plan doesn't show.
        is_ranged = not preparation.request_range.is_open
        wanted = need.columns
        if wanted is not None and is_ranged:
            wanted |= {view_set.min_column, view_set.max_column}
        if wanted is not None and not wanted:
            yield from self._empty_rows()
            return
        columns = [name for name in self.schema.names if wanted is None or name in wanted]
        for part in self._values(columns, bounds):
            values = dict(zip(columns, part, strict=True))
            arrays = [
                _column(field, values[field.name]) if field.name in values else pa.nulls(len(part[0]), field.type)
                for field in self.schema
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _empty_rows(self) -> Iterator[pa.RecordBatch]:
        """As many rows as there are, without anything in them: the statement looks at no column."""
        left = self._count()
        while left:
            rows = min(left, _EMPTY_ROWS_PER_PART)
            left -= rows
            yield pa.RecordBatch.from_arrays([pa.nulls(rows, field.type) for field in self.schema], schema=self.schema)

    @abstractmethod
    def _count(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def _values(self, columns: Sequence[str], bounds: Bounds) -> Iterator[Sequence[Sequence[Any]]]:
        """Parts of the rows within bounds, as the database keeps them: per column its values."""


class ProcessesView(_AnnouncementsView):
    """View `processes`."""

    def __init__(self, lake: Lake) -> None:
        super().__init__(lake, PROCESSES, FilterColumns(PROCESSES.time_columns, None, ("process_id",)))

    def _values(self, columns: Sequence[str], bounds: Bounds) -> Iterator[Sequence[Sequence[Any]]]:
        return self._lake.metadata.process_values(
            columns,
            process_id=bounds.only_id("process_id"),
            update_begin=bounds.time.begin,
            update_end=bounds.time.end,
        )

    def _count(self) -> int:
        return self._lake.metadata.count_processes()


class StreamsView(_AnnouncementsView):
    """View `streams`."""

    def __init__(self, lake: Lake) -> None:
        super().__init__(lake, STREAMS, FilterColumns(STREAMS.time_columns, None, ("process_id", "stream_id")))

    def _values(self, columns: Sequence[str], bounds: Bounds) -> Iterator[Sequence[Sequence[Any]]]:
        return self._lake.metadata.stream_values(
            columns,
            stream_id=bounds.only_id("stream_id"),
            process_id=bounds.only_id("process_id"),
            update_begin=bounds.time.begin,
            update_end=bounds.time.end,
        )

    def _count(self) -> int:
        return self._lake.metadata.count_streams()


class BlocksView(_MetadataView):
    """View `blocks`."""

    by_insert_time = True

    def __init__(self, lake: Lake) -> None:
        columns = FilterColumns(("begin_time", "end_time"), "insert_time", ("process_id", "stream_id"))
        super().__init__(lake, BLOCKS, columns)

    def files_inserted_within(
        self, ranges: Sequence[InsertRange], need: ScanNeed, preparation: Preparation
    ) -> TableFiles:
        inserted = TimeRange(ranges[0].begin, ranges[-1].end - 1)
        return self.files(replace(need, inserted=need.inserted.intersect(inserted)), preparation)

    def _batches(self, need: ScanNeed, preparation: Preparation) -> Iterator[pa.RecordBatch]:
        request = preparation.request_range
        # begin_time <= e and insert_time >= b, as the row filter of this view says.
        times = need.bounds.time.intersect(TimeRange(None, request.end))
        inserted = need.inserted.intersect(TimeRange(request.begin, None))
        dropped = [name for name in _LARGE_BLOCK_COLUMNS if need.columns is not None and name not in need.columns]
        for batch in self._lake.metadata.block_record_batches(
            process_id=need.bounds.only_id("process_id"),
            stream_id=need.bounds.only_id("stream_id"),
            insert_begin=inserted.begin,
            insert_end=None if inserted.end is None or inserted.end == MAX_TIME else inserted.end + 1,
            time_begin=times.begin,
            time_end=times.end,
        ):
            yield self._in_view_types(batch, dropped)

    def _in_view_types(self, batch: pa.RecordBatch, dropped: Sequence[str]) -> pa.RecordBatch:
        arrays = []
        for field in self.schema:
            column = batch.column(field.name)
            if field.name in dropped:
                # Nobody looks at it, and it is by far the largest part of a row.
                column = pa.array([b""] * batch.num_rows, field.type)
            elif field.type == DICT_JSONB:
                column = jsonb_of_texts(column)
            arrays.append(column)
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def jsonb_of_texts(texts: pa.DictionaryArray) -> pa.DictionaryArray:
    """A dictionary of JSON texts as a dictionary of JSONB; each distinct text is parsed once."""
    return pa.DictionaryArray.from_arrays(texts.indices, pa.array(jsonb_parse(texts.dictionary)).cast(pa.binary()))


def _column(field: pa.Field, values: Sequence[Any]) -> pa.Array:
    if field.type == DICT_JSONB:
        return jsonb_of_texts(pa.array(values, pa.string()).dictionary_encode())
    if field.type == TAGS:
        # The same few texts stand in row after row: each distinct one is parsed once.
        tags = {text: json.loads(text) for text in set(values)}
        return pa.array([tags[text] for text in values], TAGS)
    if field.name == "parent_process_id":
        values = ["" if value is None else value for value in values]
    return pa.array(values, field.type)
