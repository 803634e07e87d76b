"""Bulk ingestion: rows of `processes`, `streams`, `blocks` and `payloads` of another lake, as Arrow batches.

Columns are found by name, in any order and any Arrow type that holds such values; other columns are ignored.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from micromegas import _engine
from micromegas.lake import BlockHeader, BlockIds, LakeCorrupt, LakeUnavailable, ReplicaMismatch, Replication
from micromegas.serve.edge_types import convert, edge_type
from micromegas.serve.flight.errors import FlightError, invalid
from micromegas.wire import TRANSIT_FORMAT, Process, Stream

_TEXT = pa.string()
_BYTES = pa.binary()
_INT = pa.int64()
_TIME = pa.timestamp("ns", tz="+00:00")
_PROPERTIES = pa.map_(pa.string(), pa.string())
_PAIRS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
_TEXTS = pa.list_(pa.string())

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Column:
    """`absent`: the value of a column that isn't there; without it the column is needed."""

    kind: Any
    absent: Any = ...


_IDS = {"block_id": _Column(_TEXT), "stream_id": _Column(_TEXT), "process_id": _Column(_TEXT)}

_TABLES: dict[str, dict[str, _Column]] = {
    "processes": {
        "process_id": _Column(_TEXT),
        **dict.fromkeys(("exe", "username", "realname", "computer", "distro", "cpu_brand"), _Column(_TEXT, "")),
        "tsc_frequency": _Column(_INT),
        "start_time": _Column(_TIME),
        "start_ticks": _Column(_INT),
        "parent_process_id": _Column(_TEXT, None),
        "properties": _Column(_PROPERTIES, None),
    },
    "streams": {
        "process_id": _Column(_TEXT),
        "stream_id": _Column(_TEXT),
        "dependencies_metadata": _Column(_BYTES),
        "objects_metadata": _Column(_BYTES),
        "tags": _Column(_TEXTS, None),
        "properties": _Column(_PROPERTIES, None),
        # older servers have one format only, and no such column
        "format": _Column(_TEXT, TRANSIT_FORMAT),
    },
    "blocks": {
        **_IDS,
        "begin_time": _Column(_TIME),
        "begin_ticks": _Column(_INT),
        "end_time": _Column(_TIME),
        "end_ticks": _Column(_INT),
        "nb_objects": _Column(_INT),
        "object_offset": _Column(_INT),
        "payload_size": _Column(_INT),
    },
    "payloads": {**_IDS, "payload": _Column(_BYTES)},
}


class BulkTable:
    """The table that a bulk ingestion names; an invalid-argument error for one that isn't offered."""

    def __init__(self, name: str) -> None:
        columns = _TABLES.get(name)
        if columns is None:
            raise invalid(f"bulk ingestion into {name[:100]!r} is not offered; the tables are {', '.join(_TABLES)}")
        self.name = name
        self._columns = columns

    def take(self, replication: Replication, batch: pa.RecordBatch) -> None:
        """Returns when all rows of the batch are durable. Blocks: not for an event loop."""
        rows = self._rows(batch)
        try:
            if self.name == "processes":
                replication.take_processes([Process(**row) for row in rows])
            elif self.name == "streams":
                replication.take_streams([Stream(**row) for row in rows])
            elif self.name == "blocks":
                replication.take_blocks([BlockHeader(**row) for row in rows])
            else:
                payloads = [(row.pop("payload"), row) for row in rows]
                replication.take_payloads([(BlockIds(**row), payload) for payload, row in payloads])
        except (ReplicaMismatch, LakeCorrupt) as error:
            raise invalid(str(error)) from None
        except LakeUnavailable as error:
            raise FlightError("UNAVAILABLE", f"the lake does not answer now, send the same again: {error}") from None

    def _rows(self, batch: pa.RecordBatch) -> Iterator[Row]:
        names = list(self._columns)
        values = [self._values(batch, name, column) for name, column in self._columns.items()]
        for number, row in enumerate(zip(*values, strict=True)):
            yield self._checked(number, dict(zip(names, row, strict=True)))

    def _values(self, batch: pa.RecordBatch, name: str, column: _Column) -> list[Any]:
        place = batch.schema.get_field_index(name)
        if place < 0:
            if column.absent is ...:
                raise invalid(f"bulk ingestion into {self.name}: there is no column {name}")
            return [column.absent] * batch.num_rows
        try:
            return _READERS.get(name, _values)(batch.column(place), column.kind)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise invalid(f"bulk ingestion into {self.name}, column {name}: {error}") from None

    def _checked(self, number: int, row: Row) -> Row:
        """The row with ids in their one spelling, what is absent as the value that stands for it, and no other null."""
        for name, column in self._columns.items():
            value = row[name]
            if name.endswith("_id"):
                # a process without a parent has an empty text there in some servers' views
                if value or column.absent is not None:
                    row[name] = self._uuid(number, name, value)
                else:
                    row[name] = None
            elif column.kind in (_PROPERTIES, _TEXTS):
                row[name] = value or ({} if column.kind is _PROPERTIES else [])
            elif value is None:
                raise invalid(f"bulk ingestion into {self.name}, row {number}: {name} is null")
        if not -(2**31) <= row.get("nb_objects", 0) < 2**31 or row.get("payload_size", 0) < 0:
            raise invalid(f"bulk ingestion into {self.name}, row {number}: a count is out of range")
        return row

    def _uuid(self, number: int, name: str, value: object) -> str:
        try:
            return str(uuid.UUID(str(value)))
        except ValueError:
            text = str(value)[:100]
            raise invalid(f"bulk ingestion into {self.name}, row {number}: {name} {text!r} is no uuid") from None


def _plain(array: pa.Array) -> pa.Array:
    """Without views, large types and dictionaries."""
    return convert(array, edge_type(array.type, preserve_dictionary=False))


def _values(array: pa.Array, kind: Any) -> list[Any]:
    return list(_plain(array).cast(kind).to_pylist())


def _times(array: pa.Array, kind: Any) -> list[Any]:
    """ns since the epoch: a `datetime` would lose the digits below a microsecond."""
    plain = _plain(array)
    if not pa.types.is_timestamp(plain.type):
        raise TypeError(f"{plain.type} is no time")
    return list(plain.cast(kind).cast(_INT).to_pylist())


def _properties(array: pa.Array, _kind: Any) -> list[Any]:
    """Maps, lists of (key, value) structs, or JSONB."""
    plain = _plain(array)
    if pa.types.is_map(plain.type):
        return [_without_nulls(pairs or ()) for pairs in plain.cast(_PROPERTIES).to_pylist()]
    if pa.types.is_null(plain.type):
        return [None] * len(plain)
    if pa.types.is_binary(plain.type):
        plain = pa.array(_engine.jsonb_format_json(plain))
        return [_text_values(json.loads(text)) if text else None for text in plain.to_pylist()]
    if not _has_pairs(plain.type):
        raise TypeError(f"{plain.type} holds no keys and values")
    return [
        _without_nulls((pair["key"], pair["value"]) for pair in pairs or () if pair)
        for pairs in plain.cast(_PAIRS).to_pylist()
    ]


def _has_pairs(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind)
        and pa.types.is_struct(kind.value_type)
        and {"key", "value"} <= set(kind.value_type.names)
    )


def _without_nulls(pairs: Iterable[tuple[str | None, str | None]]) -> dict[str, str]:
    return {key: value for key, value in pairs if key is not None and value is not None}


def _texts(array: pa.Array, kind: Any) -> list[Any]:
    return [[text for text in texts or () if text is not None] for texts in _values(array, kind)]


def _text_values(properties: object) -> dict[str, str]:
    if not isinstance(properties, dict):
        raise TypeError("properties must be an object")
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in properties.items()}


_READERS: Mapping[str, Callable[[Any, Any], list[Any]]] = {
    "properties": _properties,
    "tags": _texts,
    **dict.fromkeys(("start_time", "begin_time", "end_time"), _times),
}
