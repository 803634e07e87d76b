"""A session's own connection to the private PostgreSQL: sends messages on and reads what comes back. Interprets only
what tells where an answer ends."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from micromegas.serve.postgres import messages
from micromegas.serve.postgres.dialect import DATABASE
from micromegas.serve.postgres.errors import PostgresError, RelayedError
from micromegas.serve.postgres.messages import Body, Message
from micromegas.serve.postgres.routing import UNKNOWN_TO_POSTGRES
from micromegas.serve.postgres.shadow import READER

_CONNECT_TIMEOUT_S = 20.0
# PostgreSQL's own limit of 30 s comes first, unless a session has raised it for the lake.
_ANSWER_TIMEOUT_S = 35.0
_CANCEL_TIMEOUT_S = 5.0
# savepoints of ours, by names that nobody else gives to theirs
_ATTEMPT, _NOWHERE = "micromegas_attempt_4f1c", "micromegas_nowhere_4f1c"
# of a portal: no formats, no values, and rows as texts
_NO_VALUES = bytes(6)
MAX_MESSAGE = 16 * 1024 * 1024
IDLE, IN_TRANSACTION, FAILED = b"I", b"T", b"E"
_LOST = "the catalogue's session was lost"
_TOO_LONG = "canceling statement due to statement timeout"


class Relay:
    """One connection. Notices and changed settings are kept in `heard` until somebody takes them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        self._reader = reader
        self._writer = writer
        self._path = path
        self._key = b""
        self.is_extended = False
        """Whether a run of the extended protocol is open, which is one transaction."""
        self.state = IDLE
        """Of the transaction, as PostgreSQL told it last: what ReadyForQuery says."""
        self.runs = 0
        """How many runs of messages have ended: with each, PostgreSQL forgets its portals."""
        self.is_busy = False
        """Whether PostgreSQL is at work on something, which is then cancelled there."""
        self._deadline: float | None = None
        self._is_late = False
        self.settings: dict[str, str] = {}
        """The settings that PostgreSQL tells its clients about."""
        self.heard: list[bytes] = []

    @classmethod
    async def connect(cls, path: str, parameters: dict[str, str]) -> Relay:
        """A session with the settings of a client's startup message; `PostgresError` where PostgreSQL refuses them,
        `OSError` where it does not answer."""
        reader, writer = await asyncio.wait_for(asyncio.open_unix_connection(path), _CONNECT_TIMEOUT_S)
        relay = cls(reader, writer, path)
        try:
            writer.write(messages.startup(parameters | {"user": READER, "database": DATABASE}))
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await relay._begin()
        except BaseException as error:
            relay.close()
            if isinstance(error, PostgresError) and not isinstance(error, RelayedError):
                # it was there to accept, and is gone: as one that does not answer
                raise ConnectionResetError(error.message) from None
            raise
        return relay

    async def _begin(self) -> None:
        while (answer := await self._next()).kind != b"Z":
            if answer.kind == b"E":
                raise RelayedError(answer.body)
            if answer.kind == b"K":
                self._key = answer.body
        self.heard.clear()

    def close(self) -> None:
        self._writer.close()

    async def cancel(self) -> None:
        """Asks PostgreSQL to end what runs in this session."""
        try:
            _, writer = await asyncio.wait_for(asyncio.open_unix_connection(self._path), _CONNECT_TIMEOUT_S)
            writer.write(struct.pack("!ii", 16, messages.CANCEL_REQUEST) + self._key)
            await writer.drain()
            writer.close()
        except (OSError, TimeoutError):
            return

    async def run(self, sql: str) -> AsyncGenerator[Message, None]:
        """Answers of the simple protocol, without the final ReadyForQuery; an error is raised once all was read."""
        await self.sync()
        self.runs += 1
        with self._exchange():
            await self._send(messages.message(b"Q", messages.text(sql)))
            failure: RelayedError | None = None
            is_whole = False
            try:
                while (answer := await self._next()).kind != b"Z":
                    if answer.kind == b"E":
                        failure = RelayedError(answer.body)
                    else:
                        yield answer
                self.state = answer.body
                is_whole = True
            finally:
                if not is_whole:
                    await self._drain_cancelled()
            if failure is not None:
                raise failure

    async def row(self, sql: str) -> list[bytes | None]:
        """The values of the one row of a query, in text form."""
        values: list[bytes | None] = []
        async for answer in self._beside(sql) if self.is_extended and self.state == IDLE else self.run(sql):
            if answer.kind == b"D":
                values = Body(answer.body).values()
        return values

    async def value(self, sql: str) -> list[str]:
        """As `row`, as texts; NULL is the empty one."""
        return [(value or b"").decode("utf-8", "replace") for value in await self.row(sql)]

    async def _beside(self, sql: str) -> AsyncGenerator[Message, None]:
        """As `run`, within the run of the extended protocol, which that would end."""
        await self.parse("", sql, [])
        await self.bind("", "", _NO_VALUES)
        async for answer in self.execute(""):
            yield answer

    async def fail(self) -> None:
        """Fails the transaction that is open, because of something that went wrong elsewhere."""
        try:
            if self.is_extended:
                await self.parse("", _NOWHERE, [])
            elif self.state == IN_TRANSACTION:
                await self.row(f"ROLLBACK TO SAVEPOINT {_NOWHERE}")
        except RelayedError as refusal:
            if refusal.severity == "FATAL":
                raise

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        """Within it, what PostgreSQL does not know (`UNKNOWN_TO_POSTGRES`) leaves the transaction as it was."""
        if self.state != IN_TRANSACTION:
            yield
            return
        await self.row(f"SAVEPOINT {_ATTEMPT}")
        try:
            yield
        except RelayedError as refusal:
            if refusal.state in UNKNOWN_TO_POSTGRES:
                await self.row(f"ROLLBACK TO SAVEPOINT {_ATTEMPT}; RELEASE SAVEPOINT {_ATTEMPT}")
            raise
        await self.row(f"RELEASE SAVEPOINT {_ATTEMPT}")

    async def parse(
        self, name: str, sql: str, oids: list[int]
    ) -> tuple[tuple[int, ...], tuple[messages.Column, ...] | None]:
        """Prepares a statement; types of its placeholders, and its columns where it has rows."""
        with self._exchange():
            await self._send(
                messages.message(b"P", messages.text(name), messages.text(sql), messages.uint32s(oids))
                + messages.message(b"D", b"S", messages.text(name))
                + messages.message(b"H")
            )
            self.is_extended = True
            await self._expect(b"1")
            parameters = tuple(Body((await self._expect(b"t")).body).uint32s())
            described = await self._expect(b"T", b"n")
        return parameters, messages.read_row_description(described.body) if described.kind == b"T" else None

    async def bind(self, portal: str, statement: str, rest: bytes) -> None:
        """`rest`: what stands behind the names in the client's own message."""
        with self._exchange():
            await self._send(
                messages.message(b"B", messages.text(portal), messages.text(statement), rest) + messages.message(b"H")
            )
            self.is_extended = True
            await self._expect(b"2")

    async def execute(self, portal: str) -> AsyncGenerator[Message, None]:
        """All that a portal gives, to its CommandComplete; it is closed then."""
        with self._exchange():
            await self._send(
                messages.message(b"E", messages.text(portal), b"\0\0\0\0")
                # in a transaction it would stay
                + messages.message(b"C", b"P", messages.text(portal))
                + messages.message(b"H")
            )
            is_whole = False
            try:
                while True:
                    answer = await self._next()
                    if answer.kind == b"E":
                        is_whole = True
                        await self.sync()
                        raise RelayedError(answer.body)
                    if answer.kind in (b"C", b"I"):
                        await self._expect(b"3")
                        is_whole = True
                        yield answer
                        return
                    yield answer
            finally:
                if not is_whole:
                    await self._drain_cancelled()

    async def forget(self, statement: str) -> None:
        """Closes a prepared statement."""
        with self._exchange():
            await self._send(messages.message(b"C", b"S", messages.text(statement)) + messages.message(b"H"))
            self.is_extended = True
            await self._expect(b"3")

    async def sync(self) -> None:
        """Ends a run of the extended protocol, where one is open."""
        if not self.is_extended:
            return
        self.is_extended = False
        self.runs += 1
        with self._exchange():
            await self._send(messages.message(b"S"))
            while (answer := await self._next()).kind != b"Z":
                pass
            self.state = answer.body

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        was_busy, self.is_busy = self.is_busy, True
        try:
            yield
        finally:
            self.is_busy = was_busy

    async def _expect(self, *kinds: bytes) -> Message:
        answer = await self._next()
        if answer.kind == b"E":
            await self.sync()
            raise RelayedError(answer.body)
        if answer.kind not in kinds:
            raise PostgresError("XX000", _LOST, severity="FATAL")
        return answer

    async def _drain_cancelled(self) -> None:
        """What runs for nobody is ended. The rest of its answer can't be told from the next one: the session ends."""
        await self.cancel()
        self.close()

    async def _send(self, content: bytes) -> None:
        self._deadline = asyncio.get_running_loop().time() + _ANSWER_TIMEOUT_S
        self._is_late = False
        try:
            self._writer.write(content)
            await self._writer.drain()
        except OSError:
            raise PostgresError("57P01", _LOST, severity="FATAL") from None

    async def _next(self) -> Message:
        """The next message that is part of an answer."""
        while True:
            head = await self._read(5)
            length = int.from_bytes(head[1:], "big") - 4
            if length > MAX_MESSAGE:
                await self._drain_cancelled()
                raise PostgresError(
                    "54000",
                    f"a row of the catalogue has {length} bytes; at most {MAX_MESSAGE} are sent",
                    severity="FATAL",
                )
            body = await self._read(length)
            answer = Message(head[:1], body)
            if answer.kind == b"S":
                name, value = (part.decode("utf-8", "replace") for part in body.split(b"\0")[:2])
                self.settings[name] = value
                self.heard.append(answer.encoded())
            elif answer.kind == b"N":
                self.heard.append(answer.encoded())
            elif answer.kind != b"A":
                return answer

    async def _read(self, length: int) -> bytes:
        """What takes too long is cancelled, and its error awaited."""
        while True:
            try:
                async with asyncio.timeout_at(self._deadline):
                    return await self._reader.readexactly(length)
            except TimeoutError:
                if self._is_late:
                    raise PostgresError("57014", _TOO_LONG, severity="FATAL") from None
                self._is_late = True
                await self.cancel()
                self._deadline = asyncio.get_running_loop().time() + _CANCEL_TIMEOUT_S
            except (OSError, asyncio.IncompleteReadError):
                raise PostgresError("57P01", _LOST, severity="FATAL") from None
