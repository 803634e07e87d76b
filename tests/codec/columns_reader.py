"""A reader of blocks in columns, written from the words of docs/decisions alone: it must never use the product's code.

It gives the records of both buffers as (type index, body), and events that keep template and values apart as such.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import zstandard

Layout = Sequence[dict[str, Any]]
Record = tuple[int, bytes]

PRIMITIVES = {
    "u8": 1,
    "uint8": 1,
    "u32": 4,
    "uint32": 4,
    "u64": 8,
    "uint64": 8,
    "i64": 8,
    "int64": 8,
    "f64": 8,
}


class Malformed(ValueError):
    pass


@dataclass
class Body:
    bytes: bytes
    position: int = 0

    def take(self, length: int) -> bytes:
        if length > len(self.bytes) - self.position:
            raise Malformed(f"{length} bytes at {self.position}")
        self.position += length
        return self.bytes[self.position - length : self.position]

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def signed(self) -> int:
        value = self.varint()
        return value >> 1 ^ -(value & 1)


def body_of(packed: bytes) -> Body:
    """The segments, decompressed and joined."""
    source = Body(packed)
    if source.byte() != 0xC1:
        raise Malformed("magic")
    pieces = []
    while source.position < len(packed):
        length, stored = source.varint(), source.varint()
        if stored == 0:
            pieces.append(source.take(length))
        else:
            piece = zstandard.ZstdDecompressor().decompress(source.take(stored), max_output_size=length)
            if len(piece) != length:
                raise Malformed("length of a segment")
            pieces.append(piece)
    return Body(b"".join(pieces))


def integer_groups(body: Body, lengths: Sequence[int]) -> list[list[int]]:
    """Values as integers from 0 to 2^64 - 1."""
    heads = []
    for length in lengths:
        if length == 0:
            heads.append((0, False, 0, 0))
            continue
        byte = body.byte()
        base = body.signed() if byte & 0x20 else 0
        start = body.signed() if byte & 0x10 else 0
        heads.append((byte & 15, bool(byte & 0x10), base, start))
    residuals: list[list[int]] = [[0] * length for length in lengths]
    for planes in range(1, 9):
        members = [index for index, head in enumerate(heads) if head[0] == planes]
        for plane in range(planes):
            for index in members:
                for place, byte in enumerate(body.take(lengths[index])):
                    residuals[index][place] |= byte << 8 * plane
    values = []
    for (_, is_delta, base, start), group in zip(heads, residuals, strict=True):
        made = []
        previous = start
        for residual in group:
            value = (base + residual + previous) % 2**64
            previous = value if is_delta else start
            made.append(value)
        values.append(made)
    return values


def integers(body: Body, length: int) -> list[int]:
    return integer_groups(body, [length])[0]


def signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def float_groups(body: Body, lengths: Sequence[int]) -> list[list[int]]:
    """The bits of the floats."""
    heads: list[tuple[int | None, dict[int, int]]] = []
    for length in lengths:
        exponent: int | None = None
        exceptions = {}
        if length > 0 and (byte := body.byte()) != 0xFF:
            exponent = byte
            place = -1
            for _ in range(body.varint()):
                place += 1 + body.varint()
                exceptions[place] = struct.unpack("<Q", body.take(8))[0]
        heads.append((exponent, exceptions))
    groups = []
    for (exponent, exceptions), values in zip(heads, integer_groups(body, lengths), strict=True):
        if exponent is not None:
            decimals = (struct.unpack("<Q", struct.pack("<d", signed(value) / 10.0**exponent))[0] for value in values)
            groups.append([exceptions.get(place, bits) for place, bits in enumerate(decimals)])
        else:
            groups.append(values)
    return groups


@dataclass
class References:
    ids: list[int]
    indexes: list[int]
    distinct: int


def references(body: Body, length: int) -> References:
    indexes = integers(body, length)
    distinct = body.varint()
    ids = integers(body, distinct)
    return References([ids[index] for index in indexes], indexes, distinct)


def run(body: Body, count: int) -> list[bytes]:
    lengths = integers(body, count)
    return [body.take(length) for length in lengths]


def texts(body: Body, length: int) -> list[bytes]:
    if body.byte() == 0:
        return run(body, length)
    indexes = integers(body, length)
    dictionary = run(body, body.varint())
    return [dictionary[index] for index in indexes]


def log_values(body: Body, rows: int, sites: References | None) -> list[bytes]:
    """The values of each row as they stand in a record."""
    counts = integers(body, rows)
    is_grouped = body.byte() == 1
    groups = 32 * (sites.distinct if is_grouped and sites else 1)
    owners = [
        32 * (sites.indexes[row] if is_grouped and sites else 0) + place
        for row, count in enumerate(counts)
        for place in range(count)
    ]
    sizes = Counter(owners)
    tags = integer_groups(body, [sizes[group] for group in range(groups)])
    of_type = {tag: [group.count(tag) for group in tags] for tag in (3, 4, 5)}
    whole = [iter(group) for group in integer_groups(body, of_type[3])]
    real = [iter(group) for group in float_groups(body, of_type[4])]
    text = [iter(group) for group in integer_groups(body, of_type[5])]
    dictionary = run(body, body.varint())
    remaining = [iter(group) for group in tags]
    owner = iter(owners)
    made = []
    for count in counts:
        record = bytes([count])
        for _ in range(count):
            group = next(owner)
            tag = next(remaining[group])
            record += bytes([tag])
            if tag == 3:
                record += struct.pack("<Q", next(whole[group]))
            elif tag == 4:
                record += struct.pack("<Q", next(real[group]))
            elif tag == 5:
                raw = dictionary[next(text[group])]
                record += struct.pack("<I", len(raw)) + raw
        made.append(record)
    return made


@dataclass
class Part:
    kind: str
    offset: int = 0
    size: int = 8
    places: tuple[int, ...] = ()


@dataclass
class Shape:
    """What records of a type are made of; no parts at all: bytes."""

    size: int
    parts: list[Part] | None
    begin: int | None = None


def leaves(layout: Layout, each: dict[str, Any], start: int) -> Iterator[tuple[int, str, str]]:
    seen = set()
    for member in each["members"]:
        if member["name"] in seen:
            continue
        seen.add(member["name"])
        offset = start + member["offset"]
        if member["is_reference"]:
            yield offset, "reference", member["name"]
        elif member["type_name"] in PRIMITIVES:
            yield offset, member["type_name"], member["name"]
        else:
            inner = next(other for other in layout if other["name"] == member["type_name"])
            if inner["is_reference"]:
                yield offset + handle_offset(inner), "reference", member["name"]
            else:
                yield from leaves(layout, inner, offset)


def handle_offset(handle: dict[str, Any], name: str = "id") -> int:
    return int(next(member["offset"] for member in handle["members"] if member["name"] == name))


def shapes(layout: Layout, *, is_objects: bool) -> list[Shape]:
    made = [shape(layout, each, is_objects) for each in layout]
    for index, each in enumerate(layout):
        begins = [place for place, other in enumerate(layout) if other["name"] == "Begin" + each["name"][3:]]
        if not each["name"].startswith("End") or not begins:
            continue
        ended, begun = made[index], made[begins[0]]
        if ended.size and ended.parts is not None and (ended.size, ended.parts) == (begun.size, begun.parts):
            ended.begin = begins[0] if any(part.kind == "running" for part in ended.parts) else None
    return made


def shape(layout: Layout, each: dict[str, Any], is_objects: bool) -> Shape:
    if each["size"] == 0:
        return Shape(0, varying(layout, each["name"], is_objects))
    parts: list[Part] = []
    covered: set[int] = set()
    for offset, kind, name in leaves(layout, each, 0):
        size = PRIMITIVES.get(kind, 8)
        place = range(offset, offset + size)
        is_running = name == ("time" if is_objects else "id") and kind in ("i64", "u64", "int64", "uint64")
        if covered & set(place):
            parts += [Part("u8", at, 1) for at in place if at not in covered]
        elif is_running and not any(part.kind == "running" for part in parts):
            parts.append(Part("running", offset))
        else:
            parts.append(Part(kind, offset, size))
        covered |= set(place)
    return Shape(each["size"], parts if len(parts) <= 256 and each["size"] <= 65536 else None)


def varying(layout: Layout, name: str, is_objects: bool) -> list[Part] | None:
    def handle(type_name: str) -> Part:
        found = next(each for each in layout if each["name"] == type_name)
        return Part("handle", handle_offset(found), found["size"])

    target = (lambda: handle("StringId")) if name == "LogStringInteropEventV2" else (lambda: handle("StaticStringRef"))
    reference, running, text, rest = Part("reference"), Part("running"), Part("text"), Part("rest")
    if not is_objects:
        property_type = next((each for each in layout if each["name"] == "Property"), None)
        forms: dict[str, Callable[[], list[Part]]] = {
            "StaticString": lambda: [running, rest],
            "StaticStringDependency": lambda: [running, text, rest],
        }
        if property_type is not None:
            forms["PropertySetDependency"] = lambda: [
                running,
                Part("properties", 0, property_type["size"], tuple(property_places(layout, property_type))),
                rest,
            ]
    else:
        forms = {
            "LogStringEvent": lambda: [reference, running, rest],
            "LogStringEventV2": lambda: [reference, running, text, rest],
            "TaggedLogString": lambda: [reference, reference, running, text, rest],
            "LogStringInteropEventV2": lambda: [running, Part("u32", 0, 4), target(), rest],
            "LogStringInteropEventV3": lambda: [running, Part("u8", 0, 1), target(), text, rest],
            "TaggedLogInteropEvent": lambda: [running, Part("u8", 0, 1), target(), reference, text, rest],
            "ImageEvent": lambda: [running, text, text, Part("blob"), rest],
            "LogTemplateEvent": lambda: [reference, reference, running, Part("values")],
        }
    form = forms.get(name)
    return form() if form is not None else None


def property_places(layout: Layout, property_type: dict[str, Any]) -> Iterator[int]:
    places = {name: offset for offset, _, name in leaves(layout, property_type, 0)}
    yield places["name"]
    yield places["value"]


@dataclass
class Columns:
    """The rows of one type."""

    bytes: Iterator[bytes] | None = None
    distances: Iterator[int] | None = None
    parts: list[Any] = field(default_factory=list)
    open: list[bytes] = field(default_factory=list)


def read_columns(body: Body, each: Shape, count: int) -> Columns:
    if body.byte() == 0:
        return Columns(bytes=iter(texts(body, count)))
    columns = Columns()
    rows = count
    if each.begin is not None:
        distances = integers(body, count)
        rows = distances.count(0)
        columns.distances = iter(distances)
    sites: References | None = None
    assert each.parts is not None
    for part in each.parts:
        if part.kind == "running":
            columns.parts.append(iter(integers(body, count)))
        elif part.kind in ("reference", "handle"):
            column = references(body, rows)
            sites = sites or column
            columns.parts.append(iter(column.ids))
        elif part.kind == "text":
            codecs = integers(body, rows)
            columns.parts.append(iter(list(zip(codecs, texts(body, rows), strict=True))))
        elif part.kind in ("blob", "rest"):
            columns.parts.append(iter(texts(body, rows)))
        elif part.kind == "properties":
            counts = integers(body, rows)
            columns.parts.append((iter(counts), iter(references(body, 2 * sum(counts)).ids)))
        elif part.kind == "values":
            columns.parts.append(iter(log_values(body, rows, sites)))
        else:
            read = float_groups if part.kind == "f64" else integer_groups
            if body.byte() == 0:
                columns.parts.append(iter(read(body, [rows])[0]))
            else:
                assert sites is not None
                lengths = [sites.indexes.count(site) for site in range(sites.distinct)]
                groups = [iter(group) for group in read(body, lengths)]
                columns.parts.append(iter([next(groups[site]) for site in sites.indexes]))
    return columns


def fixed_record(each: Shape, columns: Columns, begins: list[bytes], running: list[int]) -> bytes:
    distance = next(columns.distances) if columns.distances is not None else 0
    record = bytearray(each.size)
    if distance:
        begun = begins.pop(-distance)
        for part in each.parts or ():
            record[part.offset : part.offset + part.size] = begun[part.offset : part.offset + part.size]
    for part, values in zip(each.parts or (), columns.parts, strict=True):
        if part.kind == "running":
            running[0] = (running[0] + next(values)) % 2**64
            record[part.offset : part.offset + 8] = struct.pack("<Q", running[0])
        elif not distance:
            record[part.offset : part.offset + part.size] = next(values).to_bytes(part.size, "little")
    return bytes(record)


def varying_record(each: Shape, columns: Columns, running: list[int]) -> bytes:
    record = b""
    for part, values in zip(each.parts or (), columns.parts, strict=True):
        if part.kind == "running":
            running[0] = (running[0] + next(values)) % 2**64
            record += struct.pack("<Q", running[0])
        elif part.kind == "handle":
            handle = bytearray(part.size)
            handle[part.offset : part.offset + 8] = struct.pack("<Q", next(values))
            record += handle
        elif part.kind == "text":
            codec, raw = next(values)
            record += struct.pack("<BI", codec, len(raw)) + raw
        elif part.kind == "blob":
            raw = next(values)
            record += struct.pack("<I", len(raw)) + raw
        elif part.kind in ("rest", "values"):
            record += next(values)
        elif part.kind == "properties":
            count = next(values[0])
            record += struct.pack("<I", count)
            for _ in range(count):
                pair = bytearray(part.size)
                for place in part.places:
                    pair[place : place + 8] = struct.pack("<Q", next(values[1]))
                record += pair
        else:
            record += next(values).to_bytes(part.size, "little")
    return record


def buffer(body: Body, layout: Layout, *, is_objects: bool) -> list[Record]:
    kinds = integers(body, body.varint())
    forms = shapes(layout, is_objects=is_objects)
    counts = Counter(kinds)
    columns = {kind: read_columns(body, forms[kind], counts[kind]) for kind in sorted(counts)}
    running = [0]
    records = []
    for kind in kinds:
        each, mine = forms[kind], columns[kind]
        if mine.bytes is not None:
            record = next(mine.bytes)
        elif each.size:
            begins = columns[each.begin].open if each.begin in columns else []
            record = fixed_record(each, mine, begins, running)
            mine.open.append(record)
        else:
            record = varying_record(each, mine, running)
        records.append((kind, record))
    return records


def read_block(packed: bytes, dependencies: Layout, objects: Layout) -> tuple[list[Record], list[Record]]:
    """The records of the dependencies and of the events of a payload's `objects`."""
    body = body_of(packed)
    found = buffer(body, dependencies, is_objects=False), buffer(body, objects, is_objects=True)
    if body.position != len(body.bytes):
        raise Malformed("bytes at the end")
    return found
