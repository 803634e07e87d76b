"""The query engine as servers run it, and as docs/functions.md describes it.

The place where parts of the program to the right of `query` hand it their table functions.
"""

from __future__ import annotations

from micromegas.config import QuerySettings
from micromegas.daemon.administration import Administration
from micromegas.daemon.denial_functions import denial_table_functions, remove_query_denial_function
from micromegas.daemon.order_functions import order_scalar_functions, order_table_functions
from micromegas.lake import Lake
from micromegas.query import QueryEngine
from micromegas.query.deny_list import DenyList


def query_engine(lake: Lake, settings: QuerySettings) -> QueryEngine:
    """An engine over the lake with every function of the product."""
    administration = Administration(lake)
    deny_list = DenyList(lake)
    tables = [*order_table_functions(lake, administration), *denial_table_functions(lake, deny_list)]
    scalars = [*order_scalar_functions(administration), remove_query_denial_function(lake, deny_list)]
    engine = QueryEngine(lake, settings, tables, scalars, deny_list)
    administration.reductions = engine.reductions
    return engine
