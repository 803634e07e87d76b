"""Rows made from blocks: the face that the partition writer sees of the native builders. Decodes nothing by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from micromegas.views.block_source import BlockSource


@dataclass(frozen=True, slots=True)
class RowsRequest:
    """For whom rows are made; `stream_properties` is empty unless the instance is a stream."""

    instance_id: str
    stream_properties: Mapping[str, str]


class BlockRows(Protocol):
    """Collects the rows of blocks. `append` returns the problems of a block, if any; rows before a problem stay."""

    @property
    def pending(self) -> int:
        """Rows that `take` would return now; 0 as long as rows can't be told before the last block."""
        ...

    @property
    def estimated_bytes(self) -> int:
        """Memory held by the rows collected so far."""
        ...

    def append(self, block: BlockSource) -> list[str]: ...

    def take(self) -> pa.RecordBatch:
        """The pending rows, which are then forgotten."""
        ...

    def finish(self) -> pa.RecordBatch:
        """All remaining rows, after the last block."""
        ...


class NativeBuilder(Protocol):
    """What the native builders of event views have in common."""

    @property
    def rows(self) -> int: ...

    @property
    def estimated_bytes(self) -> int: ...

    def append(self, block: BlockSource) -> list[str]: ...

    def take(self) -> Any: ...


class EventRows:
    """`BlockRows` over a native builder that makes rows block by block."""

    def __init__(self, builder: NativeBuilder) -> None:
        self._builder = builder

    @property
    def pending(self) -> int:
        return self._builder.rows

    @property
    def estimated_bytes(self) -> int:
        return self._builder.estimated_bytes

    def append(self, block: BlockSource) -> list[str]:
        return self._builder.append(block)

    def take(self) -> pa.RecordBatch:
        return pa.record_batch(self._builder.take())

    def finish(self) -> pa.RecordBatch:
        return self.take()
