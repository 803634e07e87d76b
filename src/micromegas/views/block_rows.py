"""Rows made from blocks: the face that the partition writer sees of the native builders. Decodes nothing by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import pyarrow as pa

from micromegas.views.block_source import BlockSource
from micromegas.views.carried import CarriedIn, CarriedOut


@dataclass(frozen=True, slots=True)
class RowsRequest:
    """For whom rows are made; `stream_properties` is empty unless the instance is a stream. `carried_in` is None for
    views whose rows never reach over partitions."""

    instance_id: str
    stream_properties: Mapping[str, str]
    carried_in: CarriedIn | None = None

    @property
    def state(self) -> bytes | None:
        return None if self.carried_in is None else self.carried_in.state


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


@runtime_checkable
class CarryingRows(BlockRows, Protocol):
    """`BlockRows` that go on from those of other blocks."""

    def carried_out(self) -> CarriedOut:
        """What the next rows go on from; after `finish`."""
        ...

    def unfinished(self) -> pa.RecordBatch:
        """Rows of what has no end yet, as far as it is known; instead of `append` and `finish`."""
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


class StatefulBuilder(NativeBuilder, Protocol):
    """A native builder that tells what it goes on from."""

    def state(self) -> bytes: ...


Builder = TypeVar("Builder", bound=StatefulBuilder)


class StatefulRows(EventRows, Generic[Builder]):
    """`CarryingRows` over a native builder that makes rows as soon as they end; `unfinished` gives its other rows."""

    def __init__(self, builder: Builder, unfinished: Callable[[Builder], pa.RecordBatch]) -> None:
        super().__init__(builder)
        self._stateful = builder
        self._unfinished = unfinished

    def carried_out(self) -> CarriedOut:
        return CarriedOut(self._stateful.state())

    def unfinished(self) -> pa.RecordBatch:
        return self._unfinished(self._stateful)
