"""What the other end of TLS knows this server by: the digest of its certificate (RFC 5929, `tls-server-end-point`)."""

from __future__ import annotations

import hashlib

_SEQUENCE, _OBJECT_IDENTIFIER = 0x30, 0x06
_RSA, _ECDSA = bytes.fromhex("2a864886f70d0101"), bytes.fromhex("2a8648ce3d04")
# The digests by which certificates are signed, after the names of the signatures. The RFC takes the weak ones for
# SHA-256. What has no digest of its own (Ed25519), or tells it elsewhere (RSA-PSS), can't be bound to.
_DIGESTS = {
    _RSA + b"\x04": "sha256",
    _RSA + b"\x05": "sha256",
    _RSA + b"\x0b": "sha256",
    _RSA + b"\x0c": "sha384",
    _RSA + b"\x0d": "sha512",
    _RSA + b"\x0e": "sha224",
    _ECDSA + b"\x01": "sha256",
    _ECDSA + b"\x03\x01": "sha224",
    _ECDSA + b"\x03\x02": "sha256",
    _ECDSA + b"\x03\x03": "sha384",
    _ECDSA + b"\x03\x04": "sha512",
}


def endpoint_of(certificate: bytes) -> bytes | None:
    """Of a server's own certificate, as DER; None where there is nothing to bind to."""
    digest = _DIGESTS.get(_signature(certificate))
    return None if digest is None else hashlib.new(digest, certificate).digest()


def _signature(certificate: bytes) -> bytes:
    """The name of the signature: `SEQUENCE { what is signed, SEQUENCE { name, … }, … }`; empty for what is none."""
    whole = _content(certificate, 0, _SEQUENCE)
    if whole is None or (signed := _content(certificate, whole[0], _SEQUENCE)) is None:
        return b""
    if (algorithm := _content(certificate, signed[1], _SEQUENCE)) is None:
        return b""
    name = _content(certificate, algorithm[0], _OBJECT_IDENTIFIER)
    return b"" if name is None else certificate[name[0] : name[1]]


def _content(der: bytes, place: int, tag: int) -> tuple[int, int] | None:
    """Where the content of an element begins and ends; None where there is no such one."""
    if place + 2 > len(der) or der[place] != tag:
        return None
    length, begin = der[place + 1], place + 2
    if length >= 0x80:
        width = length - 0x80
        length, begin = int.from_bytes(der[begin : begin + width], "big"), begin + width
    return (begin, begin + length) if begin + length <= len(der) else None
