"""Writes docs/functions.md: `python tools/functions_page.py`; a test fails when the page is not what this writes.

A function gets onto the page by being one, described where it is defined: `ScalarFunction` and `AggregateFunction` by
their fields `description` and `example`, a `TableFunction` by the attributes of these names. An example is one
statement that runs on the lake of `example_lake.py`, whose ids it names as `$process`, `$log`, `$metrics`, `$thread`,
`$tasks` and `$block`; its answer is shown as it came, so it must be the same each time (no insert times, no paths;
ORDER BY where there is more than one row). The page knows the functions that `serve/query_engine.py` gives the engine.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from example_lake import example_lake, with_ids
from shown_answers import answer, shown, type_name

from micromegas.config import QuerySettings
from micromegas.query import QueryEngine
from micromegas.query.functions import AGGREGATES, VALUE_TABLES
from micromegas.query.functions.charts import CHART_FUNCTIONS
from micromegas.query.functions.histograms import HISTOGRAM_FUNCTIONS
from micromegas.query.functions.jsonb import JSONB_FUNCTIONS
from micromegas.query.functions.properties import PROPERTY_FUNCTIONS
from micromegas.query.functions.scalar import ScalarFunction
from micromegas.serve.query_engine import query_engine

PAGE = Path(__file__).resolve().parents[1] / "docs" / "functions.md"

HEAD = """# SQL functions

Those of ours, beside [DataFusion's own](https://datafusion.apache.org/user-guide/sql/). Written by
`python tools/functions_page.py` from the code; every example was run, over the lake of `tools/example_lake.py`, with a
time range that covers it.

`jsonb` is JSON in its binary form, plain or in a dictionary: what columns of properties hold. NULL for any argument
gives NULL where nothing else is said.
"""


def page() -> str:
    """The page's text."""
    with tempfile.TemporaryDirectory() as folder, example_lake(Path(folder) / "lake") as lake:
        engine = query_engine(lake, QuerySettings(spill_dir=Path(folder) / "spill"))
        try:
            return "\n".join([HEAD, *_sections(engine)])
        finally:
            engine.close()


def _sections(engine: QueryEngine) -> Iterator[str]:
    described: list[tuple[str, Sequence[ScalarFunction]]] = [
        ("Properties", PROPERTY_FUNCTIONS),
        ("JSON", JSONB_FUNCTIONS),
        ("Histograms", HISTOGRAM_FUNCTIONS),
        ("Charts", CHART_FUNCTIONS),
    ]
    placed = {id(function) for _, functions in described for function in functions}
    described.append(("The lake", [function for function in engine.scalars if id(function) not in placed]))
    described.append(("Orders of administrators", engine.administrators_scalars))
    for title, functions in described:
        yield f"## {title}\n"
        if title == "Histograms":
            for aggregate in AGGREGATES:
                yield from _function(engine, aggregate.signature, "histogram", aggregate.description, aggregate.example)
        for function in functions:
            if function.example is not None:
                arguments = [f"{each.name} {type_name(each.type)}" for each in function.arguments]
                needed = len(arguments) - function.optional
                optional = "".join(f"[, {argument}]" for argument in arguments[needed:])
                signature = f"{function.name}({', '.join(arguments[:needed])}{optional})"
                yield from _function(
                    engine, signature, type_name(function.returns), function.description, function.example
                )
    yield "## Tables of values: functions in FROM\n"
    yield "The argument is a literal, a constant expression, a parameter or a subquery in parentheses of its own.\n"
    for value_table in VALUE_TABLES:
        columns = _columns(value_table.columns)
        yield from _function(engine, value_table.signature, columns, value_table.description, value_table.example)
    yield "## Tables of the lake: functions in FROM\n"
    yield "Arguments are literals or constant expressions; times are timestamps or RFC 3339 texts.\n"
    for table_function in sorted(engine.table_functions, key=lambda each: each.name):
        arguments = ", ".join(f"{each.name} {each.kind.name.lower()}" for each in table_function.parameters)
        columns = None
        if len(table_function.schemas) == 1:
            columns = _columns((field.name, field.type) for field in table_function.schemas[0])
        signature = f"{table_function.name}({arguments})"
        yield from _function(engine, signature, columns, table_function.description, table_function.example)


def _function(engine: QueryEngine, signature: str, returns: str | None, text: str, example: str) -> Iterator[str]:
    yield f"### {signature.split('(', maxsplit=1)[0]}\n"
    yield f"`{signature}`" + (f" → {returns}\n" if returns is not None else "\n")
    yield f"{text}\n"
    sql = with_ids(example)
    yield f"```sql\n{sql}\n```\n"
    yield from shown(answer(engine, sql))
    yield ""


def _columns(columns: Iterable[tuple[str, pa.DataType]]) -> str:
    return ", ".join(f"{name} {type_name(data_type)}" for name, data_type in columns)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
