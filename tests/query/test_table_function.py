"""What arguments a table function gets of a statement, through the planner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from query.asking import ask, refusal
from query.conftest import SETTINGS

from micromegas.lake import Lake
from micromegas.query import QueryEngine
from micromegas.query.scans import FilterColumns, ScanNeed
from micromegas.query.table_function import Parameter, ParameterKind, TableFunction
from micromegas.query.tables import Preparation, QueryTable, TableFiles

SCHEMA = pa.schema([pa.field("argument", pa.utf8())])


class Shown(QueryTable):
    """One row per argument, as Python shows it."""

    def __init__(self, arguments: tuple[object, ...]) -> None:
        self.name = f"shown|{arguments!r}"
        self.schema = SCHEMA
        self.filter_columns = FilterColumns()
        self._arguments = arguments

    def files(self, need: ScanNeed, preparation: Preparation) -> TableFiles:
        rows = pa.record_batch([[repr(each) for each in self._arguments]], schema=SCHEMA)
        return TableFiles(spooled=preparation.spool.write(SCHEMA, [rows], "shown", 1_000_000))


class Show(TableFunction):
    name = "show_arguments"
    parameters = (
        Parameter("text"),
        Parameter("count", ParameterKind.INTEGER),
        Parameter("budget", ParameterKind.NUMBER),
        Parameter("begin", ParameterKind.TIME),
    )
    schemas = (SCHEMA,)

    def table(self, *arguments: Any) -> QueryTable:
        return Shown(arguments)


@pytest.fixture
def showing(local_lake: Lake) -> Iterator[QueryEngine]:
    engine = QueryEngine(local_lake, SETTINGS, [Show()])
    yield engine
    engine.close()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("'a', 1, 2.5, TIMESTAMP '2026-01-01T00:00:00Z'", ["'a'", "1", "2.5", "1767225600000000000"]),
        ("lower('A'), -1 - 1, 2, '2026-01-01T01:00:00.000000001+01:00'", ["'a'", "-2", "2.0", "1767225600000000001"]),
        ("'', 0, 1e3, to_timestamp_seconds(1) + INTERVAL '1 hour'", ["''", "0", "1000.0", "3601000000000"]),
    ],
)
def test_constants_arrive_as_their_kind(showing: QueryEngine, given: str, expected: list[str]) -> None:
    assert ask(showing, f"SELECT argument FROM show_arguments({given})")["argument"].to_pylist() == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("'a', 1, 2.5", "3 arguments given, 4 expected"),
        ("1, 1, 2.5, NOW()", "text must be a text"),
        ("NULL, 1, 2.5, NOW()", "text must be a text"),
        ("'a', 1.5, 2.5, NOW()", "count must be an integer"),
        ("'a', true, 2.5, NOW()", "count must be an integer"),
        ("'a', 1, 'x', NOW()", "budget must be a number"),
        ("'a', 1, 2.5, 7", "begin must be a time (a timestamp, or an RFC 3339 text)"),
        ("'a', 1, 2.5, '2026-01-01'", "begin must be a time (a timestamp, or an RFC 3339 text)"),
        ("'a', 1, 2.5, DATE '2026-01-01'", "begin must be a time (a timestamp, or an RFC 3339 text)"),
        (
            "(SELECT 'a'), 1, 2.5, NOW()",
            "text must be a constant: columns, subqueries and parameters don't reach a table function",
        ),
    ],
)
def test_what_is_no_such_constant_is_refused_by_name(showing: QueryEngine, given: str, message: str) -> None:
    error = refusal(showing, f"SELECT * FROM show_arguments({given})")
    assert (error.kind, error.message) == ("invalid", f"show_arguments(text, count, budget, begin): {message}")


def test_columns_are_no_constants(showing: QueryEngine) -> None:
    error = refusal(showing, "SELECT * FROM processes p, LATERAL show_arguments(p.exe, 1, 1, NOW())")
    assert "text must be a constant" in error.message
