"""Blocks made by hand from the wire format's words: any layout, any record, right or wrong.

It must never use the product's code to write bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import cbor2
import lz4.frame

UTF8, WIDE, ANSI = 2, 1, 0


def member(name: str, type_name: str, offset: int, size: int, *, is_reference: bool = False) -> dict[str, Any]:
    return {"name": name, "type_name": type_name, "offset": offset, "size": size, "is_reference": is_reference}


def reference(name: str, offset: int) -> dict[str, Any]:
    return member(name, "* const u8", offset, 8, is_reference=True)


def udt(name: str, size: int, *members: dict[str, Any], is_reference: bool = False) -> dict[str, Any]:
    return {"name": name, "size": size, "members": list(members), "is_reference": is_reference}


def text(value: str | bytes, codec: int = UTF8) -> bytes:
    """A text with its head."""
    raw = value if isinstance(value, bytes) else value.encode("utf-16-le" if codec == WIDE else "utf-8")
    return struct.pack("<BI", codec, len(raw)) + raw


HANDLE = udt("StaticStringRef", 16, reference("id", 0), is_reference=True)
STRING_ID = udt("StringId", 16, reference("id", 0), is_reference=True)
PROPERTY = udt("Property", 16, reference("name", 0), reference("value", 8))
DEPENDENCIES = (
    udt("StaticString", 0),
    udt("StaticStringDependency", 0),
    udt("PropertySetDependency", 0),
    udt(
        "LogMetadataRecord",
        36,
        member("id", "u64", 0, 8),
        reference("fmt_str", 8),
        reference("target", 16),
        reference("file", 24),
        member("level", "u32", 32, 4),
    ),
    udt(
        "MetricMetadataDependency",
        32,
        member("id", "u64", 0, 8),
        reference("name", 8),
        reference("unit", 16),
        reference("target", 24),
    ),
    udt(
        "SpanRecord",
        36,
        member("id", "u64", 0, 8),
        reference("name", 8),
        reference("target", 16),
        reference("file", 24),
        member("line", "u32", 32, 4),
    ),
    PROPERTY,
)


@dataclass
class BlockMaker:
    """Collects dependencies and events; ids count from 1 for the whole block."""

    objects: tuple[dict[str, Any], ...]
    dependencies: tuple[dict[str, Any], ...] = DEPENDENCIES
    dependency_bytes: bytearray = field(default_factory=bytearray)
    event_bytes: bytearray = field(default_factory=bytearray)
    last_id: int = 0

    def new_id(self) -> int:
        self.last_id += 1
        return self.last_id

    def _add(self, types: tuple[dict[str, Any], ...], target: bytearray, name: str, body: bytes) -> None:
        index = next(position for position, each in enumerate(types) if each["name"] == name)
        target.append(index)
        if types[index]["size"] == 0:
            target += struct.pack("<I", len(body))
        target += body

    def dependency(self, name: str, body: bytes) -> int:
        """Adds a record with a new id in front of `body`."""
        new_id = self.new_id()
        self._add(self.dependencies, self.dependency_bytes, name, struct.pack("<Q", new_id) + body)
        return new_id

    def event(self, name: str, body: bytes) -> None:
        self._add(self.objects, self.event_bytes, name, body)

    def text(self, value: str) -> int:
        return self.dependency("StaticString", value.encode())

    def properties(self, *pairs: tuple[str, str]) -> int:
        ids = [self.text(each) for pair in pairs for each in pair]
        return self.dependency("PropertySetDependency", struct.pack(f"<I{len(ids)}Q", len(pairs), *ids))

    def log_description(self, message: str, target: str, level: int) -> int:
        ids = (self.text(message), self.text(target), self.text("file.py"))
        return self.dependency("LogMetadataRecord", struct.pack("<3QI", *ids, level))

    def metric_description(self, name: str, unit: str, target: str) -> int:
        ids = (self.text(name), self.text(unit), self.text(target))
        return self.dependency("MetricMetadataDependency", struct.pack("<3Q", *ids))

    def span_description(self, name: str, target: str, line: int) -> int:
        ids = (self.text(name), self.text(target), self.text("file.py"))
        return self.dependency("SpanRecord", struct.pack("<3QI", *ids, line))

    def payload(self) -> bytes:
        return cbor2.dumps(
            {
                "dependencies": lz4.frame.compress(bytes(self.dependency_bytes)),
                "objects": lz4.frame.compress(bytes(self.event_bytes)),
            }
        )

    def metadata(self) -> tuple[bytes, bytes]:
        return cbor2.dumps(list(self.dependencies)), cbor2.dumps(list(self.objects))

    def arguments(self) -> tuple[bytes, bytes, bytes]:
        """What `decode_events` takes."""
        return (*self.metadata(), self.payload())
