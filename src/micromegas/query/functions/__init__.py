"""The SQL functions that DataFusion lacks, each defined in one place with its types and its description.

How a query engine uses them: `register(context)` once on the base context; for each statement plan
`expanded(sql)` in place of `sql`, before the first pass of planning. There is nothing to do after planning.
"""

from collections.abc import Iterable

from datafusion import SessionContext

from micromegas.query.functions.accumulators import register_accumulators
from micromegas.query.functions.aggregates import AGGREGATES, AggregateFunction
from micromegas.query.functions.charts import CHART_FUNCTIONS
from micromegas.query.functions.expansion import expanded
from micromegas.query.functions.growth import DEFAULT_MAX_BYTES, growth_checks
from micromegas.query.functions.histograms import HISTOGRAM, HISTOGRAM_FUNCTIONS
from micromegas.query.functions.jsonb import JSONB_FUNCTIONS
from micromegas.query.functions.properties import PROPERTY_FUNCTIONS, PROPERTY_KERNELS
from micromegas.query.functions.scalar import Argument, ScalarFunction
from micromegas.query.functions.value_tables import VALUE_TABLE_KERNELS, VALUE_TABLES, ValueTable

__all__ = [
    "AGGREGATES",
    "HISTOGRAM",
    "SCALARS",
    "VALUE_TABLES",
    "AggregateFunction",
    "Argument",
    "ScalarFunction",
    "ValueTable",
    "expanded",
    "register",
]

SCALARS: tuple[ScalarFunction, ...] = (
    *PROPERTY_FUNCTIONS,
    *PROPERTY_KERNELS,
    *JSONB_FUNCTIONS,
    *HISTOGRAM_FUNCTIONS,
    *VALUE_TABLE_KERNELS,
    *CHART_FUNCTIONS,
)
"""All scalar functions, for registration and for the documentation."""


def register(
    context: SessionContext, scalars: Iterable[ScalarFunction] = SCALARS, max_bytes: int = DEFAULT_MAX_BYTES
) -> None:
    """Makes scalar functions, and what `expanded` puts into statements, known to a context and those that are derived
    from it.

    `max_bytes`: of the result of a call for a batch of rows, where it can be larger than the arguments.
    """
    register_accumulators(context)
    for function in (*scalars, *growth_checks(max_bytes)):
        function.register(context)
