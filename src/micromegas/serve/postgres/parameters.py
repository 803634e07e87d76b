"""Values that a client binds to a statement: from text or binary form into Arrow scalars. What can't be read is an
error, never a guess."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import pyarrow as pa

from micromegas.serve.postgres import types
from micromegas.serve.postgres.errors import PostgresError, not_offered, protocol_violation
from micromegas.serve.postgres.messages import decoded

UNKNOWN_OIDS = frozenset({0, 705})
_UUID, _OID, _NAME, _VARCHAR, _BPCHAR, _REGCLASS, _CHAR = 2950, 26, 19, 1043, 1042, 2205, 18
_TEXTS = frozenset({25, _VARCHAR, _BPCHAR, _NAME, _CHAR, 114, 3802, *UNKNOWN_OIDS})
_POSTGRES_DAY = date(2000, 1, 1)
_NS_OF_EPOCH = 946_684_800 * 10**9
_MAX_NS, _MIN_NS = 2**63 - 1, -(2**63) + 1
_TZ = pa.timestamp("ns", "+00:00")

# The type by which a client binds a placeholder whose Arrow type a statement tells.
_OID_OF_ARROW = {
    pa.bool_(): 16,
    pa.int8(): 21,
    pa.uint8(): 21,
    pa.int16(): 21,
    pa.uint16(): 23,
    pa.int32(): 23,
    pa.uint32(): 20,
    pa.int64(): 20,
    pa.uint64(): 20,
    pa.float32(): 700,
    pa.float64(): 701,
    pa.date32(): 1082,
    pa.binary(): 17,
    pa.timestamp("ns"): 1114,
    _TZ: 1184,
}


def oid_of(kind: pa.DataType) -> int:
    """The type by which clients bind values of an Arrow type; text for those that have no better."""
    if pa.types.is_timestamp(kind):
        return types.TIMESTAMP.oid if kind.tz is None else types.TIMESTAMPTZ.oid
    return _OID_OF_ARROW.get(kind, types.TEXT.oid)


def bound_scalars(oids: Sequence[int], formats: Sequence[int], values: Sequence[bytes | None]) -> dict[str, pa.Scalar]:
    """One scalar per value, by the number of its placeholder."""
    if len(values) != len(oids):
        raise protocol_violation(f"bind message supplies {len(values)} parameters, but the statement needs {len(oids)}")
    if len(formats) > 1 and len(formats) != len(values):
        raise protocol_violation(f"bind message has {len(formats)} formats for {len(values)} parameters")
    if any(form not in (types.TEXT_FORM, types.BINARY_FORM) for form in formats):
        raise PostgresError("22023", "a format of parameters must be 0 or 1")
    forms = list(formats) * len(values) if len(formats) == 1 else list(formats) or [types.TEXT_FORM] * len(values)
    return {
        str(number): scalar_of(oid, form, value)
        for number, (oid, form, value) in enumerate(zip(oids, forms, values, strict=True), 1)
    }


def scalar_of(oid: int, form: int, value: bytes | None) -> pa.Scalar:
    """A bound value; raises `PostgresError` for what is none of its type."""
    element_oid = _ARRAYS.get(oid)
    kind = _KINDS.get(oid if element_oid is None else element_oid)
    if kind is None:
        raise not_offered(
            f"parameters of the type with oid {oid} are not offered", "cast the placeholder, as in $1::text"
        )
    if value is None:
        return pa.scalar(None, kind if element_oid is None else pa.list_(kind))
    try:
        if element_oid is not None:
            items = _items(element_oid, form, value)
            return pa.scalar(items, pa.list_(_wide_enough(kind, items)))
        content = _python_value(oid, form, value)
        return pa.scalar(content, _wide_enough(kind, [content]))
    except (ValueError, ArithmeticError, struct.error, pa.ArrowException, OverflowError):
        shown = f': "{decoded(value)[:100]}"' if form == types.TEXT_FORM else ""
        state = "22P02" if form == types.TEXT_FORM else "22P03"
        raise PostgresError(state, f"invalid parameter of the type with oid {oid}{shown}") from None


def _python_value(oid: int, form: int, value: bytes) -> Any:
    if oid in _TEXTS:
        content = decoded(value)
        # the binary form of jsonb begins with its version
        return content[1:] if oid == types.JSONB.oid and form == types.BINARY_FORM else content
    if form == types.TEXT_FORM:
        return _FROM_TEXT[oid](decoded(value).strip())
    return _FROM_BINARY[oid](value)


def _bool_of(text: str) -> bool:
    word = text.lower()
    if word in ("t", "true", "1", "y", "yes", "on"):
        return True
    if word in ("f", "false", "0", "n", "no", "off"):
        return False
    raise ValueError(text)


def _bytes_of(text: str) -> bytes:
    if text.startswith("\\x"):
        return bytes.fromhex(text[2:])
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def _moment_of(text: str) -> int:
    """In ns; what no event can have been at, as `infinity`, becomes the last or first time that there is."""
    if text.lower() in ("infinity", "-infinity"):
        return _MIN_NS if text.startswith("-") else _MAX_NS
    moment = datetime.fromisoformat(text)
    since = moment.replace(tzinfo=moment.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return _clamped(((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) * 1000)


def _clamped(nanoseconds: int) -> int:
    return max(_MIN_NS, min(_MAX_NS, nanoseconds))


def _decimal_of(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if not value.is_finite():
        raise ValueError(text)
    return value


def _numeric_of(content: bytes) -> Decimal:
    count, weight, sign, scale = struct.unpack_from("!hhHh", content)
    if sign not in (0, 0x4000):
        raise ValueError("not a number")
    # whole numbers, since sums of decimals are rounded to 28 digits
    total = 0
    for digit in struct.unpack_from(f"!{count}h", content, 8):
        total = total * 10_000 + digit
    missing = (weight - count + 1) * 4 + scale
    total = total * 10**missing if missing >= 0 else total // 10**-missing
    return Decimal((int(bool(sign)), tuple(map(int, str(total))), -scale))


def _wide_enough(kind: pa.DataType, values: Sequence[Any]) -> pa.DataType:
    """The type itself; of decimals one that holds all digits of the values."""
    decimals = [value for value in values if isinstance(value, Decimal)]
    if not decimals:
        return kind
    scale = max(kind.scale, *(-int(value.as_tuple().exponent) for value in decimals))
    digits = scale + max(0, *(value.adjusted() + 1 for value in decimals))
    if digits > 76:
        raise ValueError(f"a number of {digits} digits")
    return pa.decimal128(38, scale) if digits <= 38 else pa.decimal256(76, scale)


def _interval_of(content: bytes) -> pa.MonthDayNano:
    microseconds, days, months = struct.unpack("!qii", content)
    return pa.MonthDayNano([months, days, microseconds * 1000])


_INTERVAL_PART = re.compile(
    r"(?P<number>[+-]?\d+(?:\.\d+)?)\s*(?P<unit>[a-z]+),?|(?P<sign>[+-]?)(?P<h>\d+):(?P<m>\d+)(?::(?P<s>\d+(?:\.\d+)?))?"
)
_UNIT_SECONDS = {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600}
_UNIT_DAYS = {"day": 1, "week": 7}
_UNIT_MONTHS = {"mon": 1, "month": 1, "year": 12}


def _interval_of_text(text: str) -> pa.MonthDayNano:
    months = days = 0
    nanoseconds = Decimal(0)
    if _INTERVAL_PART.sub("", text.lower()).strip():
        raise ValueError(text)
    for part in _INTERVAL_PART.finditer(text.lower()):
        if part["unit"] is None:
            seconds = int(part["h"]) * 3600 + int(part["m"]) * 60 + Decimal(part["s"] or 0)
            nanoseconds += (-seconds if part["sign"] == "-" else seconds) * 10**9
            continue
        number, unit = Decimal(part["number"]), part["unit"].removesuffix("s")
        if unit in _UNIT_SECONDS:
            nanoseconds += number * _UNIT_SECONDS[unit] * 10**9
        elif unit in _UNIT_DAYS and number == int(number):
            days += int(number) * _UNIT_DAYS[unit]
        elif unit in _UNIT_MONTHS and number == int(number):
            months += int(number) * _UNIT_MONTHS[unit]
        else:
            raise ValueError(text)
    return pa.MonthDayNano([months, days, int(nanoseconds)])


def _unpacked(layout: str) -> Callable[[bytes], Any]:
    return lambda content: struct.unpack(layout, content)[0]


def _nanoseconds_of(content: bytes) -> int:
    return _clamped(int(struct.unpack("!q", content)[0]) * 1000 + _NS_OF_EPOCH)


def _time_of(content: bytes) -> time:
    return (datetime.min + timedelta(microseconds=struct.unpack("!q", content)[0])).time()


def _date_of(content: bytes) -> date:
    return _POSTGRES_DAY + timedelta(days=struct.unpack("!i", content)[0])


def _one_byte(content: bytes) -> bool:
    return bool(struct.unpack("!?", content)[0])


_KINDS: dict[int, pa.DataType] = {
    **dict.fromkeys(_TEXTS, pa.string()),
    16: pa.bool_(),
    17: pa.binary(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    _OID: pa.int64(),
    _REGCLASS: pa.int64(),
    700: pa.float32(),
    701: pa.float64(),
    1082: pa.date32(),
    1083: pa.time64("us"),
    1114: pa.timestamp("ns"),
    1184: _TZ,
    1186: pa.month_day_nano_interval(),
    1700: pa.decimal128(38, 10),
    _UUID: pa.string(),
}
_FROM_TEXT: dict[int, Callable[[str], Any]] = {
    16: _bool_of,
    17: _bytes_of,
    **dict.fromkeys((20, 21, 23, _OID, _REGCLASS), int),
    700: float,
    701: float,
    1082: date.fromisoformat,
    1083: time.fromisoformat,
    1114: _moment_of,
    1184: _moment_of,
    1186: _interval_of_text,
    1700: _decimal_of,
    _UUID: lambda text: str(UUID(text)),
}
_FROM_BINARY: dict[int, Callable[[bytes], Any]] = {
    16: _one_byte,
    17: bytes,
    20: _unpacked("!q"),
    21: _unpacked("!h"),
    23: _unpacked("!i"),
    _OID: _unpacked("!I"),
    _REGCLASS: _unpacked("!I"),
    700: _unpacked("!f"),
    701: _unpacked("!d"),
    1082: _date_of,
    1083: _time_of,
    1114: _nanoseconds_of,
    1184: _nanoseconds_of,
    1186: _interval_of,
    1700: _numeric_of,
    _UUID: lambda content: str(UUID(bytes=content)),
}
# element types by the type of their array
_ARRAYS = {
    1000: 16,
    1001: 17,
    1005: 21,
    1007: 23,
    1016: 20,
    1009: 25,
    1015: 25,
    1021: 700,
    1022: 701,
    1182: 1082,
    1183: 1083,
    1185: 1184,
    1115: 1114,
    1187: 1186,
    1231: 1700,
    2951: _UUID,
}


def _items(element_oid: int, form: int, value: bytes) -> list[Any]:
    """The elements of an array, as Python has them."""
    if form == types.TEXT_FORM:
        return [
            None if item is None else _python_value(element_oid, form, item.encode("utf-8"))
            for item in array_items(decoded(value))
        ]
    dimensions, _, oid = struct.unpack_from("!iiI", value)
    if dimensions == 0:
        return []
    if dimensions != 1:
        raise not_offered("parameters of arrays of arrays are not offered")
    if oid != element_oid and not {oid, element_oid} <= _TEXTS:
        raise PostgresError("22P03", f"an array of the type with oid {oid} for elements of {element_oid}")
    (count,) = struct.unpack_from("!i", value, 12)
    place = 20
    items: list[Any] = []
    for _ in range(count):
        (length,) = struct.unpack_from("!i", value, place)
        place += 4
        end = place + max(0, length)
        if end > len(value):
            raise PostgresError("22P03", "an array parameter ends too early")
        items.append(None if length == -1 else _python_value(oid, form, value[place:end]))
        place = end
    return items


def array_items(text: str) -> list[str | None]:
    """Elements of an array of one dimension in its text form."""
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")):
        raise PostgresError("22P02", f'malformed array literal: "{text[:100]}"')
    items: list[str | None] = []
    body = text[1:-1]
    place = 0
    while place < len(body) or (items and place == len(body) and body.endswith(",")):
        item, quoted, place = _array_item(body, place)
        items.append(None if not quoted and item.upper() == "NULL" else item)
        place += 1
    return items


def _array_item(body: str, place: int) -> tuple[str, bool, int]:
    """An element, whether it was quoted, and where its comma stands."""
    out: list[str] = []
    quoted = in_quotes = False
    while place < len(body):
        letter = body[place]
        if letter == "\\" and place + 1 < len(body):
            place += 1
            out.append(body[place])
        elif letter == '"':
            quoted, in_quotes = True, not in_quotes
        elif letter == "," and not in_quotes:
            break
        elif letter in "{}" and not in_quotes:
            raise not_offered("arrays of arrays are not offered")
        else:
            out.append(letter)
        place += 1
    if in_quotes:
        raise PostgresError("22P02", "malformed array literal: a quote is not closed")
    item = "".join(out)
    return (item if quoted else item.strip()), quoted, place
