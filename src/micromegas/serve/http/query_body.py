"""Bodies of query requests: JSON into a `QueryRequest`. What is misspelt is an error, never passed over."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from micromegas.query import QueryRequest
from micromegas.serve.http.problem import invalid
from micromegas.serve.placeholders import number_placeholders
from micromegas.wire import rfc3339_ns, typed_time_ns

_MAX_LIMIT = 2**63 - 1


def read_query(body: bytes, now: int) -> QueryRequest:
    """`{"sql", "begin", "end", "limit", "parameters"}`, all but the first optional. Raises `Problem` or
    `QueryError`.

    Times are texts (RFC 3339, or as people type them, such as `-1h`) or ns since the epoch; `parameters` are an array
    for `?` and `$1`, or an object for `$name`.
    """
    document = _object(body, {"sql", "begin", "end", "limit", "parameters"})

    def moment(name: str) -> int | None:
        value = document.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        return _time(name, value, lambda text: typed_time_ns(text, now))

    limit = document.get("limit")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or not 0 <= limit <= _MAX_LIMIT):
        raise invalid("limit: not a number of rows")
    sql, parameters = _bound(_sql(document), document.get("parameters"))
    return QueryRequest(sql, moment("begin"), moment("end"), limit, parameters)


def read_gateway_query(body: bytes) -> QueryRequest:
    """What the original's HTTP gateway takes: `{"sql", "time_range_begin", "time_range_end"}`, RFC 3339 times, both or
    none. Raises `Problem`."""
    document = _object(body, {"sql", "time_range_begin", "time_range_end"})
    names = ("time_range_begin", "time_range_end")
    times = [None if document.get(name) is None else _time(name, document[name], rfc3339_ns) for name in names]
    begin, end = times
    if (begin is None) != (end is None):
        raise invalid("time_range_begin and time_range_end: give both, or none")
    if begin is not None and end is not None and begin > end:
        raise invalid("time_range_begin lies after time_range_end")
    return QueryRequest(_sql(document), begin, end)


def _object(body: bytes, known: set[str]) -> dict[str, Any]:
    try:
        document = json.loads(body, object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        raise invalid(f"the body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise invalid("the body is no JSON object")
    unknown = sorted(document.keys() - known)
    if unknown:
        raise invalid(f"unknown {unknown[0][:100]!r}; known are {', '.join(sorted(known))}")
    return document


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:100]!r} is given more than once")
        found[name] = value
    return found


def _sql(document: Mapping[str, Any]) -> str:
    sql = document.get("sql")
    if not isinstance(sql, str) or not sql.strip():
        raise invalid("sql: a statement is needed")
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise invalid("sql: half of a surrogate pair is no text") from None
    return sql


def _time(name: str, value: object, read: Callable[[str], int]) -> int:
    if not isinstance(value, str):
        raise invalid(f"{name}: not a time")
    try:
        return read(value)
    except ValueError as error:
        raise invalid(f"{name}: {error}") from None


def _bound(sql: str, parameters: object) -> tuple[str, Mapping[str, pa.Scalar]]:
    """The statement with numbered placeholders, and their values."""
    if parameters is None:
        return sql, {}
    statement = number_placeholders(sql)
    names = statement.names
    if isinstance(parameters, list):
        if len(parameters) != len(names):
            raise invalid(f"the statement has {len(names)} parameters; given are {len(parameters)}")
        values = dict(zip(names, parameters, strict=True))
    elif isinstance(parameters, dict):
        if parameters.keys() != set(names):
            listed = ", ".join(names) or "none"
            raise invalid(f"the statement's parameters are {listed}; given are {', '.join(parameters) or 'none'}"[:500])
        values = parameters
    else:
        raise invalid("parameters: an array or an object is needed")
    return statement.sql, {name: _scalar(name, value) for name, value in values.items()}


def _scalar(name: str, value: object) -> pa.Scalar:
    if isinstance(value, dict):
        raise invalid(f"parameter {name}: an object has no type in SQL")
    try:
        return pa.scalar(value, pa.uint64()) if isinstance(value, int) and value >= 2**63 else pa.scalar(value)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise invalid(f"parameter {name}: {error}") from None
