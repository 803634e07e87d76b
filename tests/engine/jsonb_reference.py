"""JSONB by the book (lakehouse §5), in plain Python: what the native kernels are compared with."""

from __future__ import annotations

import struct
from typing import Any

STRING, NUMBER, FALSE, TRUE, CONTAINER = 1, 2, 3, 4, 5


def number_bytes(value: float) -> bytes:
    if isinstance(value, float):
        special = {"nan": b"\x10", "inf": b"\x20", "-inf": b"\x30"}.get(str(value))
        return special or b"\x60" + struct.pack(">d", value)
    if value == 0:
        return b"\x00"
    for width in (1, 2, 4, 8):
        try:
            return (b"\x50" if value > 0 else b"\x40") + value.to_bytes(width, "big", signed=value < 0)
        except OverflowError:
            continue
    raise OverflowError(value)


def item(value: Any) -> tuple[int, bytes]:
    if value is None:
        return 0, b""
    if value is False or value is True:
        return (TRUE if value else FALSE), b""
    if isinstance(value, str):
        return STRING, value.encode()
    if isinstance(value, (int, float)):
        return NUMBER, number_bytes(value)
    return CONTAINER, encode(value)


def encode(value: Any) -> bytes:
    if isinstance(value, dict):
        pairs = sorted(value.items(), key=lambda pair: pair[0].encode())
        items = [item(key) for key, _ in pairs] + [item(member) for _, member in pairs]
        header = 0x40000000 | len(pairs)
    elif isinstance(value, list):
        items = [item(element) for element in value]
        header = 0x80000000 | len(items)
    else:
        items = [item(value)]
        header = 0x20000001
    entries = [kind << 28 | len(data) for kind, data in items]
    return struct.pack(f">{1 + len(entries)}I", header, *entries) + b"".join(data for _, data in items)
