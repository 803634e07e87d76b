"""How partitions that an earlier release wrote are read: which of their columns become which of today's.

Must never guess: what is not told here and can't be had without loss is refused when the view set is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from micromegas.views.arrow_types import schema_hash

# By the type in the file, the types that hold all of its values.
_WIDER = {
    pa.int32(): (pa.int64(), pa.float64()),
    pa.uint32(): (pa.int64(), pa.uint64(), pa.float64()),
}


@dataclass(frozen=True, slots=True)
class OlderSchema:
    """A schema and decoder version that a view set had.

    A column of today comes from `computed` (a SQL expression over the older columns), or else from the older one of its
    name when that is of the same or a narrower type, or else is NULL where it may be.
    """

    schema: pa.Schema
    decoder_version: int
    computed: Mapping[str, str] = field(default_factory=dict)

    @property
    def schema_hash(self) -> bytes:
        return schema_hash(self.schema, self.decoder_version)

    def check(self, view_set: str, current: pa.Schema) -> None:
        """Raises `ValueError` naming the column of today that can't be had."""
        for column in current:
            if column.name in self.computed:
                continue
            if column.name not in self.schema.names:
                if not column.nullable:
                    raise ValueError(f"{view_set}.{column.name} is not in its older schema and must not be NULL")
                continue
            older = self.schema.field(column.name)
            if not _is_lossless(older.type, column.type):
                raise ValueError(f"{view_set}.{column.name} can't be made of {older.type} without loss")
            if older.nullable and not column.nullable:
                raise ValueError(f"{view_set}.{column.name} may be NULL in its older schema")


def _is_lossless(old: pa.DataType, new: pa.DataType) -> bool:
    old, new = _values(old), _values(new)
    return bool(old == new) or new in _WIDER.get(old, ())


def _values(data_type: pa.DataType) -> pa.DataType:
    return data_type.value_type if pa.types.is_dictionary(data_type) else data_type
