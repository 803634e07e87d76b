"""Times as people type them."""

from __future__ import annotations

import pytest

from micromegas.cli.errors import CliError
from micromegas.cli.times import parse_time

NOW = 1_700_000_000_123_456_789
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("1h", NOW - 3600 * SECOND),
        ("-1h", NOW - 3600 * SECOND),
        (" 30m ", NOW - 1800 * SECOND),
        ("1.5s", NOW - 1_500_000_000),
        ("250ms", NOW - 250_000_000),
        ("7d", NOW - 7 * 86_400 * SECOND),
        ("2w", NOW - 14 * 86_400 * SECOND),
        ("2023-11-14", 1_699_920_000 * SECOND),
        ("2023-11-14T22:13:20Z", 1_700_000_000 * SECOND),
        ("2023-11-14 22:13:20", 1_700_000_000 * SECOND),
        ("2023-11-14T22:13:20.123456789Z", NOW),
        ("2023-11-14T17:13:20.1234567891-05:00", NOW),
        ("2023-11-14T22:13", 1_699_999_980 * SECOND),
        ("1969-12-31T23:59:59.5Z", -500_000_000),
    ],
)
def test_times(text: str, expected: int) -> None:
    assert parse_time("--begin", text, NOW) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1",
        "1y",
        "--1h",
        "1h30m",
        "2023-13-01",
        "25:00",
        "99999999999999d",
        "300000d",
        "-1000000000000000ms",
        "0001-01-01",
        "9999-12-31",
    ],
)
def test_what_is_no_time_is_named_with_its_flag(text: str) -> None:
    with pytest.raises(CliError, match="--end"):
        parse_time("--end", text, NOW)
