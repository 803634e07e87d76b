"""Functions in FROM over a value, which exist in SQL text only: a call becomes a subquery that unnests lists.

A table function of the engine is called before the values of subqueries and parameters are known. A subquery as an
argument becomes a table of the statement like any other, so that its predicates choose what is read for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from micromegas import _engine
from micromegas.query.functions.histograms import HISTOGRAM
from micromegas.query.functions.scalar import ANY_JSONB, Argument, ScalarFunction
from micromegas.query.functions.statement import Value


def _rows(*columns: tuple[str, pa.DataType]) -> pa.DataType:
    return pa.list_(pa.struct([pa.field(name, data_type, nullable=False) for name, data_type in columns]))


_IS_ROW = Argument("is_row", pa.bool_())

VALUE_TABLE_KERNELS = (
    ScalarFunction(
        "jsonb_members",
        (Argument("jsonb", ANY_JSONB), _IS_ROW),
        _rows(("key", pa.utf8()), ("value", pa.binary())),
        _engine.jsonb_members,
        "What jsonb_each unnests. An error for a scalar, and for a NULL in is_row, which stands for no row.",
    ),
    ScalarFunction(
        "jsonb_elements",
        (Argument("jsonb", ANY_JSONB),),
        _rows(("value", pa.binary())),
        _engine.jsonb_elements,
        "What jsonb_array_elements unnests. An error for what is no array.",
    ),
    ScalarFunction(
        "histogram_bars",
        (Argument("histogram", HISTOGRAM), _IS_ROW),
        _rows(("bin_center", pa.float64()), ("count", pa.uint64())),
        _engine.histogram_bars,
        "What expand_histogram unnests. An error for a NULL in is_row, which stands for no row.",
    ),
)


@dataclass(frozen=True, slots=True)
class ValueTable:
    """A function in FROM over one value: a literal, a constant expression, a parameter or a subquery of one column."""

    name: str
    argument: str
    columns: tuple[tuple[str, pa.DataType], ...]
    kernel: str
    needs_row: bool
    """Whether a subquery without any row is an error; the kernel is told of it then."""
    description: str
    example: str

    @property
    def signature(self) -> str:
        """`name(argument)` as users write it."""
        return f"{self.name}({self.argument})"

    def sql(self, arguments: Sequence[Value], clauses: str) -> str:
        """The subquery that a call becomes, and what follows the call."""
        (value,) = arguments
        if not value.is_subquery:
            source = f"(SELECT {value.sql} AS v, true AS is_row) AS s"
        elif self.needs_row:
            # the one row of the left side is kept even if the right side has none
            rows = f"(SELECT v, true AS is_row FROM {value.sql} AS q(v))"
            source = f"(SELECT 1 AS one) AS o LEFT JOIN {rows} AS s ON true"
        else:
            source = f"{value.sql} AS s(v)"
        row = f"unnest({self.kernel}(s.v{', s.is_row' if self.needs_row else ''})) AS r"
        columns = ", ".join(f"r['{name}'] AS {name}" for name, _ in self.columns)
        return f"(SELECT {columns} FROM (SELECT {row} FROM {source})){clauses}"


VALUE_TABLES = (
    ValueTable(
        "expand_histogram",
        "histogram",
        (("bin_center", pa.float64()), ("count", pa.uint64())),
        "histogram_bars",
        True,
        "The bins of a histogram: the middle of each and how many values lie in it. No rows for NULL; an error for a "
        "subquery without a row. The middles of a histogram whose start is its end are 1 apart.",
        "SELECT bin_center, count FROM expand_histogram((SELECT make_histogram(0.0, 50.0, 5, value) FROM measures "
        "WHERE name = 'frame_time'))",
    ),
    ValueTable(
        "jsonb_each",
        "jsonb",
        (("key", pa.utf8()), ("value", pa.binary())),
        "jsonb_members",
        True,
        "The members of an object, or the elements of an array by their index from 0. A subquery may have several "
        "rows: the members of one follow those of the other, NULLs are left out. A scalar, or a subquery without a "
        "row, is an error.",
        "SELECT key, jsonb_as_string(value) AS value FROM jsonb_each((SELECT properties FROM processes "
        "WHERE process_id = '$process')) ORDER BY key",
    ),
    ValueTable(
        "jsonb_array_elements",
        "jsonb",
        (("value", pa.binary()),),
        "jsonb_elements",
        False,
        "The elements of an array, of several ones if a subquery has several rows. NULLs are left out, what is no "
        "array is an error.",
        "SELECT jsonb_as_string(jsonb_get(value, 'sku')) AS sku, jsonb_as_f64(jsonb_get(value, 'price')) AS price "
        "FROM jsonb_array_elements((SELECT jsonb_get(jsonb_parse(msg), 'items') FROM log_entries WHERE msg LIKE '{%'))",
    ),
)
