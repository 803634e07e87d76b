"""A table whose rows are made while they are read, one batch after the other, in one partition and so in order.

The engine pulls from its own threads: what makes the rows must not call the engine. It relies on which methods of a
pyarrow dataset the engine calls; a test of the engine's contract fails when these change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds


class LazyRows(ds.Dataset):  # type: ignore[misc]
    """Rows of `schema`; `batches` is called for each scan."""

    def __init__(self, schema: pa.Schema, batches: Callable[[], Iterator[pa.RecordBatch]]) -> None:
        self._schema = schema
        self._batches = batches

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def scanner(
        self, columns: Sequence[str] | None = None, filter: ds.Expression | None = None, **_: Any
    ) -> _LazyScanner:
        return _LazyScanner(self._schema, self._batches, columns, filter)

    def get_fragments(self, filter: ds.Expression | None = None) -> Iterator[_LazyFragment]:
        yield _LazyFragment(self._batches)


class _LazyFragment:
    """What the engine takes for a partition of the table."""

    def __init__(self, batches: Callable[[], Iterator[pa.RecordBatch]]) -> None:
        self._batches = batches

    def scanner(
        self, schema: pa.Schema, columns: Sequence[str] | None = None, filter: ds.Expression | None = None, **_: Any
    ) -> _LazyScanner:
        return _LazyScanner(schema, self._batches, columns, filter)


class _LazyScanner:
    """One scan. A filter that comes here is not applied again by the engine."""

    def __init__(
        self,
        schema: pa.Schema,
        batches: Callable[[], Iterator[pa.RecordBatch]],
        columns: Sequence[str] | None,
        filter: ds.Expression | None,
    ) -> None:
        self.projected_schema = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        self._batches = batches
        self._filter = filter

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches():
            rows = pa.Table.from_batches([batch])
            if self._filter is not None:
                rows = rows.filter(self._filter)
            yield from rows.select(self.projected_schema.names).to_batches()
