"""One client's session: which messages may follow which, and what each does: statements, cursors, transactions. Every
failure becomes an ErrorResponse, and the session goes on."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass

from micromegas.query.errors import QueryError
from micromegas.serve.audit import Caller
from micromegas.serve.postgres import messages
from micromegas.serve.postgres.answers import Answers
from micromegas.serve.postgres.commands import (
    CloseCursor,
    Command,
    Copy,
    Deallocate,
    Declare,
    Empty,
    Execute,
    Fetch,
    Nothing,
    Prepare,
    Question,
    Setting,
    Transaction,
    command_of,
    split,
)
from micromegas.serve.postgres.cursors import Cursors
from micromegas.serve.postgres.errors import (
    PostgresError,
    RelayedError,
    from_query_error,
    not_offered,
    protocol_violation,
)
from micromegas.serve.postgres.lake_rows import LakeQuestions, LakeStatement, aside
from micromegas.serve.postgres.messages import Body, Column, Message
from micromegas.serve.postgres.parameters import bound_scalars
from micromegas.serve.postgres.portals import Portal, Portals, Prepared
from micromegas.serve.postgres.relay import FAILED, IDLE, Relay
from micromegas.serve.postgres.routing import UNKNOWN_TO_POSTGRES, Routing
from micromegas.serve.postgres.session_range import RESETS, SETTINGS_QUERY, SessionRange
from micromegas.serve.postgres.transactions import Transactions
from micromegas.serve.postgres.types import RowEncoder, column_forms

MAX_STATEMENT = 1024 * 1024
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answering:
    """What a session needs of its gateway."""

    questions: LakeQuestions
    routing: Routing


class Session:
    """`await handle(message)` for each message of the client; `await close()` at the end."""

    def __init__(
        self,
        answering: Answering,
        write: Callable[[bytes], Awaitable[None]],
        relay: Relay,
        *,
        user: str,
        administers: bool,
        caller: Caller,
        application: str,
    ) -> None:
        self._questions = answering.questions
        self._routing = answering.routing
        self._relay = relay
        self._administers = administers
        self._skips_to_sync = False
        self._range = SessionRange(application)
        self._range_moves = False
        self._portals = Portals(relay)
        self._answers = Answers(
            write,
            relay,
            answering.questions,
            portals=self._portals,
            settings=self._range,
            caller=caller,
            user=user,
            administers=administers,
        )
        self._cursors = Cursors(self._portals, self._answers)
        self._transactions = Transactions(relay, self._answers, self._portals)
        self.is_cancellable = False
        """Whether what runs now may be cancelled: not once its end is being told."""

    @property
    def is_relaying(self) -> bool:
        """Whether what runs now runs at the catalogue, and must be cancelled there."""
        return self._relay.is_busy

    async def begin(self) -> None:
        """Reads the settings that the client began with; `PostgresError` for wrong ones."""
        await self._read_settings()
        self._relay.heard.clear()

    async def handle(self, message: Message) -> None:
        """Answers one message; only what ends the session is raised: a FATAL `PostgresError`, or `OSError`."""
        self.is_cancellable = message.kind != b"S"
        if self._skips_to_sync and message.kind != b"S":
            return
        try:
            await self._dispatch(message)
        except PostgresError as error:
            await self._fail(error, message.kind)
        except QueryError as error:
            await self._fail(from_query_error(error), message.kind)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit, OSError):
            raise
        # a Rust panic arrives as a BaseException that is no Exception
        except BaseException:
            reference = uuid.uuid4().hex[:12]
            _log.exception("a statement of a PostgreSQL client failed (%s)", reference)
            await self._fail(
                PostgresError("XX000", f"internal error, see the server's log at {reference}"), message.kind
            )

    async def cancelled(self, kind: bytes) -> None:
        """What ran was cancelled on the client's wish."""
        await self._fail(PostgresError("57014", "canceling statement due to user request"), kind)

    async def cancel_relayed(self) -> None:
        await self._relay.cancel()

    async def close(self) -> None:
        await self._portals.close()
        self._relay.close()

    async def _fail(self, error: PostgresError, kind: bytes) -> None:
        self.is_cancellable = False
        if error.severity == "FATAL":
            await self._answers.flush()
            raise error
        self._answers.hear()
        self._answers.put(error.encoded())
        await self._relay.fail()
        if kind in (b"Q", b"S"):
            await self._ready()
        else:
            self._skips_to_sync = True
            await self._answers.flush()

    async def _dispatch(self, message: Message) -> None:
        if message.refusal is not None:
            raise message.refusal
        body = Body(message.body)
        match message.kind:
            case b"Q":
                await self._simple(body.text())
                await self._ready()
            case b"P":
                await self._parse(body)
            case b"B":
                await self._bind(body)
            case b"D":
                await self._describe(body)
            case b"E":
                await self._execute(body)
            case b"C":
                await self._close(body)
            case b"H":
                await self._answers.flush()
            case b"S":
                await self._sync()
            case b"d" | b"c" | b"f":
                # what a client sends on after its COPY was refused
                return
            case b"F":
                raise not_offered("calls of functions by their numbers are not offered")
            case _:
                raise PostgresError("08P01", f"invalid frontend message type {message.kind[0]}", severity="FATAL")

    # The simple protocol.

    async def _simple(self, sql: str) -> None:
        parts = await self._parts(sql)
        for part in parts:
            command = await aside(command_of, part)
            self._check_state(command)
            if len(parts) > 1:
                await self._transactions.share()
            await self._run(command)
            # a text may have very many commands that wait for nothing
            await asyncio.sleep(0)

    async def _parts(self, sql: str) -> list[str]:
        if len(sql) > MAX_STATEMENT:
            raise PostgresError("54000", f"a statement of {len(sql)} characters; at most {MAX_STATEMENT} are taken")
        return await aside(split, sql)

    async def _is_of_lake(self, sql: str) -> bool:
        """Whether a statement is for the lake, told by its tokens, which a setting of PostgreSQL must not move."""
        if self._relay.settings.get("standard_conforming_strings", "on") != "on":
            raise not_offered(
                "standard_conforming_strings off is not offered", "SET standard_conforming_strings TO 'on'"
            )
        return await aside(self._routing.is_of_lake, sql)

    async def _run(self, command: Command) -> None:
        match command:
            case Empty():
                self._answers.put(messages.EMPTY_QUERY)
            case Question() | Setting():
                await self._answer(command)
            case _:
                await self._do(command, None)

    async def _answer(self, command: Question | Setting) -> None:
        if isinstance(command, Setting) or not await self._is_of_lake(command.sql):
            try:
                # SET has nothing that the lake could know, and not all of it is allowed beneath a savepoint
                is_set = isinstance(command, Setting) and "show" not in command.mentions
                async with nullcontext() if is_set else self._relay.attempt():
                    async for answer in self._answers.relayed(self._relay.run(command.sql)):
                        await self._answers.put_drained(answer.encoded())
            except RelayedError as refusal:
                self._relay.heard.clear()
                if refusal.state not in UNKNOWN_TO_POSTGRES or not await self._answered_by_lake(command.sql):
                    raise
            else:
                await self._after(command)
            return
        statement = await self._planned(command.sql, [])
        await self._answer_of_lake(statement)

    async def _answered_by_lake(self, sql: str) -> bool:
        """Whether the lake knows what PostgreSQL doesn't; if so, it has answered."""
        try:
            statement = await self._planned(sql, [], is_told=False)
        except PostgresError:
            return False
        await self._answer_of_lake(statement)
        return True

    async def _planned(self, sql: str, oids: list[int], *, is_told: bool = True) -> LakeStatement:
        """Of what the lake may not know either, the audit is not told."""
        caller = self._answers.caller if is_told else None
        return await self._questions.prepare(sql, oids, administers=self._administers, caller=caller)

    async def _answer_of_lake(self, statement: LakeStatement) -> None:
        if statement.parameter_oids:
            raise PostgresError("42P02", "there is no parameter $1")
        rows = await self._answers.start(statement, {})
        try:
            encoder = RowEncoder(rows.columns, [])
            self._answers.put(messages.row_description([column.description for column in rows.columns], encoder.forms))
            count, _ = await self._answers.send_rows(rows, encoder, None)
        finally:
            await rows.close()
        self._answers.put(messages.command_complete(f"SELECT {count}"))

    # The extended protocol.

    async def _parse(self, body: Body) -> None:
        name, sql, oids = body.text(), body.text(), body.uint32s()
        self._portals.check_room(len(body))
        parts = await self._parts(sql)
        if len(parts) > 1:
            raise PostgresError("42601", "cannot insert multiple commands into a prepared statement")
        command = await aside(command_of, parts[0])
        self._check_state(command)
        if not name:
            await self._portals.forget("")
        prepared = await self._prepare(command, oids)
        prepared.size = len(body)
        await self._portals.add_statement(name, prepared)
        self._answers.put(messages.PARSE_COMPLETE)

    async def _prepare(self, command: Command, oids: list[int]) -> Prepared:
        match command:
            case Question():
                return await self._prepare_question(command, command.sql, oids)
            case Declare():
                return await self._prepare_question(command, command.question, oids)
            case Setting():
                return await self._prepare_relayed(command, command.sql, oids)
        return Prepared(command)

    async def _prepare_question(self, command: Command, sql: str, oids: list[int]) -> Prepared:
        if not await self._is_of_lake(sql):
            try:
                async with self._relay.attempt():
                    return await self._prepare_relayed(command, sql, oids)
            except RelayedError as refusal:
                self._relay.heard.clear()
                if refusal.state not in UNKNOWN_TO_POSTGRES:
                    raise
                refused = refusal
            try:
                statement = await self._planned(sql, oids, is_told=False)
            except PostgresError:
                raise refused from None
        else:
            statement = await self._planned(sql, oids)
        columns = tuple(column.description for column in statement.columns)
        return Prepared(command, statement.parameter_oids, columns, statement)

    async def _prepare_relayed(self, command: Command, sql: str, oids: list[int]) -> Prepared:
        name = self._portals.new_name()
        parameters, columns = await self._relay.parse(name, sql, oids)
        return Prepared(command, parameters, columns, None, name)

    async def _bind(self, body: Body) -> None:
        name, statement = body.text(), body.text()
        prepared = self._portals.statement(statement)
        self._check_state(prepared.command)
        size = body.left
        formats, values = body.int16s(), body.values()
        forms = body.int16s()
        if not body.is_at_end:
            raise protocol_violation("a bind message that goes on after its end")
        self._portals.check_portal(name, size)
        if isinstance(prepared.command, Execute) and self._portals.may_run(prepared.command.name):
            bound_scalars((), formats, values)
            portal = await self._portal_of(prepared.command, forms)
        else:
            portal = await self._bound(prepared, formats, values, forms)
        await self._portals.add_portal(name, portal)
        self._answers.put(messages.BIND_COMPLETE)

    async def _bound(
        self, prepared: Prepared, formats: list[int], values: list[bytes | None], forms: list[int]
    ) -> Portal:
        bound = messages.int16s(formats) + messages.values(values) + messages.int16s(forms)
        portal = Portal(prepared, forms=forms, size=len(bound))
        if prepared.relayed is not None:
            portal.bound = bound
            await self._answers.bind(portal, prepared.relayed)
        else:
            portal.parameters = bound_scalars(prepared.parameter_oids, formats, values)
        return portal

    async def _describe(self, body: Body) -> None:
        kind, name = body.take(1), body.text()
        if kind == b"S":
            prepared = self._portals.statement(name)
            self._answers.put(messages.parameter_description(prepared.parameter_oids))
            columns, forms = self._columns_of(prepared), []
        elif kind == b"P":
            portal = self._portals.portal(name, "34000", "portal")
            columns, forms = self._columns_of(portal.prepared, is_cursor=portal.is_cursor), portal.forms
        else:
            raise protocol_violation("describe of neither a statement nor a portal")
        if columns is None:
            self._answers.put(messages.NO_DATA)
            return
        self._answers.put(messages.row_description(columns, column_forms(forms, len(columns))))

    def _columns_of(self, prepared: Prepared, *, is_cursor: bool = False) -> tuple[Column, ...] | None:
        """What a statement shows: DECLARE itself shows nothing, the cursor that it makes does; FETCH and EXECUTE what
        their names stand for when they are asked, or nothing."""
        match prepared.command:
            case Declare() if not is_cursor:
                return None
            case Fetch(cursor=name, moves=False):
                return self._portals.columns_of_cursor(name)
            case Execute(name=name):
                return self._portals.columns_of_statement(name)
        return prepared.columns

    async def _execute(self, body: Body) -> None:
        portal = self._portals.portal(body.text(), "34000", "portal")
        limit = body.int32()
        command = portal.prepared.command
        self._check_state(command)
        match command:
            case Empty():
                self._answers.put(messages.EMPTY_QUERY)
            case Question() | Setting() | Declare() if portal.is_cursor or not isinstance(command, Declare):
                is_limited = limit > 0 and not isinstance(command, Setting)
                count, is_done = await self._answers.send_portal(portal, limit if is_limited else None)
                if not is_done:
                    self._answers.put(messages.PORTAL_SUSPENDED)
                elif portal.prepared.relayed is None:
                    self._answers.put(messages.command_complete(f"SELECT {count}"))
                await self._after(command)
            case _:
                await self._do(command, portal)

    async def _close(self, body: Body) -> None:
        kind, name = body.take(1), body.text()
        if kind == b"S":
            await self._portals.forget(name)
        elif kind == b"P":
            await self._portals.drop(name)
        else:
            raise protocol_violation("close of neither a statement nor a portal")
        self._answers.put(messages.CLOSE_COMPLETE)

    async def _sync(self) -> None:
        self._skips_to_sync = False
        await self._relay.sync()
        await self._ready()

    # What statements do that have no rows of their own.

    async def _do(self, command: Command, portal: Portal | None) -> None:
        match command:
            case Transaction():
                await self._transact(command)
            case Declare():
                await self._declare(command, portal)
            case Fetch():
                await self._cursors.fetch(command, None if portal is None else portal.forms)
            case CloseCursor():
                await self._cursors.close(command)
            case Copy():
                await self._copy(command)
            case Prepare():
                await self._prepare_named(command)
            case Deallocate():
                await self._deallocate(command)
            case Nothing():
                self._answers.put(messages.command_complete(command.tag))
            case Execute():
                await self._execute_prepared(command)
            case _:
                raise AssertionError(f"{type(command).__name__} is done elsewhere")

    async def _transact(self, command: Transaction) -> None:
        """What is set within transactions is forgotten as PostgreSQL forgets it."""
        await self._transactions.run(command)
        if command.returns or self._relay.state == IDLE:
            await self._reread_settings()

    async def _reread_settings(self) -> None:
        if self._range_moves:
            await self._read_settings()

    async def _declare(self, command: Declare, portal: Portal | None) -> None:
        if self._relay.state == IDLE and not command.holds:
            raise PostgresError("25P01", "DECLARE CURSOR can only be used in transaction blocks")
        self._portals.check_portal(command.cursor, 0)
        if portal is not None:
            await self._cursors.declare(command, portal.prepared, portal)
        else:
            prepared = await self._prepare_question(command, command.question, [])
            prepared.is_nameless = True
            try:
                await self._cursors.declare(command, prepared, None)
            except PostgresError as error:
                if error.severity != "FATAL":
                    await self._portals.forget_unused(prepared)
                raise
        await self._heed(command.question)

    # Statements that SQL prepares.

    async def _prepare_named(self, command: Prepare) -> None:
        size = len(command.question.encode())
        self._portals.check_room(size)
        oids = await self._oids_of(command.types) if command.types else []
        prepared = await self._prepare_question(Question(command.question), command.question, oids)
        prepared.size = size
        await self._portals.add_statement(command.name, prepared)
        self._answers.put(messages.command_complete("PREPARE"))

    async def _oids_of(self, types: tuple[str, ...]) -> list[int]:
        """Numbers of types by their names, `unknown` for what is to be told from the statement."""
        # what stands in a cast is a name of a type, or no SQL
        casts = ", ".join(f"pg_catalog.pg_typeof(CAST(NULL AS {each}\n))::pg_catalog.oid" for each in types)
        return [int(oid) for oid in await self._relay.value(f"SELECT {casts}")]

    async def _execute_prepared(self, command: Execute) -> None:
        portal = await self._portal_of(command, [])
        columns = portal.prepared.columns
        try:
            if columns is not None:
                self._answers.put(messages.row_description(columns, column_forms([], len(columns))))
            count, _ = await self._answers.send_portal(portal, None)
        finally:
            await portal.close()
        if portal.prepared.relayed is None:
            self._answers.put(messages.command_complete(f"SELECT {count}"))
        await self._after(portal.prepared.command)

    async def _portal_of(self, command: Execute, forms: list[int]) -> Portal:
        """A prepared statement with the values of EXECUTE's arguments, which PostgreSQL computes."""
        prepared = self._portals.statement(command.name)
        if not isinstance(prepared.command, Question | Setting):
            raise not_offered("EXECUTE is offered for questions only")
        wanted, given = len(prepared.parameter_oids), len(command.arguments)
        if wanted == 0:
            # as PostgreSQL, which doesn't look at what nobody wants
            return await self._bound(prepared, [], [], forms)
        if wanted != given:
            raise PostgresError(
                "42601",
                f'wrong number of parameters for prepared statement "{command.name}": {given}, not {wanted}',
            )
        return await self._bound(prepared, [], await self._computed(command.arguments, prepared.parameter_oids), forms)

    async def _computed(self, arguments: tuple[str, ...], oids: tuple[int, ...]) -> list[bytes | None]:
        for argument in arguments:
            if await self._is_of_lake(argument):
                raise not_offered("arguments of EXECUTE that ask the lake are not offered", "ask for the value before")
        names = await self._relay.value(f"SELECT {', '.join(f'pg_catalog.format_type({oid}, NULL)' for oid in oids)}")
        casts = ", ".join(f"CAST(({argument}\n) AS {name})" for argument, name in zip(arguments, names, strict=True))
        values = await self._relay.row(f"SELECT {casts}")
        await self._heed(casts)
        return values

    async def _deallocate(self, command: Deallocate) -> None:
        if command.name is None:
            await self._portals.forget_all()
        else:
            self._portals.statement(command.name)
            await self._portals.forget(command.name)
        self._answers.put(messages.command_complete("DEALLOCATE ALL" if command.name is None else "DEALLOCATE"))

    async def _copy(self, command: Copy) -> None:
        if not await self._is_of_lake(command.question):
            end = b""
            async for answer in self._answers.relayed(self._relay.run(command.sql)):
                if answer.kind == b"C":
                    end = answer.encoded()
                else:
                    await self._answers.put_drained(answer.encoded())
            # may refuse what was set, which ends the answer as well
            await self._heed(command.question)
            self._answers.put(end)
            return
        statement = await self._planned(command.question, [])
        if statement.parameter_oids:
            raise PostgresError("42P02", "there is no parameter $1")
        rows = await self._answers.start(statement, {})
        try:
            count = await self._answers.send_copy(rows, command.options)
        finally:
            await rows.close()
        self._answers.put(messages.command_complete(f"COPY {count}"))

    # Settings.

    async def _after(self, command: Command) -> None:
        """Reads the settings again that mean something here, where a statement may have changed them."""
        if isinstance(command, Question):
            await self._heed(command.sql)
        elif isinstance(command, Setting) and SessionRange.may_change(command.mentions):
            await self._read_settings()
        if isinstance(command, Setting) and "discard" in command.mentions and "all" in command.mentions:
            await self._portals.forget_all(is_relayed=False)
            await self._portals.end_all()

    async def _heed(self, sql: str) -> None:
        """Reads them again where what the catalogue has run may have set them."""
        if "set_config" in sql.lower():
            await self._read_settings()

    async def _read_settings(self) -> None:
        # the end of the transaction may change them back
        self._range_moves = self._relay.state != IDLE or self._relay.is_extended
        values = await self._relay.value(SETTINGS_QUERY)
        try:
            self._range.read(values)
        except PostgresError:
            # What PostgreSQL took is nothing here: as if it had never been said.
            for reset in RESETS:
                await self._relay.row(reset)
            self._range.read(await self._relay.value(SETTINGS_QUERY))
            raise

    # Bookkeeping.

    def _check_state(self, command: Command) -> None:
        if self._relay.state == FAILED and not isinstance(command, Transaction | Empty):
            raise PostgresError(
                "25P02", "current transaction is aborted, commands ignored until end of transaction block"
            )

    async def _ready(self) -> None:
        self.is_cancellable = False
        await self._transactions.leave()
        if self._relay.state == IDLE:
            await self._portals.end()
            await self._reread_settings()
        self._answers.hear()
        self._answers.put(messages.ready_for_query(self._relay.state))
        await self._answers.flush()
