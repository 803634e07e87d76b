"""Numbers as protobuf writes them: seven bits a byte, the lowest first."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """The bytes of a number that is not negative."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
