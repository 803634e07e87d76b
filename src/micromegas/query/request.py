"""What a protocol hands to the query engine and what it may learn before running anything. Plain values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """One statement with what came beside it.

    `begin` and `end` are event times in ns since the epoch, both inclusive, either may be absent; they restrict the
    rows of every view of the statement. `limit` caps the rows of the result, whatever the statement's own LIMIT says.
    `parameters` bind `$1`, `$2` … (keys `"1"`, `"2"` …) or `$name`. `administers`: functions for administrators exist.
    `user` and `client` say who asks with what, as far as the protocol knows. `is_internal`: the server itself asks, and
    no rule of administrators refuses it. `assumed_begin` is the begin for a request without a range where the statement
    reads events and bounds their time by nothing; the stream then tells that it was taken.
    """

    sql: str
    begin: int | None = None
    end: int | None = None
    limit: int | None = None
    parameters: Mapping[str, pa.Scalar] = field(default_factory=dict)
    administers: bool = False
    user: str = ""
    client: str = ""
    is_internal: bool = False
    assumed_begin: int | None = None


@dataclass(frozen=True, slots=True)
class StatementDescription:
    """Schema of a statement's result; `parameter_schema` has one field per placeholder, in order of first number, named
    without the `$`. A placeholder whose type the statement doesn't tell is `string`."""

    schema: pa.Schema
    parameter_schema: pa.Schema


@dataclass(frozen=True, slots=True)
class TableDescription:
    """A global view: what `FROM name` may say."""

    name: str
    schema: pa.Schema
