"""The query engine as servers run it, and as docs/functions.md describes it.

The place where parts of the program to the right of `query` hand it their table functions.
"""

from __future__ import annotations

from micromegas.config import QuerySettings
from micromegas.daemon.administration import Administration
from micromegas.daemon.order_functions import order_scalar_functions, order_table_functions
from micromegas.lake import Lake
from micromegas.query import QueryEngine


def query_engine(lake: Lake, settings: QuerySettings) -> QueryEngine:
    """An engine over the lake with every function of the product."""
    administration = Administration(lake)
    table_functions = order_table_functions(lake, administration)
    engine = QueryEngine(lake, settings, table_functions, order_scalar_functions(administration))
    administration.reductions = engine.reductions
    return engine
