"""One client's session: which messages may follow which, prepared statements, portals, cursors, transactions. Every
failure becomes an ErrorResponse, and the session goes on."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pyarrow as pa

from micromegas import _engine
from micromegas.query.errors import QueryError
from micromegas.serve.postgres import messages
from micromegas.serve.postgres.commands import (
    CloseCursor,
    Command,
    Copy,
    CopyOptions,
    Deallocate,
    Declare,
    Empty,
    Fetch,
    Nothing,
    Question,
    Setting,
    Transaction,
    command_of,
    split,
)
from micromegas.serve.postgres.errors import (
    PostgresError,
    RelayedError,
    from_query_error,
    not_offered,
    notice,
    protocol_violation,
    warning,
)
from micromegas.serve.postgres.lake_rows import Asker, LakeQuestions, LakeRows, LakeStatement, aside
from micromegas.serve.postgres.messages import Body, Column, Message
from micromegas.serve.postgres.parameters import bound_scalars
from micromegas.serve.postgres.relay import Relay
from micromegas.serve.postgres.routing import UNKNOWN_TO_POSTGRES, Routing
from micromegas.serve.postgres.session_range import DEFAULT_LOOKBACK, RESET_ALL_OF_OURS, SETTINGS_QUERY, SessionRange
from micromegas.serve.postgres.types import RowEncoder, encodable, unsendable

IDLE, IN_TRANSACTION, FAILED = b"I", b"T", b"E"
MAX_PREPARED = 10_000
MAX_PORTALS = 1_000
MAX_BOUND_BYTES = 128 * 1024 * 1024
MAX_STATEMENT = 1024 * 1024
MAX_PREPARED_BYTES = 64 * 1024 * 1024
MAX_BUFFERED_BYTES = 64 * 1024 * 1024
_WRITE_AT_BYTES = 256 * 1024
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Prepared:
    """A prepared statement: `lake` where the lake answers it, `relayed` its name at the catalogue where that does."""

    command: Command
    parameter_oids: tuple[int, ...] = ()
    columns: tuple[Column, ...] | None = None
    lake: LakeStatement | None = None
    relayed: str | None = None
    size: int = 0


@dataclass(slots=True)
class Portal:
    """A statement with its values. Rows of the catalogue are kept whole once a part of them was asked for."""

    prepared: Prepared
    parameters: dict[str, pa.Scalar] = field(default_factory=dict)
    forms: list[int] = field(default_factory=list)
    relayed: str | None = None
    bound: bytes = b""
    runs_before: int = 0
    is_cursor: bool = False
    holds: bool = False
    size: int = 0
    rows: LakeRows | None = None
    kept: list[bytes] | None = None
    kept_bytes: int = 0
    given: int = 0
    is_done: bool = False

    async def close(self) -> None:
        if self.rows is not None:
            await self.rows.close()
            self.rows = None


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
        administers: bool,
        user: str,
        application: str,
    ) -> None:
        self._questions = answering.questions
        self._routing = answering.routing
        self._write = write
        self._relay = relay
        self._administers = administers
        self._user = user
        self._client = f"postgresql {application}".strip()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._state = IDLE
        self._skips_to_sync = False
        self._prepared: dict[str, Prepared] = {}
        self._prepared_bytes = 0
        self._portals: dict[str, Portal] = {}
        self._names = 0
        self._range = SessionRange(application)
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
        for portal in self._portals.values():
            await portal.close()
        self._portals.clear()
        self._relay.close()

    async def _fail(self, error: PostgresError, kind: bytes) -> None:
        self.is_cancellable = False
        if error.severity == "FATAL":
            await self._flush()
            raise error
        self._hear()
        self._put(error.encoded())
        if self._state == IN_TRANSACTION:
            self._state = FAILED
        if kind in (b"Q", b"S"):
            await self._ready()
        else:
            self._skips_to_sync = True
            await self._flush()

    async def _dispatch(self, message: Message) -> None:
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
                await self._flush()
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
        for part in await self._parts(sql):
            command = await aside(command_of, part)
            self._check_state(command)
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
                self._put(messages.EMPTY_QUERY)
            case Question() | Setting():
                await self._answer(command)
            case Copy():
                await self._copy(command)
            case _:
                await self._do(command, None)

    async def _answer(self, command: Question | Setting) -> None:
        _check_setting(command)
        if isinstance(command, Setting) or not await self._is_of_lake(command.sql):
            try:
                async for answer in self._relayed(self._relay.run(command.sql)):
                    await self._put_drained(answer.encoded())
            except RelayedError as refusal:
                self._relay.heard.clear()
                if refusal.state not in UNKNOWN_TO_POSTGRES or not await self._answered_by_lake(command.sql):
                    raise
            else:
                await self._after(command)
            return
        statement = await self._questions.prepare(command.sql, [], administers=self._administers)
        await self._answer_of_lake(statement)

    async def _answered_by_lake(self, sql: str) -> bool:
        """Whether the lake knows what PostgreSQL doesn't; if so, it has answered."""
        try:
            statement = await self._questions.prepare(sql, [], administers=self._administers)
        except PostgresError:
            return False
        await self._answer_of_lake(statement)
        return True

    async def _answer_of_lake(self, statement: LakeStatement) -> None:
        if statement.parameter_oids:
            raise PostgresError("42P02", "there is no parameter $1")
        rows = await self._start(statement, {})
        try:
            encoder = RowEncoder(rows.columns, [])
            self._put(messages.row_description([column.description for column in rows.columns], encoder.forms))
            count, _ = await self._send_rows(rows, encoder, None)
        finally:
            await rows.close()
        self._put(messages.command_complete(f"SELECT {count}"))

    # The extended protocol.

    async def _parse(self, body: Body) -> None:
        name, sql, oids = body.text(), body.text(), body.uint32s()
        if name and name in self._prepared:
            raise PostgresError("42P05", f'prepared statement "{name}" already exists')
        if len(self._prepared) >= MAX_PREPARED:
            raise PostgresError("53400", f"a session has at most {MAX_PREPARED} prepared statements")
        if self._prepared_bytes + len(body) > MAX_PREPARED_BYTES:
            raise PostgresError(
                "53400", f"the prepared statements of a session have at most {MAX_PREPARED_BYTES} bytes"
            )
        parts = await self._parts(sql)
        if len(parts) > 1:
            raise PostgresError("42601", "cannot insert multiple commands into a prepared statement")
        command = await aside(command_of, parts[0])
        self._check_state(command)
        if not name:
            await self._forget("")
        prepared = await self._prepare(command, oids)
        prepared.size = len(body)
        self._prepared_bytes += prepared.size
        self._prepared[name] = prepared
        self._put(messages.PARSE_COMPLETE)

    async def _prepare(self, command: Command, oids: list[int]) -> Prepared:
        match command:
            case Question():
                return await self._prepare_question(command, command.sql, oids)
            case Declare():
                return await self._prepare_question(command, command.question, oids)
            case Setting():
                _check_setting(command)
                return await self._prepare_relayed(command, command.sql, oids)
            case Copy():
                raise not_offered("COPY is not offered as a prepared statement", "send it by the simple protocol")
            case Fetch():
                cursor = self._portal(command.cursor, "34000", "cursor")
                return Prepared(command, (), None if command.moves else cursor.prepared.columns)
        return Prepared(command)

    async def _prepare_question(self, command: Command, sql: str, oids: list[int]) -> Prepared:
        if not await self._is_of_lake(sql):
            try:
                return await self._prepare_relayed(command, sql, oids)
            except RelayedError as refusal:
                self._relay.heard.clear()
                if refusal.state not in UNKNOWN_TO_POSTGRES:
                    raise
                refused = refusal
            try:
                statement = await self._questions.prepare(sql, oids, administers=self._administers)
            except PostgresError:
                raise refused from None
        else:
            statement = await self._questions.prepare(sql, oids, administers=self._administers)
        columns = tuple(column.description for column in statement.columns)
        return Prepared(command, statement.parameter_oids, columns, statement)

    async def _prepare_relayed(self, command: Command, sql: str, oids: list[int]) -> Prepared:
        name = self._new_name()
        parameters, columns = await self._relay.parse(name, sql, oids)
        return Prepared(command, parameters, columns, None, name)

    async def _bind(self, body: Body) -> None:
        name, statement = body.text(), body.text()
        prepared = self._statement(statement)
        self._check_state(prepared.command)
        rest = body.rest()
        reader = Body(rest)
        formats, values = reader.int16s(), reader.values()
        forms = reader.int16s()
        if not reader.is_at_end:
            raise protocol_violation("a bind message that goes on after its end")
        if name and name in self._portals:
            raise PostgresError("42P03", f'cursor "{name}" already exists')
        self._check_room()
        portal = Portal(prepared, forms=forms, size=len(rest))
        if sum(each.size for each in self._portals.values()) + portal.size > MAX_BOUND_BYTES:
            raise PostgresError("53400", f"the portals of a session hold at most {MAX_BOUND_BYTES} bytes of values")
        if prepared.relayed is not None:
            portal.bound = rest
            await self._bind_relayed(portal, prepared.relayed)
        else:
            portal.parameters = bound_scalars(prepared.parameter_oids, formats, values)
        await self._drop(name)
        self._portals[name] = portal
        self._put(messages.BIND_COMPLETE)

    async def _bind_relayed(self, portal: Portal, statement: str) -> None:
        portal.relayed = self._new_name()
        await self._relay.bind(portal.relayed, statement, portal.bound)
        portal.runs_before = self._relay.runs

    async def _execute_relayed(self, portal: Portal) -> AsyncIterator[Message]:
        """Runs a portal of the catalogue; one that it has forgotten is bound anew: it knows of no transactions."""
        if portal.runs_before != self._relay.runs and portal.prepared.relayed is not None:
            await self._bind_relayed(portal, portal.prepared.relayed)
        if portal.relayed is None:
            raise AssertionError("a portal of the catalogue that was bound")
        async for answer in self._relayed(self._relay.execute(portal.relayed)):
            yield answer

    async def _describe(self, body: Body) -> None:
        kind, name = body.take(1), body.text()
        if kind == b"S":
            prepared = self._statement(name)
            self._put(messages.parameter_description(prepared.parameter_oids))
            columns, forms = self._columns_of(prepared), []
        elif kind == b"P":
            portal = self._portal(name, "34000", "portal")
            columns, forms = self._columns_of(portal.prepared, is_cursor=portal.is_cursor), portal.forms
        else:
            raise protocol_violation("describe of neither a statement nor a portal")
        if columns is None:
            self._put(messages.NO_DATA)
            return
        self._put(messages.row_description(columns, _forms(forms, len(columns))))

    def _columns_of(self, prepared: Prepared, *, is_cursor: bool = False) -> tuple[Column, ...] | None:
        """What a statement shows: DECLARE itself shows nothing, the cursor that it makes does."""
        if isinstance(prepared.command, Declare) and not is_cursor:
            return None
        return prepared.columns

    async def _execute(self, body: Body) -> None:
        portal = self._portal(body.text(), "34000", "portal")
        limit = body.int32()
        command = portal.prepared.command
        self._check_state(command)
        match command:
            case Empty():
                self._put(messages.EMPTY_QUERY)
            case Question() | Setting():
                count, is_done = await self._send_portal(portal, limit if limit > 0 else None)
                if not is_done:
                    self._put(messages.PORTAL_SUSPENDED)
                elif portal.prepared.relayed is None:
                    self._put(messages.command_complete(f"SELECT {count}"))
                await self._after(command)
            case _:
                await self._do(command, portal)

    async def _close(self, body: Body) -> None:
        kind, name = body.take(1), body.text()
        if kind == b"S":
            await self._forget(name)
        elif kind == b"P":
            await self._drop(name)
        else:
            raise protocol_violation("close of neither a statement nor a portal")
        self._put(messages.CLOSE_COMPLETE)

    async def _sync(self) -> None:
        self._skips_to_sync = False
        await self._relay.sync()
        await self._ready()

    # What statements do that have no rows of their own.

    async def _do(self, command: Command, portal: Portal | None) -> None:
        match command:
            case Transaction():
                await self._end_or_begin(command)
            case Declare():
                await self._declare(command, portal)
            case Fetch():
                await self._fetch(command, [] if portal is None else portal.forms, describes=portal is None)
            case CloseCursor():
                await self._close_cursor(command)
            case Deallocate():
                await self._deallocate(command)
            case Nothing():
                self._put(messages.command_complete(command.tag))
            case _:
                raise AssertionError(f"{type(command).__name__} is done elsewhere")

    async def _end_or_begin(self, command: Transaction) -> None:
        tag = command.tag
        returns = tag == "ROLLBACK" and command.state == IN_TRANSACTION
        if returns and self._state == IDLE:
            raise PostgresError("25P01", "ROLLBACK TO SAVEPOINT can only be used in transaction blocks")
        if command.state is None and self._state == IDLE:
            raise PostgresError("25P01", f"{tag} can only be used in transaction blocks")
        if command.state == IDLE:
            if self._state == IDLE:
                self._put(warning("25P01", "there is no transaction in progress"))
            elif self._state == FAILED:
                tag = "ROLLBACK"
            await self._end_portals()
        elif command.state == IN_TRANSACTION and not returns and self._state == IN_TRANSACTION:
            self._put(warning("25001", "there is already a transaction in progress"))
        if command.state is not None:
            self._state = command.state
        self._put(messages.command_complete(tag))

    async def _declare(self, command: Declare, portal: Portal | None) -> None:
        if self._state == IDLE and not command.holds:
            raise PostgresError("25P01", "DECLARE CURSOR can only be used in transaction blocks")
        if command.cursor in self._portals:
            raise PostgresError("42P03", f'cursor "{command.cursor}" already exists')
        self._check_room()
        prepared = await self._prepare_question(command, command.question, []) if portal is None else portal.prepared
        forms = [1] if command.is_binary else []
        parameters = {} if portal is None else portal.parameters
        cursor = Portal(prepared, parameters, forms, is_cursor=True, holds=command.holds)
        if prepared.relayed is not None:
            if portal is not None and portal.relayed is not None:
                cursor.relayed, cursor.bound, cursor.runs_before = portal.relayed, portal.bound, portal.runs_before
            elif prepared.parameter_oids:
                raise PostgresError("42P02", "there is no parameter $1")
            else:
                cursor.bound = b"\0\0\0\0" + messages.int16s(forms)
                await self._bind_relayed(cursor, prepared.relayed)
            # PostgreSQL forgets its portals at the end of the message's run
            await self._keep(cursor)
        elif prepared.parameter_oids and portal is None:
            raise PostgresError("42P02", "there is no parameter $1")
        self._portals[command.cursor] = cursor
        self._put(messages.command_complete("DECLARE CURSOR"))

    async def _fetch(self, command: Fetch, forms: list[int], *, describes: bool) -> None:
        cursor = self._portal(command.cursor, "34000", "cursor")
        width = len(cursor.prepared.columns or ())
        if cursor.kept is None:
            cursor.forms = forms or cursor.forms
        elif forms and _forms(forms, width) != _forms(cursor.forms, width):
            raise not_offered("rows that are read already keep their format", "declare a BINARY CURSOR, or fetch texts")
        verb = "MOVE" if command.moves else "FETCH"
        if describes and not command.moves and cursor.prepared.columns is not None:
            columns = cursor.prepared.columns
            self._put(messages.row_description(columns, _forms(cursor.forms, len(columns))))
        count = 0
        if command.count != 0:
            count, _ = await self._send_portal(cursor, command.count, moves=command.moves)
        self._put(messages.command_complete(f"{verb} {count}"))

    async def _close_cursor(self, command: CloseCursor) -> None:
        if command.cursor is None:
            await self._end_portals(all_of_them=True)
        else:
            self._portal(command.cursor, "34000", "cursor")
            await self._drop(command.cursor)
        self._put(messages.command_complete("CLOSE CURSOR ALL" if command.cursor is None else "CLOSE CURSOR"))

    async def _deallocate(self, command: Deallocate) -> None:
        if command.name is None:
            for name in list(self._prepared):
                await self._forget(name)
        else:
            self._statement(command.name)
            await self._forget(command.name)
        self._put(messages.command_complete("DEALLOCATE ALL" if command.name is None else "DEALLOCATE"))

    async def _copy(self, command: Copy) -> None:
        if not await self._is_of_lake(command.question):
            async for answer in self._relayed(self._relay.run(command.sql)):
                await self._put_drained(answer.encoded())
            return
        statement = await self._questions.prepare(command.question, [], administers=self._administers)
        if statement.parameter_oids:
            raise PostgresError("42P02", "there is no parameter $1")
        rows = await self._start(statement, {})
        try:
            self._put(messages.copy_out(len(rows.columns)))
            count = await self._send_copy(rows, command.options)
        finally:
            await rows.close()
        self._put(messages.COPY_DONE)
        self._put(messages.command_complete(f"COPY {count}"))

    async def _send_copy(self, rows: LakeRows, options: CopyOptions) -> int:
        if options.header:
            names = [column.description.name for column in rows.columns]
            header = pa.RecordBatch.from_arrays(
                [pa.array([name]) for name in names], names=[str(n) for n in range(len(names))]
            )
            self._put(_copied(header, options))
        count = 0
        while (piece := await rows.next(None)) is not None:
            try:
                content = _copied(encodable(piece, rows.columns), options)
            except (pa.ArrowException, ValueError) as error:
                raise unsendable(error) from None
            await self._put_drained(content)
            count += piece.num_rows
        return count

    # Rows.

    async def _start(self, statement: LakeStatement, parameters: dict[str, pa.Scalar]) -> LakeRows:
        self._check_settings()
        within = self._range.now()
        asker = Asker(self._user, self._client, self._administers, within.begin, within.end, within.assumed_begin)
        try:
            async with asyncio.timeout(self._range.statement_timeout_s):
                rows = await self._questions.start(statement, parameters, asker)
        except TimeoutError:
            raise _timed_out() from None
        if rows.assumes_begin:
            self._put(
                notice(
                    "nothing bounds the time of this statement: it is about what is not older than "
                    f"{DEFAULT_LOOKBACK} ({self._range.lookback}); bound its time, or set that to off"
                )
            )
        return rows

    async def _send_rows(self, rows: LakeRows, encoder: RowEncoder, limit: int | None) -> tuple[int, bool]:
        """Rows sent, and whether these were the last."""
        count = 0
        loop = asyncio.get_running_loop()
        timeout_s = self._range.statement_timeout_s
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while limit is None or count < limit:
            try:
                async with asyncio.timeout_at(deadline):
                    piece = await rows.next(None if limit is None else limit - count)
            except TimeoutError:
                raise _timed_out() from None
            if piece is None:
                return count, True
            await self._put_drained(encoder.rows(piece))
            count += piece.num_rows
        return count, False

    async def _send_portal(self, portal: Portal, limit: int | None, *, moves: bool = False) -> tuple[int, bool]:
        """Rows sent, and whether there are no more."""
        if portal.prepared.relayed is not None:
            return await self._send_relayed(portal, limit, moves=moves)
        if portal.is_done:
            return 0, True
        statement = portal.prepared.lake
        if statement is None:
            raise PostgresError("24000", "the portal has no rows")
        encoder = RowEncoder(statement.columns, portal.forms)
        if portal.rows is None:
            portal.rows = await self._start(statement, portal.parameters)
        try:
            if moves:
                count, portal.is_done = await self._skip_rows(portal.rows, limit)
            else:
                count, portal.is_done = await self._send_rows(portal.rows, encoder, limit)
        except BaseException:
            portal.is_done = True
            await portal.close()
            raise
        if portal.is_done:
            await portal.close()
        return count, portal.is_done

    async def _skip_rows(self, rows: LakeRows, limit: int | None) -> tuple[int, bool]:
        count = 0
        while limit is None or count < limit:
            piece = await rows.next(None if limit is None else limit - count)
            if piece is None:
                return count, True
            count += piece.num_rows
        return count, False

    async def _send_relayed(self, portal: Portal, limit: int | None, *, moves: bool) -> tuple[int, bool]:
        is_whole = portal.kept is None and limit is None and isinstance(portal.prepared.command, Question | Setting)
        if is_whole and not moves:
            if portal.relayed is None:
                return 0, True
            count = 0
            async for answer in self._execute_relayed(portal):
                count += answer.kind == b"D"
                await self._put_drained(answer.encoded())
            portal.relayed = None
            portal.kept = []
            return count, True
        if portal.kept is None:
            await self._keep(portal)
        kept = portal.kept or []
        end = len(kept) if limit is None else min(len(kept), portal.given + limit)
        if not moves:
            for row in kept[portal.given : end]:
                await self._put_drained(row)
        count = end - portal.given
        portal.given = end
        is_done = end == len(kept) and (limit is None or count < limit)
        if is_done and isinstance(portal.prepared.command, Question | Setting):
            self._put(messages.command_complete(f"SELECT {count}"))
        return count, is_done

    async def _keep(self, portal: Portal) -> None:
        """Takes all rows of a portal of the catalogue, which PostgreSQL would forget."""
        if portal.relayed is None:
            portal.kept = []
            return
        kept: list[bytes] = []
        size = 0
        others = sum(each.kept_bytes for each in self._portals.values())
        is_too_much = False
        async for answer in self._execute_relayed(portal):
            if answer.kind == b"D" and not is_too_much:
                kept.append(answer.encoded())
                size += len(kept[-1])
                is_too_much = others + size > MAX_BUFFERED_BYTES
                if is_too_much:
                    # the rest is read for nobody, so that the catalogue's session can go on
                    kept.clear()
        if is_too_much:
            raise PostgresError(
                "54000", f"answers of the catalogue that a session keeps have at most {MAX_BUFFERED_BYTES} bytes"
            )
        portal.relayed, portal.kept, portal.kept_bytes = None, kept, size

    async def _relayed(self, answers: AsyncIterator[Message]) -> AsyncIterator[Message]:
        async for answer in answers:
            self._hear()
            yield answer

    # Settings.

    async def _after(self, command: Question | Setting) -> None:
        """Reads the settings again that mean something here, where a statement may have changed them."""
        sets = isinstance(command, Setting) and SessionRange.may_change(command.mentions)
        if sets or (isinstance(command, Question) and "set_config" in command.sql.lower()):
            await self._read_settings()
        if isinstance(command, Setting) and "discard" in command.mentions and "all" in command.mentions:
            for name in list(self._prepared):
                await self._forget(name, is_relayed=False)
            await self._end_portals(all_of_them=True)

    async def _read_settings(self) -> None:
        values = await self._relay.value(SETTINGS_QUERY)
        try:
            self._range.read(values)
        except PostgresError:
            # What PostgreSQL took is nothing here: as if it had never been said.
            await self._relay.value(RESET_ALL_OF_OURS)
            self._range.read(await self._relay.value(SETTINGS_QUERY))
            raise

    def _check_settings(self) -> None:
        """The lake answers in one encoding and one style of dates; who reads another would read it wrongly."""
        settings = self._relay.settings
        encoding = settings.get("client_encoding", "UTF8")
        if encoding not in ("UTF8", "SQL_ASCII"):
            raise not_offered(f"client_encoding {encoding} is not offered", "SET client_encoding TO 'UTF8'")
        style = settings.get("DateStyle", "ISO")
        if not style.startswith("ISO"):
            raise not_offered(f"DateStyle {style} is not offered", "SET datestyle TO 'ISO'")

    # Bookkeeping.

    def _check_state(self, command: Command) -> None:
        ends = isinstance(command, Transaction) and (command.state == IDLE or command.tag == "ROLLBACK")
        if self._state == FAILED and not ends and not isinstance(command, Empty):
            raise PostgresError(
                "25P02", "current transaction is aborted, commands ignored until end of transaction block"
            )

    def _check_room(self) -> None:
        if len(self._portals) >= MAX_PORTALS:
            raise PostgresError("53400", f"a session has at most {MAX_PORTALS} portals and cursors")

    def _statement(self, name: str) -> Prepared:
        prepared = self._prepared.get(name)
        if prepared is None:
            raise PostgresError("26000", f'prepared statement "{name}" does not exist')
        return prepared

    def _portal(self, name: str, state: str, what: str) -> Portal:
        portal = self._portals.get(name)
        if portal is None:
            raise PostgresError(state, f'{what} "{name}" does not exist')
        return portal

    async def _forget(self, name: str, *, is_relayed: bool = True) -> None:
        prepared = self._prepared.pop(name, None)
        if prepared is None:
            return
        self._prepared_bytes -= prepared.size
        if prepared.relayed is not None and is_relayed:
            in_use = any(portal.prepared is prepared for portal in self._portals.values())
            if not in_use:
                await self._relay.forget(prepared.relayed)

    async def _drop(self, name: str) -> None:
        portal = self._portals.pop(name, None)
        if portal is not None:
            await portal.close()

    async def _end_portals(self, *, all_of_them: bool = False) -> None:
        for name, portal in list(self._portals.items()):
            if all_of_them or not portal.holds:
                await self._drop(name)

    def _new_name(self) -> str:
        self._names += 1
        return f"m{self._names}"

    async def _ready(self) -> None:
        self.is_cancellable = False
        if self._state == IDLE:
            await self._end_portals()
        self._hear()
        self._put(messages.ready_for_query(self._state))
        await self._flush()

    def _hear(self) -> None:
        """Passes on what the catalogue told beside its answers."""
        for each in self._relay.heard:
            self._put(each)
        self._relay.heard.clear()

    def _put(self, content: bytes) -> None:
        self._out.append(content)
        self._out_bytes += len(content)

    async def _put_drained(self, content: bytes) -> None:
        self._put(content)
        if self._out_bytes >= _WRITE_AT_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        content, self._out, self._out_bytes = b"".join(self._out), [], 0
        if content:
            await self._write(content)


def _check_setting(command: Question | Setting) -> None:
    """What the lake reads is set for the session: transactions are but a state, with no settings of their own."""
    if (
        isinstance(command, Setting)
        and command.mentions >= {"set", "local"}
        and SessionRange.may_change(command.mentions)
    ):
        raise not_offered("SET LOCAL is not offered for what the lake reads", "say SET, and RESET afterwards")


def _forms(forms: list[int], count: int) -> list[int]:
    if not forms:
        return [0] * count
    return list(forms) * count if len(forms) == 1 else list(forms)


def _copied(batch: pa.RecordBatch, options: CopyOptions) -> bytes:
    delimiter, quote, escape = (ord(letter) for letter in (options.delimiter, options.quote, options.escape))
    style = (options.csv, delimiter, options.null.encode(), quote, escape, options.force_quote)
    return _engine.postgres_copy_rows(batch, style)


def _timed_out() -> PostgresError:
    return PostgresError("57014", "canceling statement due to statement timeout")
