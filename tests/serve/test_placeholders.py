"""Placeholders that a statement has, and what only looks like one."""

from __future__ import annotations

import pytest

from micromegas.serve.placeholders import number_placeholders


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT $2, $1, $name, $1", ("1", "2", "name")),
        ("SELECT $999999999", ("999999999",)),
        ("SELECT $1234567890", ()),
        (f"SELECT $1, ${'9' * 5000}", ("1",)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_numbers_are_read_as_far_as_there_can_be_placeholders(sql: str, names: tuple[str, ...]) -> None:
    statement = number_placeholders(sql)
    assert statement.names == names
    assert statement.sql == sql
