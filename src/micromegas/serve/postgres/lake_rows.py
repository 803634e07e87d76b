"""Statements that the lake answers: what they are before they run, and their rows while they do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from micromegas.query import QueryRequest, QueryStream, StatementDescription, TableDescription
from micromegas.query.errors import QueryError
from micromegas.query.functions.sql_text import Kind, Token, tokens
from micromegas.serve.audit import Caller, QueryAudit
from micromegas.serve.postgres import types
from micromegas.serve.postgres.dialect import Known, engine_sql
from micromegas.serve.postgres.errors import PostgresError, from_query_error
from micromegas.serve.postgres.parameters import UNKNOWN_OIDS, oid_of
from micromegas.serve.postgres.result_names import Named, named
from micromegas.serve.postgres.types import ResultColumn, result_column, scalar_type

# So many rows are written at once: between two such pieces other sessions get their turn.
_PIECE_ROWS = 4096
_PIECE_BYTES = 4 * 1024 * 1024
MAX_PARAMETERS = 65_535
_LONG_STATEMENT = 64 * 1024
_PLAN_COLUMN = "QUERY PLAN"
# What postgres_fdw wants to see of a plan: costs that make a remote query dearer than a local one, by much.
_COST = "Lake  (cost=100.00..10000.00 rows=10000 width=100)"
_PLAN_SCHEMA = pa.schema([pa.field(_PLAN_COLUMN, pa.string())])
_Read = TypeVar("_Read")


class Engine(Protocol):
    """What is needed of `micromegas.query.engine.QueryEngine`."""

    def describe(
        self, sql: str, parameters: Mapping[str, pa.Scalar] | None = None, *, administers: bool = False
    ) -> StatementDescription: ...

    async def execute(self, request: QueryRequest) -> QueryStream: ...

    def tables(self) -> list[TableDescription]: ...


@dataclass(frozen=True, slots=True)
class LakeStatement:
    """A statement as it was written and as the engine reads it, with its columns and the types of its placeholders `$1`
    …"""

    text: str
    sql: str
    schema: pa.Schema
    columns: tuple[ResultColumn, ...]
    parameter_oids: tuple[int, ...]
    explains: bool


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks in a session, `user` by the name that rules know, and about which event times (ns since the epoch; None
    is open). `assumed_begin` is for statements that say nothing about time."""

    caller: Caller
    user: str
    administers: bool = False
    begin: int | None = None
    end: int | None = None
    assumed_begin: int | None = None


class LakeQuestions:
    """The engine for the sessions of a gateway."""

    def __init__(self, engine: Engine, view_sets: frozenset[str]) -> None:
        self._engine = engine
        self._instances_only = view_sets - {table.name for table in engine.tables()}
        columns = [field for table in engine.tables() for field in table.schema]
        kinds = {field.name: scalar_type(field.type) or types.TEXT for field in columns}
        self._array_oids = {name: kind.array_oid for name, kind in kinds.items()}
        self._known = Known(
            view_sets,
            frozenset(name for name, kind in kinds.items() if kind is types.JSONB),
            frozenset(name for name, kind in kinds.items() if kind is types.TIMESTAMPTZ),
        )

    async def prepare(
        self, sql: str, given_oids: list[int], *, administers: bool, caller: Caller | None
    ) -> LakeStatement:
        """Plans a statement. `given_oids`: types that the client says its values have, 0 where it doesn't; `caller`:
        whose mistakes are told to the audit, as of one that would have been answered."""
        statement, result, all_tokens = await aside(self._read, sql)
        audit = None if caller is None else QueryAudit(caller, sql)
        try:
            description = await asyncio.to_thread(self._engine.describe, statement, administers=administers)
        except QueryError as error:
            raise self._explained(error if audit is None else audit.refused(error)) from None
        explains = bool(all_tokens) and all_tokens[0].value == "explain"
        schema = _PLAN_SCHEMA if explains else description.schema
        oids = self._parameter_oids(all_tokens, description.parameter_schema, given_oids)
        names = schema.names if explains else result.names(schema.names)
        columns = tuple(result_column(field.with_name(name)) for field, name in zip(schema, names, strict=True))
        return LakeStatement(sql, statement, schema, columns, oids, explains)

    async def start(self, statement: LakeStatement, parameters: Mapping[str, pa.Scalar], asker: Asker) -> LakeRows:
        """Runs a statement, and tells the audit of it."""
        caller = asker.caller
        audit = QueryAudit(caller, statement.text, asker.begin, asker.end)
        request = QueryRequest(
            statement.sql,
            asker.begin,
            asker.end,
            None,
            parameters,
            asker.administers,
            asker.user,
            caller.client,
            assumed_begin=asker.assumed_begin,
        )
        try:
            stream = await self._engine.execute(request)
        except QueryError as error:
            raise from_query_error(audit.refused(error)) from None
        except BaseException:
            audit.abandoned()
            raise
        audit.planned()
        return LakeRows(statement, stream, audit)

    def _read(self, sql: str) -> tuple[str, Named, list[Token]]:
        result = named(sql)
        statement = engine_sql(result.sql, self._known)
        all_tokens = tokens(statement)
        for token in all_tokens:
            number = token.value[1:]
            if token.kind is Kind.PARAMETER and not (number.isdecimal() and 0 < int(number) <= MAX_PARAMETERS):
                raise PostgresError("42P02", f"there is no parameter {token.value[:20]}: they are $1, $2 and so on")
        return statement, result, all_tokens

    def _explained(self, error: QueryError) -> PostgresError:
        refusal = from_query_error(error)
        if refusal.state == "42P01":
            for name in self._instances_only:
                if f".{name}' not found" in error.message:
                    hint = f'name it as a table: "{name}:<id>"'
                    return PostgresError("42P01", f"{name} is a view of one process or stream; {hint}")
        return refusal

    def _parameter_oids(self, all_tokens: list[Token], schema: pa.Schema, given: list[int]) -> tuple[int, ...]:
        """The client's word first, then what stands before the placeholder, then what the plan tells."""
        told = {field.name: oid_of(field.type) for field in schema}
        count = len(given)
        for place, token in enumerate(all_tokens):
            if token.kind is not Kind.PARAMETER:
                continue
            number = token.value[1:]
            count = max(count, int(number))
            before = [each.value for each in all_tokens[max(0, place - 5) : place]]
            if before[-1:] in (["limit"], ["offset"]):
                told[number] = types.INT8.oid
            elif before[-2:] in (["any", "("], ["some", "("], ["all", "("]):
                # after a column and an operator of one or two symbols
                compared = [name for name in before[:-3] if name in self._array_oids]
                told[number] = self._array_oids[compared[-1]] if compared else types.TEXT.array_oid
        return tuple(
            given[number]
            if number < len(given) and given[number] not in UNKNOWN_OIDS
            else told.get(str(number + 1), types.TEXT.oid)
            for number in range(count)
        )


class LakeRows:
    """The rows of a running statement; `close()` ends its work and may be called at any time. The audit is told of its
    end, whichever it is."""

    def __init__(self, statement: LakeStatement, stream: QueryStream, audit: QueryAudit) -> None:
        self.columns = statement.columns
        self._schema = statement.schema
        self._explains = statement.explains
        self.assumes_begin = stream.assumes_begin
        self._stream = stream
        self._audit = audit
        self._is_told = False
        self._rest: pa.RecordBatch | None = None

    async def next(self, limit: int | None) -> pa.RecordBatch | None:
        """A piece of at most `limit` rows; None at the end."""
        if self._rest is None or self._rest.num_rows == 0:
            try:
                self._rest = await self._next_batch()
            except QueryError as error:
                raise self.refused(error) from None
            if self._rest is None:
                self._tell(self._audit.completed)
                return None
        count = _PIECE_ROWS if limit is None else min(limit, _PIECE_ROWS)
        piece = narrow(self._rest.slice(0, count))
        self._rest = self._rest.slice(piece.num_rows)
        self._audit.rows += piece.num_rows
        return piece

    def sent(self, content: bytes) -> bytes:
        """What was made of rows for a client."""
        self._audit.bytes_sent += len(content)
        return content

    def refused(self, error: QueryError) -> PostgresError:
        """It ends with an error: of its own, or of who waits for it."""
        if self._is_told:
            return from_query_error(error)
        self._is_told = True
        return from_query_error(self._audit.refused(error))

    async def close(self) -> None:
        self._tell(self._audit.abandoned)
        await self._stream.aclose()

    def _tell(self, end: Callable[[], None]) -> None:
        if not self._is_told:
            self._is_told = True
            end()

    async def _next_batch(self) -> pa.RecordBatch | None:
        if self._explains:
            return await self._plan_lines()
        async for batch in self._stream:
            return self._as_described(batch)
        return None

    def _as_described(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """What a bound value made of another type than was described gets the described one."""
        if batch.schema.types == self._schema.types:
            return batch
        try:
            arrays = [
                array if result_column(own).type is described.type else array.cast(wanted.type)
                for array, own, wanted, described in zip(
                    batch.columns, batch.schema, self._schema, self.columns, strict=True
                )
            ]
        except pa.ArrowException as error:
            raise QueryError("invalid", f"the result can't be sent: {error}") from None
        return pa.RecordBatch.from_arrays(arrays, names=self._schema.names)

    async def _plan_lines(self) -> pa.RecordBatch | None:
        lines: list[str] = []
        async for batch in self._stream:
            for row in batch.to_pylist():
                texts = [str(value) for value in row.values()]
                lines += [f"{texts[0]}:", *("  " + line for line in texts[-1].splitlines())]
        return pa.RecordBatch.from_pydict({_PLAN_COLUMN: [_COST, *lines]}, schema=_PLAN_SCHEMA) if lines else None


def narrow(piece: pa.RecordBatch) -> pa.RecordBatch:
    """As many of the first rows as are about 4 MiB once they are written, at least one."""
    while piece.num_rows > 1 and sum(map(_width, piece.columns)) > _PIECE_BYTES:
        piece = piece.slice(0, piece.num_rows // 2)
    return piece


def _width(array: Any) -> int:
    """About how many bytes the rows of an array are when each is written out."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        # a bound that is cheap, for dictionaries that can't be wide
        if array.dictionary.nbytes * len(array) <= _PIECE_BYTES // 16:
            return 0
        if _has_length(kind.value_type):
            lengths = pc.binary_length(array.dictionary)
            return int(pc.sum(pc.take(lengths, array.indices)).as_py() or 0)
        used = pc.value_counts(array.indices)
        return sum(
            _width(array.dictionary.slice(each["values"], 1)) * each["counts"]
            for each in used.to_pylist()
            if each["values"] is not None
        )
    if pa.types.is_run_end_encoded(kind):
        values = array.values
        widest = max((_width(values.slice(place, 1)) for place in range(len(values))), default=0)
        return widest * len(array)
    if pa.types.is_struct(kind):
        return sum(map(_width, array.flatten()))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return _width(array.flatten() if not pa.types.is_map(kind) else array.items)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        # sixteen bytes a value, of which the first four are its length; values may share what they point to
        lengths = memoryview(array.buffers()[1]).cast("i")[4 * array.offset : 4 * (array.offset + len(array)) : 4]
        return sum(lengths)
    if _has_length(kind):
        return int(pc.sum(pc.binary_length(array)).as_py() or 0)
    return int(array.nbytes)


def _has_length(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


async def aside(work: Callable[[str], _Read], sql: str) -> _Read:
    """Reads through a statement; through a long one in a thread of its own, so that other sessions go on."""
    return work(sql) if len(sql) <= _LONG_STATEMENT else await asyncio.to_thread(work, sql)
