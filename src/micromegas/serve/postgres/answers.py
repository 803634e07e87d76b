"""What a session writes to its client: rows of the lake and of the catalogue, gathered into pieces worth a write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from sys import getsizeof

import pyarrow as pa

from micromegas import _engine
from micromegas.query.errors import QueryError
from micromegas.serve.audit import Caller
from micromegas.serve.postgres import messages
from micromegas.serve.postgres.commands import CopyOptions
from micromegas.serve.postgres.errors import PostgresError, from_query_error, not_offered, notice
from micromegas.serve.postgres.lake_rows import Asker, LakeQuestions, LakeRows, LakeStatement
from micromegas.serve.postgres.messages import Message
from micromegas.serve.postgres.portals import KeptRows, Portal, Portals
from micromegas.serve.postgres.relay import Relay
from micromegas.serve.postgres.session_range import DEFAULT_LOOKBACK, SessionRange
from micromegas.serve.postgres.types import BINARY_FORM, TEXT_FORM, RowEncoder, encodable, unsendable

MAX_BUFFERED_BYTES = 64 * 1024 * 1024
_WRITE_AT_BYTES = 256 * 1024
# of a list, for what is in it
_PLACE_BYTES = 8


class Answers:
    """Answers of one session, in the order in which they are put. `write` sends bytes, and waits for slow readers."""

    def __init__(
        self,
        write: Callable[[bytes], Awaitable[None]],
        relay: Relay,
        questions: LakeQuestions,
        *,
        portals: Portals,
        settings: SessionRange,
        caller: Caller,
        user: str,
        administers: bool,
    ) -> None:
        self._write = write
        self._relay = relay
        self._questions = questions
        self._portals = portals
        self._range = settings
        self._caller = caller
        self._user = user
        self._administers = administers
        self._out: list[bytes] = []
        self._out_bytes = 0

    def hear(self) -> None:
        """Passes on what the catalogue told beside its answers."""
        for each in self._relay.heard:
            self.put(each)
        self._relay.heard.clear()

    def put(self, content: bytes) -> None:
        self._out.append(content)
        self._out_bytes += len(content)

    async def put_drained(self, content: bytes) -> None:
        self.put(content)
        if self._out_bytes >= _WRITE_AT_BYTES:
            await self.flush()

    async def flush(self) -> None:
        content, self._out, self._out_bytes = b"".join(self._out), [], 0
        if content:
            await self._write(content)

    @property
    def caller(self) -> Caller:
        """Who asks, by the program that is set now."""
        return replace(self._caller, client=f"postgresql {self._relay.settings.get('application_name', '')}".strip())

    async def start(self, statement: LakeStatement, parameters: dict[str, pa.Scalar]) -> LakeRows:
        self._check_settings()
        within = self._range.now()
        asker = Asker(self.caller, self._user, self._administers, within.begin, within.end, within.assumed_begin)
        try:
            async with asyncio.timeout(self._range.statement_timeout_s):
                rows = await self._questions.start(statement, parameters, asker)
        except TimeoutError:
            raise from_query_error(_timed_out()) from None
        if rows.assumes_begin:
            self.put(
                notice(
                    "nothing bounds the time of this statement: it is about what is not older than "
                    f"{DEFAULT_LOOKBACK} ({self._range.lookback}); bound its time, or set that to off"
                )
            )
        return rows

    async def send_rows(self, rows: LakeRows, encoder: RowEncoder, limit: int | None) -> tuple[int, bool]:
        """Rows sent, and whether these were the last."""
        count = 0
        deadline = self._deadline()
        while limit is None or count < limit:
            piece = await _next(rows, None if limit is None else limit - count, deadline)
            if piece is None:
                return count, True
            await self.put_drained(rows.sent(encoder.rows(piece)))
            count += piece.num_rows
        return count, False

    def _deadline(self) -> float | None:
        timeout_s = self._range.statement_timeout_s
        return None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s

    async def send_copy(self, rows: LakeRows, options: CopyOptions) -> int:
        """All rows in a format of COPY, from the message that begins it to the one that ends it."""
        self.put(messages.copy_out(len(rows.columns), BINARY_FORM if options.binary else TEXT_FORM))
        if options.binary:
            self.put(messages.copy_data(messages.COPY_BINARY_BEGIN))
        if options.header:
            names = [column.description.name for column in rows.columns]
            header = pa.RecordBatch.from_arrays(
                [pa.array([name]) for name in names], names=[str(n) for n in range(len(names))]
            )
            self.put(_copied(header, options))
        encoder = RowEncoder(rows.columns, [BINARY_FORM])
        count = 0
        deadline = self._deadline()
        while (piece := await _next(rows, None, deadline)) is not None:
            try:
                content = encoder.copied(piece) if options.binary else _copied(encodable(piece, rows.columns), options)
            except (pa.ArrowException, ValueError) as error:
                raise unsendable(error) from None
            await self.put_drained(rows.sent(content))
            count += piece.num_rows
        if options.binary:
            self.put(messages.copy_data(messages.COPY_BINARY_END))
        self.put(messages.COPY_DONE)
        return count

    async def send_portal(self, portal: Portal, limit: int | None, *, moves: bool = False) -> tuple[int, bool]:
        """Rows sent, or skipped with `moves`, and whether there are no more."""
        if portal.prepared.relayed is not None:
            return await self._send_relayed(portal, limit)
        if portal.is_done:
            return 0, True
        async with self._running(portal) as (rows, encoder):
            if moves:
                count, portal.is_done = await self._skip_rows(rows, limit)
            else:
                count, portal.is_done = await self.send_rows(rows, encoder, limit)
        portal.given += count
        if portal.is_done:
            await portal.close()
        return count, portal.is_done

    @asynccontextmanager
    async def _running(self, portal: Portal) -> AsyncIterator[tuple[LakeRows, RowEncoder]]:
        """The rows of a portal of the lake; one that fails is not run again."""
        if portal.has_failed:
            raise PostgresError("55000", "the portal cannot be run: it has failed before")
        statement = portal.prepared.lake
        if statement is None:
            raise PostgresError("24000", "the portal has no rows")
        encoder = RowEncoder(statement.columns, portal.forms)
        try:
            if portal.rows is None:
                portal.rows = await self.start(statement, portal.parameters)
            yield portal.rows, encoder
        except BaseException:
            portal.has_failed = True
            await portal.close()
            raise

    async def _skip_rows(self, rows: LakeRows, limit: int | None) -> tuple[int, bool]:
        count = 0
        deadline = self._deadline()
        while limit is None or count < limit:
            piece = await _next(rows, None if limit is None else limit - count, deadline)
            if piece is None:
                return count, True
            count += piece.num_rows
        return count, False

    async def _send_relayed(self, portal: Portal, limit: int | None) -> tuple[int, bool]:
        if portal.kept is None and limit is None:
            count = 0
            async for answer in self._execute_relayed(portal):
                count += answer.kind == b"D"
                await self.put_drained(answer.encoded())
            portal.relayed, portal.kept = None, KeptRows(is_whole=True)
            return count, True
        kept = await self.kept(portal, None)
        begin = kept.position
        end = len(kept.rows) if limit is None else min(len(kept.rows), begin + limit)
        for row in kept.rows[begin:end]:
            await self.put_drained(row)
        count, kept.position = end - begin, end
        is_done = end == len(kept.rows) and (limit is None or count < limit)
        if is_done:
            self.put(messages.command_complete(f"SELECT {count}"))
        return count, is_done

    async def kept(self, portal: Portal, count: int | None) -> KeptRows:
        """The first `count` rows of a portal, or all that there are, kept to be given by pieces or again."""
        kept = portal.kept
        if kept is None:
            kept = portal.kept = KeptRows(is_whole=portal.prepared.relayed is not None and portal.relayed is None)
        if kept.is_whole or (count is not None and len(kept.rows) >= count):
            return kept
        if portal.prepared.relayed is not None:
            await self._keep_relayed(portal, kept)
            return kept
        deadline = self._deadline()
        async with self._running(portal) as (rows, encoder):
            while not kept.is_whole and (count is None or len(kept.rows) < count):
                piece = await _next(rows, None if count is None else count - len(kept.rows), deadline)
                kept.is_whole = piece is None
                if piece is not None:
                    self._keep(portal, kept, messages.split(rows.sent(encoder.rows(piece))))
        if kept.is_whole:
            await portal.close()
        return kept

    async def _keep_relayed(self, portal: Portal, kept: KeptRows) -> None:
        """Takes all rows of a portal of the catalogue, which PostgreSQL would forget."""
        refusal: PostgresError | None = None
        async for answer in self._execute_relayed(portal):
            # what is too much is read for nobody, so that the catalogue's session can go on
            if answer.kind == b"D" and refusal is None:
                try:
                    self._keep(portal, kept, [answer.encoded()])
                except PostgresError as error:
                    refusal = error
        portal.relayed, kept.is_whole = None, True
        if refusal is not None:
            portal.kept = None
            raise refusal

    def _keep(self, portal: Portal, kept: KeptRows, rows: list[bytes]) -> None:
        # short ones take more than they say
        size = sum(map(getsizeof, rows)) + _PLACE_BYTES * len(rows)
        if self._portals.kept_beside(portal) + kept.size + size > MAX_BUFFERED_BYTES:
            kept.rows.clear()
            kept.size = 0
            raise PostgresError(
                "54000", f"rows that a session keeps for its cursors take at most {MAX_BUFFERED_BYTES} bytes"
            )
        kept.rows += rows
        kept.size += size

    async def relayed(self, answers: AsyncIterator[Message]) -> AsyncIterator[Message]:
        async for answer in answers:
            self.hear()
            yield answer

    def _check_settings(self) -> None:
        """The lake answers in one encoding and one style of dates; who reads another would read it wrongly."""
        settings = self._relay.settings
        encoding = settings.get("client_encoding", "UTF8")
        if encoding not in ("UTF8", "SQL_ASCII"):
            raise not_offered(f"client_encoding {encoding} is not offered", "SET client_encoding TO 'UTF8'")
        style = settings.get("DateStyle", "ISO")
        if not style.startswith("ISO"):
            raise not_offered(f"DateStyle {style} is not offered", "SET datestyle TO 'ISO'")

    async def bind(self, portal: Portal, statement: str) -> None:
        portal.relayed = self._portals.new_name()
        await self._relay.bind(portal.relayed, statement, portal.bound)
        portal.runs_before = self._relay.runs

    async def _execute_relayed(self, portal: Portal) -> AsyncIterator[Message]:
        """Runs a portal of the catalogue; one that it may have forgotten at the end of a run is bound anew."""
        if portal.runs_before != self._relay.runs and portal.prepared.relayed is not None:
            await self.bind(portal, portal.prepared.relayed)
        if portal.relayed is None:
            raise AssertionError("a portal of the catalogue that was bound")
        async for answer in self.relayed(self._relay.execute(portal.relayed)):
            yield answer


async def _next(rows: LakeRows, limit: int | None, deadline: float | None) -> pa.RecordBatch | None:
    try:
        async with asyncio.timeout_at(deadline):
            return await rows.next(limit)
    except TimeoutError:
        raise rows.refused(_timed_out()) from None


def _copied(batch: pa.RecordBatch, options: CopyOptions) -> bytes:
    delimiter, quote, escape = (ord(letter) for letter in (options.delimiter, options.quote, options.escape))
    style = (options.csv, delimiter, options.null.encode(), quote, escape, options.force_quote)
    return _engine.postgres_copy_rows(batch, style)


def _timed_out() -> QueryError:
    return QueryError("exhausted", "canceling statement due to statement timeout")
