"""SQL over the views of a lake, on DataFusion. Writes nothing but partitions; knows no protocol and no user."""

from micromegas.query.engine import QueryEngine
from micromegas.query.errors import QueryError
from micromegas.query.reductions import Reductions, ReductionStopped
from micromegas.query.request import QueryRequest, StatementDescription, TableDescription
from micromegas.query.stream import QueryStream

__all__ = [
    "QueryEngine",
    "QueryError",
    "QueryRequest",
    "QueryStream",
    "ReductionStopped",
    "Reductions",
    "StatementDescription",
    "TableDescription",
]
