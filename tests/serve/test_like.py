"""LIKE patterns mean what they do as regular expressions, and take no time however they are written."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micromegas.serve.flight.errors import FlightError
from micromegas.serve.flight.like import MAX_PATTERN, is_like


def as_expression(pattern: str) -> str:
    """An independent reading: escapes first, then wildcards."""
    found = re.findall(r"\\.|\\$|.", pattern, re.DOTALL)
    meant = {"%": ".*", "_": "."}
    return "".join(meant.get(each) or re.escape(each[-1]) for each in found)


@given(st.text("ab%_\\\n", max_size=7), st.text("ab%_\\\n", max_size=7))
def test_patterns(name: str, pattern: str) -> None:
    assert is_like(name, pattern) == (re.fullmatch(as_expression(pattern), name, re.DOTALL) is not None)


def test_many_wildcards_take_no_time() -> None:
    name = "log_entries_of_a_site_with_a_long_name"
    # as a regular expression each of these takes longer than the age of the universe
    assert not is_like(name, "%" * (MAX_PATTERN - 1) + "x")
    assert not is_like(name, "%_" * 19 + "%x")
    assert not is_like(name * 20, "%e%" * (MAX_PATTERN // 3) + "x")
    assert is_like(name, "%" * MAX_PATTERN)


def test_a_pattern_beyond_all_names_is_refused() -> None:
    with pytest.raises(FlightError, match="over the limit of 1000"):
        is_like("log_entries", "%" * (MAX_PATTERN + 1))
