"""Arrow types that every client can read: what a result looks like once it leaves the server. Never changes a value.

Some clients refuse views and large types, some read dictionary indices as values or timestamps of any unit as
nanoseconds (findings on Flight SQL clients, "types on the wire"). So views and large strings become utf8/binary,
run-ends and dictionaries become their values (dictionaries stay for a client that asks with `preserve_dictionary`),
timestamps are nanoseconds, UTC is spelled `+00:00`; the same inside lists, structs and maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# Clients accept 4 MiB a message at least; half of it leaves room for the parts that are counted only roughly.
MAX_BATCH_BYTES = 2 * 1024 * 1024

_UTC = frozenset({"UTC", "utc", "Z", "+00:00", "+0000", "+00", "Etc/UTC"})


def edge_type(kind: Any, preserve_dictionary: bool) -> Any:
    """The Arrow type that a client receives for a column of type `kind`."""
    if pa.types.is_dictionary(kind):
        values = edge_type(kind.value_type, preserve_dictionary)
        return pa.dictionary(kind.index_type, values, kind.ordered) if preserve_dictionary else values
    if pa.types.is_run_end_encoded(kind):
        return edge_type(kind.value_type, preserve_dictionary)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("ns", tz="+00:00" if kind.tz in _UTC else kind.tz)
    if pa.types.is_struct(kind):
        return pa.struct([edge_field(kind.field(i), preserve_dictionary) for i in range(kind.num_fields)])
    if pa.types.is_map(kind):
        key, item = edge_field(kind.key_field, preserve_dictionary), edge_field(kind.item_field, preserve_dictionary)
        return pa.map_(key, item, kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(edge_field(kind.value_field, preserve_dictionary), kind.list_size)
    if _is_variable_list(kind):
        return pa.list_(edge_field(kind.value_field, preserve_dictionary))
    return kind


def edge_field(field: pa.Field, preserve_dictionary: bool) -> pa.Field:
    return field.with_type(edge_type(field.type, preserve_dictionary))


def edge_schema(schema: pa.Schema, preserve_dictionary: bool) -> pa.Schema:
    """What is announced for a result of `schema`; without schema metadata, which is the engine's own business."""
    return pa.schema([edge_field(field, preserve_dictionary) for field in schema])


class EdgeConverter:
    """Turns the batches of one result into batches of `schema` (the edge schema), none much larger than `max_bytes` of
    data.

    Batches are cut before dictionaries are written out as values, so a batch of few distinct huge values never exists
    at full size. A single row larger than `max_bytes` travels alone.
    """

    def __init__(self, source: pa.Schema, preserve_dictionary: bool, max_bytes: int = MAX_BATCH_BYTES) -> None:
        self.schema = edge_schema(source, preserve_dictionary)
        self._preserve_dictionary = preserve_dictionary
        self._max_bytes = max_bytes
        self._is_plain = source.types == self.schema.types and not any(map(_is_made_of_others, source.types))
        bits = [_row_bits(kind) for kind in source.types]
        self._row_bits = sum(bits) if self._is_plain and all(bits) else None

    def convert(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Raises `pyarrow.ArrowInvalid` for a timestamp that nanoseconds can't hold."""
        if self._preserve_dictionary:
            columns = [tidy_dictionary(column) for column in batch.columns]
            batch = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
        for part in self._cut(batch):
            if self._is_plain and part.schema.equals(self.schema, check_metadata=True):
                yield part
                continue
            columns = [convert(column, field.type) for column, field in zip(part.columns, self.schema, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _cut(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        if batch.num_rows <= 1:
            yield batch
            return
        size = self._bytes_of(batch)
        if size <= self._max_bytes:
            yield batch
            return
        # Rows may be of very different sizes: each part is measured again.
        parts = min(batch.num_rows, max(2, -(-size // self._max_bytes)))
        rows = -(-batch.num_rows // parts)
        for start in range(0, batch.num_rows, rows):
            yield from self._cut(batch.slice(start, rows))

    def _bytes_of(self, batch: pa.RecordBatch) -> int:
        if self._row_bits is not None:
            # of many columns, `nbytes` takes an eighth of what all else takes until they are sent
            return int(batch.num_rows) * self._row_bits // 8
        if self._is_plain:
            return int(batch.nbytes)
        return sum(_data_bytes(column, self._preserve_dictionary) for column in batch.columns)


def tidy_dictionary(array: Any) -> Any:
    """A dictionary array whose dictionary holds each value once, no null, and not more values than there are rows.

    The engine joins dictionaries without looking for repeated values, which pandas refuses as categories; and it leaves
    a whole dictionary behind a few rows. Other arrays are returned as they are, and so are dictionaries of nested
    values, which can't be compared.
    """
    if not pa.types.is_dictionary(array.type) or pa.types.is_nested(array.type.value_type):
        return array
    # views can't be taken from
    values, indices = convert(array.dictionary, edge_type(array.type.value_type, True)), array.indices
    if len(values) > len(array):
        used = pc.unique(indices.drop_null())
        values, indices = values.take(used), pc.index_in(indices, used)
    distinct = values.dictionary_encode()
    if len(distinct.dictionary) != len(values):
        indices = pc.take(distinct.indices, indices)
        values = distinct.dictionary
    if len(values) == len(array.dictionary):
        return array
    return pa.DictionaryArray.from_arrays(indices.cast(array.type.index_type), values, ordered=array.type.ordered)


def convert(array: Any, target: Any) -> Any:
    """`array` as type `target`, which must be an edge type of its own type."""
    if array.type.equals(target):
        return array
    if len(array) == 0:
        return pa.array([], target)
    kind = array.type
    if pa.types.is_dictionary(kind):
        if pa.types.is_dictionary(target):
            return pa.DictionaryArray.from_arrays(
                array.indices, convert(array.dictionary, target.value_type), ordered=kind.ordered
            )
        return pc.take(convert(array.dictionary, target), array.indices)
    if pa.types.is_run_end_encoded(kind):
        return convert(pc.run_end_decode(array), target)
    if pa.types.is_struct(kind):
        children = [convert(array.field(i), target.field(i).type) for i in range(target.num_fields)]
        fields = [target.field(i) for i in range(target.num_fields)]
        return pa.StructArray.from_arrays(children, fields=fields, mask=array.is_null())
    if pa.types.is_map(kind):
        offsets, start, length = _own_offsets(array)
        keys = convert(array.keys.slice(start, length), target.key_type)
        items = convert(array.items.slice(start, length), target.item_type)
        return pa.MapArray.from_arrays(offsets, keys, items, type=target, mask=array.is_null())
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        values = convert(array.values.slice(array.offset * size, len(array) * size), target.value_type)
        return pa.FixedSizeListArray.from_arrays(values, type=target, mask=array.is_null())
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return _list_of_view(array, target)
    if pa.types.is_large_list(kind):
        return convert(array.cast(pa.list_(kind.value_field)), target)
    if pa.types.is_list(kind):
        offsets, start, length = _own_offsets(array)
        values = convert(array.values.slice(start, length), target.value_type)
        return pa.ListArray.from_arrays(offsets, values, type=target, mask=array.is_null())
    return array.cast(target)


def _own_offsets(array: Any) -> tuple[Any, int, int]:
    """Offsets of a list or map that start at 0, with the first value and the number of values that they cover."""
    offsets = array.offsets
    start, end = offsets[0].as_py(), offsets[-1].as_py()
    return pc.subtract(offsets, offsets[0]), start, end - start


def _list_of_view(array: Any, target: Any) -> Any:
    """A list view as a list. (pyarrow's own cast makes lists with an offset too few.)"""
    lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int32())
    ends = pc.cumulative_sum(lengths)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    return pa.ListArray.from_arrays(
        offsets, convert(array.flatten(), target.value_type), type=target, mask=array.is_null()
    )


def _row_bits(kind: Any) -> int:
    """Of a value and whether it is null; 0 where rows differ."""
    try:
        return int(kind.bit_width) + 1
    except ValueError:
        return 0


def _is_made_of_others(kind: Any) -> bool:
    return bool(pa.types.is_nested(kind) or pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind))


def _is_variable_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def _data_bytes(array: Any, preserve_dictionary: bool) -> int:
    """About the bytes that the rows of `array` take once converted; dictionaries that stay are not counted (they are
    sent once)."""
    if len(array) == 0:
        return 0
    kind = array.type
    if pa.types.is_dictionary(kind):
        if preserve_dictionary:
            return int(array.indices.nbytes)
        return _taken_bytes(array)
    if pa.types.is_run_end_encoded(kind):
        return _data_bytes(pc.run_end_decode(array), preserve_dictionary)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return _data_bytes(array.cast(pa.large_binary()), preserve_dictionary)
    if pa.types.is_struct(kind):
        return sum(_data_bytes(array.field(i), preserve_dictionary) for i in range(kind.num_fields))
    if pa.types.is_map(kind):
        _, start, length = _own_offsets(array)
        return 4 * len(array) + sum(
            _data_bytes(values.slice(start, length), preserve_dictionary) for values in (array.keys, array.items)
        )
    if _is_variable_list(kind) or pa.types.is_fixed_size_list(kind):
        return 4 * len(array) + _data_bytes(array.flatten(), preserve_dictionary)
    return int(array.nbytes)


def _taken_bytes(array: Any) -> int:
    """Bytes of a dictionary array's values written out row by row."""
    values = array.dictionary
    kind = values.type
    if len(values) == 0:
        return len(array)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        values = values.cast(pa.large_binary())
        kind = values.type
    if pa.types.is_primitive(kind) or pa.types.is_boolean(kind):
        return len(array) * 8
    if (
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
    ):
        lengths = pc.take(pc.binary_length(values), array.indices)
        return 4 * len(array) + int(pc.sum(lengths).as_py() or 0)
    # Nested values: every row as large as the largest could be would cut too finely, the mean is near enough to
    # cut again.
    return len(array) * (1 + _data_bytes(values, preserve_dictionary=False) // len(values))
