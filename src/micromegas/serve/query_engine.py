"""The query engine as servers run it, and as docs/functions.md describes it.

The place where parts of the program to the right of `query` hand it their table functions.
"""

from __future__ import annotations

from micromegas.config import QuerySettings
from micromegas.lake import Lake
from micromegas.query import QueryEngine


def query_engine(lake: Lake, settings: QuerySettings) -> QueryEngine:
    """An engine over the lake with every function of the product."""
    return QueryEngine(lake, settings)
