"""Flight SQL calls over a query engine: bytes of requests in, bytes of answers out. Knows no gRPC and contains no query
logic."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Protocol

import pyarrow as pa

from micromegas.lake import Replication
from micromegas.query import QueryError, QueryRequest, QueryStream, StatementDescription, TableDescription
from micromegas.serve.audit import QueryAudit
from micromegas.serve.edge_types import EdgeConverter, edge_schema
from micromegas.serve.flight import messages
from micromegas.serve.flight.bulk_ingest import BulkTable
from micromegas.serve.flight.catalog import catalog_answer, catalog_schema, is_catalog_command
from micromegas.serve.flight.commands import Command, parse, text_of, unpack, unpack_as, unpack_ticket
from micromegas.serve.flight.errors import FlightError, invalid, unimplemented
from micromegas.serve.flight.flight_data import (
    FlightData,
    FlightDataWriter,
    IncomingBatches,
    schema_message,
    schema_stream,
)
from micromegas.serve.flight.headers import CallOptions
from micromegas.serve.flight.messages import Message
from micromegas.serve.flight.running import CancelStatus, RunningQueries
from micromegas.serve.flight.statements import MAX_BOUND_BYTES, PreparedStatements

MAX_QUERY_ID = 64

_ACTIONS = {
    "CreatePreparedStatement": "plans a statement; ActionCreatePreparedStatementRequest in, its result out",
    "ClosePreparedStatement": "drops the values bound to a prepared statement; nothing out",
    "SetSessionOptions": "accepts catalog and schema; there is one of each",
    "GetSessionOptions": "the options of a session: none",
    "CloseSession": "answers that the session is closed",
    "CancelFlightInfo": "ends the query whose FlightInfo is given; CancelFlightInfoRequest in, its result out",
    "CancelQuery": "the same by ActionCancelQueryRequest",
}
_ACTIONS_NOT_OFFERED = frozenset(
    {
        "BeginTransaction",
        "EndTransaction",
        "BeginSavepoint",
        "EndSavepoint",
        "RenewFlightEndpoint",
        "CreatePreparedSubstraitPlan",
    }
)
_UPDATES = frozenset({"CommandStatementUpdate", "CommandPreparedStatementUpdate", "CommandStatementSubstraitPlan"})


CancelElsewhere = Callable[[str, str | None, bool], Awaitable[CancelStatus]]
"""Ends a query of another process: its id, who asks, and whether they may end anybody's."""


class Engine(Protocol):
    """What is needed of `micromegas.query.engine.QueryEngine`."""

    def describe(
        self, sql: str, parameters: Mapping[str, pa.Scalar] | None = None, *, administers: bool = False
    ) -> StatementDescription: ...

    async def execute(self, request: QueryRequest) -> QueryStream: ...

    def tables(self) -> list[TableDescription]: ...


class FlightSqlService:
    """The calls of one server. All methods raise `FlightError` for what the caller did, `QueryError` for what the
    engine says.

    `version` is the server's version, `clock` gives seconds that never go back (ages of bound parameters);
    `max_message_bytes` is what a batch of a bulk ingestion may come to, however small its message is made;
    `replication` takes what is bulk ingested (None: that is not offered); `cancel_elsewhere` finds queries that other
    processes run behind the same address (None: there are none).
    """

    def __init__(
        self,
        engine: Engine,
        version: str,
        clock: Callable[[], float],
        max_message_bytes: int,
        replication: Replication | None = None,
        *,
        cancel_elsewhere: CancelElsewhere | None = None,
    ) -> None:
        self._engine = engine
        self._cancel_elsewhere = cancel_elsewhere
        self._max_message_bytes = max_message_bytes
        self._replication = replication
        self._version = version
        self._statements = PreparedStatements(clock)
        self.running = RunningQueries()

    async def get_flight_info(self, request: bytes, options: CallOptions) -> bytes:
        """FlightInfo with the true schema of the rows and exactly one endpoint, without a location."""
        descriptor = parse("FlightDescriptor", request)
        command = _command_of(descriptor)
        schema = await self._schema_of(command, options)
        ticket, query_id = descriptor.cmd, str(uuid.uuid4())
        if command.name == "CommandStatementQuery":
            handle = command.body.query.encode()
            ticket = messages.pack("TicketStatementQuery", statement_handle=handle, query_id=query_id)
        elif command.name == "CommandPreparedStatementQuery":
            handle = command.body.prepared_statement_handle
            ticket = messages.pack(command.name, prepared_statement_handle=handle, query_id=query_id)
        info = messages.new(
            "FlightInfo",
            schema=schema_message(schema),
            flight_descriptor=descriptor,
            endpoint=[messages.new("FlightEndpoint", ticket=messages.new("Ticket", ticket=ticket))],
            total_records=-1,
            total_bytes=-1,
        )
        return _bytes(info)

    async def get_schema(self, request: bytes, options: CallOptions) -> bytes:
        schema = await self._schema_of(_command_of(parse("FlightDescriptor", request)), options)
        return _bytes(messages.new("SchemaResult", schema=schema_message(schema)))

    async def do_get(self, request: bytes, options: CallOptions) -> AsyncGenerator[FlightData, None]:
        """FlightData messages: the schema first, always, then the batches as they are produced.

        Closing the generator ends the query.
        """
        command = unpack_ticket(parse("Ticket", request).ticket)
        if is_catalog_command(command.name):
            batch = catalog_answer(command.name, command.body, self._engine.tables, self._version)
            writer = FlightDataWriter(batch.schema)
            yield writer.schema_frame()
            for frame in writer.batch_frames(batch):
                yield frame
            return
        sql, parameters = self._statement_of(command)
        caller = options.caller
        query = QueryRequest(
            sql,
            options.begin,
            options.end,
            options.limit,
            parameters,
            options.administers,
            user=options.user,
            client=caller.client,
        )
        # tickets that clients make themselves carry no id
        query_id = command.body.query_id[:MAX_QUERY_ID] or str(uuid.uuid4())
        audit = QueryAudit(caller, sql, options.begin, options.end, options.limit, query_id)
        with self.running.entered(query_id, options.user or None), audit.told():
            async with aclosing(self._rows(query, options, audit)) as frames:
                async for frame in frames:
                    yield frame

    async def _rows(
        self, query: QueryRequest, options: CallOptions, audit: QueryAudit
    ) -> AsyncGenerator[FlightData, None]:
        stream = await self._engine.execute(query)
        try:
            audit.planned()
            converter = EdgeConverter(stream.schema, options.preserve_dictionary)
            writer = FlightDataWriter(converter.schema, options.body_compression)
            yield writer.schema_frame()
            async for batch in stream:
                try:
                    for part in converter.convert(batch):
                        for frame in writer.batch_frames(part):
                            audit.bytes_sent += frame.size
                            yield frame
                        audit.rows += part.num_rows
                except pa.ArrowException as error:
                    raise QueryError("invalid", f"the result can't be sent: {error}") from None
        finally:
            await stream.aclose()

    async def do_action(self, request: bytes, options: CallOptions) -> list[bytes]:
        """Results of one action, as serialized Result messages."""
        action = parse("Action", request)
        if action.type == "CreatePreparedStatement":
            body = unpack_as("ActionCreatePreparedStatementRequest", action.body)
            return [_result(await self._prepare(body.query, options))]
        if action.type == "ClosePreparedStatement":
            body = unpack_as("ActionClosePreparedStatementRequest", action.body)
            self._statements.close(text_of(body.prepared_statement_handle))
            return []
        if action.type == "SetSessionOptions":
            return [_result(_set_session_options(parse("SetSessionOptionsRequest", action.body)))]
        if action.type == "GetSessionOptions":
            parse("GetSessionOptionsRequest", action.body)
            return [_result(_bytes(messages.new("GetSessionOptionsResult")))]
        if action.type == "CloseSession":
            parse("CloseSessionRequest", action.body)
            return [_result(_bytes(messages.new("CloseSessionResult", status=messages.SESSION_CLOSED)))]
        if action.type == "CancelFlightInfo":
            info = parse("CancelFlightInfoRequest", action.body).info
            return [_result(_bytes(messages.new("CancelFlightInfoResult", status=await self._cancel(info, options))))]
        if action.type == "CancelQuery":
            info = parse("FlightInfo", unpack_as("ActionCancelQueryRequest", action.body).info)
            return [_result(messages.pack("ActionCancelQueryResult", result=await self._cancel(info, options)))]
        if action.type in _ACTIONS_NOT_OFFERED:
            raise unimplemented(f"action {action.type} is not offered")
        raise invalid(f"action {action.type[:100]!r} is not known")

    def list_actions(self) -> list[bytes]:
        """Serialized ActionType messages of the actions that work."""
        return [_bytes(messages.new("ActionType", type=name, description=text)) for name, text in _ACTIONS.items()]

    async def do_put(self, requests: AsyncIterable[bytes], options: CallOptions) -> bytes:
        """One serialized PutResult. The first message's command decides, before anything else is read."""
        messages_ = aiter(requests)
        if (request := await anext(messages_, None)) is None:
            raise invalid("the call carried no message")
        first = parse("FlightData", request)
        command = _command_of(first.flight_descriptor)
        if command.name == "CommandStatementIngest":
            if not options.administers:
                raise FlightError("PERMISSION_DENIED", "bulk ingestion is for administrators")
            rows = await self._ingest(BulkTable(command.body.table), first, messages_)
            answer = messages.new("DoPutUpdateResult", record_count=rows)
        elif command.name == "CommandPreparedStatementQuery":
            handle = command.body.prepared_statement_handle
            bound = self._statements.bind(text_of(handle), await _parameters(first, messages_))
            answer = messages.new("DoPutPreparedStatementResult", prepared_statement_handle=bound.encode())
        elif command.name in _UPDATES:
            raise invalid(f"{command.name}: this server is read-only")
        else:
            raise unimplemented(f"{command.name} can't be put")
        return _bytes(messages.new("PutResult", app_metadata=_bytes(answer)))

    async def _ingest(self, table: BulkTable, first: Message, requests: AsyncIterator[bytes]) -> int:
        """Each batch is durable before the next one is read; how many rows they have."""
        if self._replication is None:
            raise unimplemented("bulk ingestion is not offered by this server")
        rows = 0
        async for _, batch in _incoming(first, requests, self._max_message_bytes):
            if batch is not None:
                await asyncio.to_thread(table.take, self._replication, batch)
                rows += batch.num_rows
        return rows

    async def _cancel(self, info: Message, options: CallOptions) -> int:
        """Ends what runs for the ticket of a FlightInfo. What does not run (any more, or yet) can't be cancelled."""
        if len(info.endpoint) != 1:
            raise invalid("a flight info of one endpoint is needed, as this server gives it")
        command = unpack_ticket(info.endpoint[0].ticket.ticket)
        if is_catalog_command(command.name):
            return messages.NOT_CANCELLABLE
        self._statement_of(command)
        owner = options.user or None
        query_id = command.body.query_id[:MAX_QUERY_ID]
        status = self.running.cancel(query_id, owner, anyones=options.administers)
        if status == "unknown" and query_id and self._cancel_elsewhere is not None:
            status = await self._cancel_elsewhere(query_id, owner, options.administers)
        if status == "not yours":
            raise FlightError("PERMISSION_DENIED", "the query was asked by another")
        return messages.CANCELLED if status == "cancelled" else messages.NOT_CANCELLABLE

    async def _prepare(self, sql: str, options: CallOptions) -> bytes:
        def plan() -> tuple[str, StatementDescription]:
            handle = self._statements.prepare(sql)
            return handle, self._engine.describe(handle, administers=options.administers)

        # planning takes milliseconds and may wait for the metadata database: not on the event loop
        handle, description = await asyncio.to_thread(plan)
        return messages.pack(
            "ActionCreatePreparedStatementResult",
            prepared_statement_handle=handle.encode(),
            dataset_schema=schema_stream(edge_schema(description.schema, preserve_dictionary=False)),
            parameter_schema=schema_stream(description.parameter_schema) if len(description.parameter_schema) else b"",
        )

    async def _schema_of(self, command: Command, options: CallOptions) -> pa.Schema:
        if is_catalog_command(command.name):
            return catalog_schema(command.name, command.body)
        sql, parameters = self._statement_of(command)
        description = await asyncio.to_thread(self._engine.describe, sql, parameters, administers=options.administers)
        return edge_schema(description.schema, options.preserve_dictionary)

    def _statement_of(self, command: Command) -> tuple[str, Mapping[str, pa.Scalar]]:
        """SQL text and bound values of a query command or ticket."""
        if command.name == "CommandStatementQuery":
            return command.body.query, {}
        if command.name == "TicketStatementQuery":
            return text_of(command.body.statement_handle), {}
        if command.name == "CommandPreparedStatementQuery":
            return self._statements.statement(text_of(command.body.prepared_statement_handle))
        raise unimplemented(f"{command.name} is not offered here")


def _command_of(descriptor: Message) -> Command:
    if descriptor.type != messages.DESCRIPTOR_TYPE_CMD:
        raise unimplemented("only descriptors that hold a flight sql command are offered")
    return unpack(descriptor.cmd)


async def _incoming(
    first: Message, requests: AsyncIterator[bytes], max_bytes: int
) -> AsyncIterator[tuple[IncomingBatches, pa.RecordBatch | None]]:
    """What each message of a DoPut brings, and the stream that it belongs to. A call may carry no stream at all."""
    incoming = IncomingBatches(max_bytes)
    data = first
    while True:
        if data.data_header:
            yield incoming, incoming.take(data.data_header, data.data_body)
        if (request := await anext(requests, None)) is None:
            return
        data = parse("FlightData", request)


async def _parameters(first: Message, requests: AsyncIterator[bytes]) -> pa.RecordBatch | None:
    """The rows of a DoPut as one batch; None when not even a schema came."""
    schema: pa.Schema | None = None
    batches: list[pa.RecordBatch] = []
    size = 0
    async for incoming, batch in _incoming(first, requests, MAX_BOUND_BYTES):
        schema = incoming.schema
        if batch is not None:
            size += batch.get_total_buffer_size()
            batches.append(batch)
        if size > MAX_BOUND_BYTES:
            raise invalid(f"parameters of more than {MAX_BOUND_BYTES} bytes")
    if schema is None:
        return None
    joined = pa.Table.from_batches(batches, schema).combine_chunks().to_batches()
    return joined[0] if joined else pa.RecordBatch.from_pylist([], schema=schema)


def _set_session_options(request: Message) -> bytes:
    refused = [option.key for option in request.session_options if option.key not in ("catalog", "schema")]
    errors = [
        messages.new(
            "SessionOptionErrorEntry",
            key=key,
            value=messages.new("SessionOptionError", value=messages.SESSION_OPTION_INVALID_NAME),
        )
        for key in refused
    ]
    return _bytes(messages.new("SetSessionOptionsResult", errors=errors))


def _result(body: bytes) -> bytes:
    return _bytes(messages.new("Result", body=body))


def _bytes(message: Message) -> bytes:
    serialized: bytes = message.SerializeToString()
    return serialized
