"""What a view set is: a named table family with its schema, its instances and its time columns. Holds no data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import pyarrow as pa

from micromegas.views.arrow_types import canonical_schema, schema_hash
from micromegas.views.block_rows import BlockRows, RowsRequest
from micromegas.views.older_schema import OlderSchema
from micromegas.views.sql_definition import SqlDefinition

GLOBAL_INSTANCE = "global"


class InstanceKind(Enum):
    """Whose id names an instance of the view set."""

    PROCESS = "process"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class DecodedFrom:
    """How rows come out of blocks: the tag of the streams that are read, the version of the decoding (part of the
    schema hash) and the maker of a row builder."""

    stream_tag: str
    decoder_version: int
    new_rows: Callable[[RowsRequest], BlockRows]
    sorted_by_ticks: bool = False
    """Blocks of a partition are read in order of (begin_ticks, end_ticks) rather than of insert time."""
    carries: bool = False
    """Rows reach over partitions: `new_rows` makes `CarryingRows`, which go on from the partition before. With
    `sorted_by_ticks`, no partition holds a block of a stream that lies before one of an earlier partition."""


@dataclass(frozen=True, slots=True)
class ReducedBy:
    """How rows come out of rows of other views: the definition, and the schema hashes of the views among its sources
    that are reduced themselves, in order of their names."""

    definition: SqlDefinition
    source_hashes: tuple[bytes, ...] = ()

    def schema_hash(self, schema: pa.Schema) -> bytes:
        """SHA-256 over all that the rows depend on; decoders of blocks are left out, as a view that is kept longer than
        its sources could not be made again for a new one."""
        texts = [canonical_schema(schema), self.definition.canonical, *(each.hex() for each in self.source_hashes)]
        return hashlib.sha256("\0".join(texts).encode()).digest()


@dataclass(frozen=True, slots=True)
class ViewSet:
    """A table family.

    `min_column` and `max_column` carry the row filter of a query range [b, e]: `min_column <= e AND max_column >= b`.
    `time_columns` are all columns whose bounds in a predicate also bound the event time of the partitions to read.
    `decoded` tells how rows come out of blocks, `reduced` how they come out of other views; where both are None, the
    view is read from the metadata database.
    """

    name: str
    schema: pa.Schema
    min_column: str
    max_column: str
    has_global: bool
    instance_kind: InstanceKind | None = None
    decoded: DecodedFrom | None = None
    reduced: ReducedBy | None = None
    needs_range: bool = False
    time_columns: tuple[str, ...] = ()
    older: tuple[OlderSchema, ...] = ()
    """What earlier releases wrote and this one still reads; the daemon writes it anew, a little at a time."""
    schema_hash: bytes = field(init=False)
    readable: frozenset[bytes] = field(init=False)
    """Schema hashes of the partitions that hold rows for a query."""
    state_hash: bytes = field(init=False)
    """Schema hash of partitions that hand on their state and have no rows yet (see `carried.CarriedIn.with_rows`)."""

    def __post_init__(self) -> None:
        if self.reduced is not None:
            digest = self.reduced.schema_hash(self.schema)
        else:
            digest = schema_hash(self.schema, self.decoded.decoder_version if self.decoded is not None else 1)
        object.__setattr__(self, "schema_hash", digest)
        object.__setattr__(self, "state_hash", hashlib.sha256(b"state\0" + digest).digest())
        for each in self.older:
            each.check(self.name, self.schema)
        object.__setattr__(self, "readable", frozenset([self.schema_hash, *(each.schema_hash for each in self.older)]))
        if not self.time_columns:
            object.__setattr__(self, "time_columns", tuple(dict.fromkeys((self.min_column, self.max_column))))

    @property
    def is_read_from_metadata(self) -> bool:
        """There are no partitions of it."""
        return self.decoded is None and self.reduced is None
