"""Bound values at the ends of what PostgreSQL can say."""

from __future__ import annotations

import struct
from datetime import date, time
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from psycopg.adapt import PyFormat, Transformer

from micromegas.serve.postgres.errors import PostgresError
from micromegas.serve.postgres.parameters import scalar_of

TEXT, BINARY = 0, 1


@pytest.mark.parametrize("text", ["0.12345678901234567890", "-12345678901234567890123456789.5", "1e30", "0", "0.00001"])
def test_numbers_keep_all_their_digits(text: str) -> None:
    number = Decimal(text)
    assert scalar_of(1700, TEXT, text.encode()).as_py() == number
    dumper = Transformer().get_dumper(number, PyFormat.BINARY)
    binary: Any = dumper.dump(number)
    assert scalar_of(1700, BINARY, bytes(binary)).as_py() == number


@pytest.mark.parametrize("text", ["1e100", "1e999999999", "NaN", "-1e-80"])
def test_numbers_that_nothing_holds_are_refused(text: str) -> None:
    with pytest.raises(PostgresError):
        scalar_of(1700, TEXT, text.encode())


@pytest.mark.parametrize("oid", [1114, 1184])
def test_times_beyond_all_events_are_the_last_and_the_first(oid: int) -> None:
    for late in (b"infinity", b"9999-12-31", b"9999-12-31 23:59:59.999999+00"):
        assert scalar_of(oid, TEXT, late).value == 2**63 - 1
    for early in (b"-infinity", b"0001-01-01"):
        assert scalar_of(oid, TEXT, early).value == -(2**63) + 1
    assert scalar_of(oid, BINARY, struct.pack("!q", 2**63 - 1)).value == 2**63 - 1
    assert scalar_of(oid, BINARY, struct.pack("!q", -(2**63))).value == -(2**63) + 1
    assert scalar_of(oid, TEXT, b"2000-01-01 00:00:00.000001").value == 946_684_800_000_001_000


@pytest.mark.parametrize(
    ("oid", "text", "expected"),
    [
        (1182, "{2026-01-31,NULL}", [date(2026, 1, 31), None]),
        (1231, "{1.5,0.123456789012}", [Decimal("1.5"), Decimal("0.123456789012")]),
        (1001, '{"\\\\x00ff"}', [b"\0\xff"]),
        (1183, "{10:20:30}", [time(10, 20, 30)]),
        (1187, '{"1 day 00:00:01"}', [pa.MonthDayNano([0, 1, 10**9])]),
    ],
)
def test_arrays_of_every_kind(oid: int, text: str, expected: list[Any]) -> None:
    assert scalar_of(oid, TEXT, text.encode()).as_py() == expected


@pytest.mark.parametrize(
    "value",
    [
        struct.pack("!iiIii", 1, 0, 25, 1, 1) + struct.pack("!i", 1) + b"x",
        struct.pack("!iiIii", 1, 0, 23, 1, 1) + struct.pack("!i", 4) + b"x",
        b"",
    ],
)
def test_arrays_that_are_none(value: bytes) -> None:
    with pytest.raises(PostgresError):
        scalar_of(1007, BINARY, value)


def test_the_engine_takes_them(connection: psycopg.Connection[Any]) -> None:
    count = "SELECT count(*) > 0 FROM log_entries WHERE "
    for condition, value in (
        ("time < %s", "infinity"),
        ("time > %s", "-infinity"),
        ("level > %s", Decimal("-0.123456789012345")),
        ("level > %s", Decimal("-12345678901234567890123456789.123456789012")),
        ("arrow_cast(level, 'Decimal128(38, 10)') <> all(%s)", [Decimal("1.23456789")]),
    ):
        assert connection.execute(count + condition, [value]).fetchone() == (True,), condition
