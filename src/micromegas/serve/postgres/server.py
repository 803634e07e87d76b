"""The PostgreSQL gateway on asyncio: connections, TLS, login, cancelling, the end. What is said in a session is the
session's own business."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from micromegas.config import PostgresSettings
from micromegas.query import QueryEngine
from micromegas.serve.acceptor import Acceptor, Share
from micromegas.serve.audit import Caller
from micromegas.serve.postgres import messages
from micromegas.serve.postgres.errors import PostgresError, RelayedError, protocol_violation
from micromegas.serve.postgres.lake_rows import LakeQuestions
from micromegas.serve.postgres.login import Logins
from micromegas.serve.postgres.messages import Body, Message
from micromegas.serve.postgres.relay import Relay
from micromegas.serve.postgres.routing import Routing
from micromegas.serve.postgres.session import Answering, Session
from micromegas.serve.postgres.shadow import ShadowError, ShadowPostgres
from micromegas.serve.tls import Certificate, Pair
from micromegas.views.catalogue import VIEW_SETS

_MAX_STARTUP = 10_000
_MAX_STATEMENT_MESSAGE = 2 * 1024 * 1024
# Longer ones than these are no messages of PostgreSQL.
_MAX_SKIPPED = 2**30 - 1
_WAITING_MESSAGES = 256
_SMALL_MESSAGE = 64 * 1024
_SEND_BUFFER = 1024 * 1024
_TOO_MANY = "53300"
# So long is waited for sessions of the catalogue that are about to end.
_LEAVING_S = 0.02
# What the lake answers in; a client that asks for another at its start is refused at once.
_ENCODINGS = frozenset(["utf8", "unicode", "sqlascii", ""])
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Connection:
    """A client past its login, as a request to cancel finds it."""

    process: int
    secret: int
    session: Session
    running: asyncio.Task[None] | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def cancel(self) -> None:
        if self.running is None or not self.session.is_cancellable:
            return
        if self.session.is_relaying:
            await self.session.cancel_relayed()
        else:
            self.running.cancel()


class PostgresServer:
    """`await start()` listens; `port` is then the bound port. `await stop()` lets what runs finish for a while."""

    def __init__(self, engine: QueryEngine, settings: PostgresSettings, share: Share | None = None) -> None:
        """`share`: of the port, where other processes listen on it, too."""
        self._share = share
        self._engine = engine
        self._settings = settings
        self._logins = Logins(settings)
        self._certificate = Certificate.of(settings)
        self._watching: asyncio.Task[None] | None = None
        self._shadow = ShadowPostgres(settings.max_sessions)
        self._answering: Answering | None = None
        self._acceptor: Acceptor | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._connections: dict[int, _Connection] = {}
        self._arriving = 0
        self._next_process = 1
        self._restarting: asyncio.Task[None] | None = None
        self.port = settings.port

    async def start(self) -> None:
        """`OSError` when the address can't be had, `ShadowError` when the catalogue can't."""
        settings = self._settings
        tables = self._engine.tables()
        await asyncio.to_thread(self._shadow.start, tables, _instance_shapes())
        view_sets = frozenset(VIEW_SETS)
        functions = [function.name for function in self._engine.table_functions]
        functions += [function.name for function in self._engine.scalars]
        relations = view_sets | {table.name for table in tables}
        routing = Routing(relations, functions, self._shadow.function_names)
        self._answering = Answering(LakeQuestions(self._engine, view_sets), routing)
        try:
            self._acceptor = Acceptor(settings.host, settings.port, self._share, self._take)
        except BaseException:
            await asyncio.to_thread(self._shadow.stop)
            raise
        self.port = self._acceptor.port
        self._acceptor.start()
        if self._certificate is not None:
            self._watching = asyncio.create_task(self._certificate.watch())

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._acceptor is not None:
            self._acceptor.stop()
        for connection in self._connections.values():
            connection.stopping.set()
        if self._clients:
            _, late = await asyncio.wait(self._clients, timeout=self._settings.drain_timeout_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        await asyncio.to_thread(self._shadow.stop)

    def _take(self, connection: socket.socket) -> None:
        task = asyncio.create_task(self._accept(connection))
        self._clients.add(task)
        self._count()
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._clients.discard(task)
        self._count()

    def _count(self) -> None:
        if self._acceptor is not None:
            self._acceptor.count(len(self._clients))

    async def _accept(self, connection: socket.socket) -> None:
        try:
            reader, writer = await _streams(connection)
        except OSError:
            # it has left; asyncio has closed it
            return
        try:
            await self._serve(reader, writer)
        except PostgresError as error:
            await _farewell(writer, error)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        except asyncio.CancelledError:
            await _farewell(writer, _shutting_down())
        except Exception:
            _log.exception("a connection of a PostgreSQL client failed")
            await _farewell(writer, PostgresError("XX000", "internal error", severity="FATAL"))
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        deadline = asyncio.get_running_loop().time() + self._settings.login_timeout_s
        # who has not said yet which protocol it speaks is told nothing
        async with asyncio.timeout_at(deadline):
            begun = await self._startup(reader, writer)
        if begun is None:
            return
        parameters, shown = begun
        try:
            async with asyncio.timeout_at(deadline):
                identity = await self._logins.identity(reader, writer, parameters["user"], shown)
                relay = await self._admitted(parameters)
        except TimeoutError:
            raise PostgresError("57014", "canceling authentication due to timeout", severity="FATAL") from None
        if self._answering is None:
            raise AssertionError("a server that listens has started")
        output = _Output(writer, self._settings.write_timeout_s)
        session = Session(
            self._answering,
            output.write,
            relay,
            user=identity.user,
            administers=self._logins.sign_in.administers(identity),
            caller=identity.vouched(
                Caller(_address(writer), user=parameters["user"], service_account_name=identity.key_name)
            ),
            application=parameters.get("application_name", ""),
        )
        connection = _Connection(self._new_process(), secrets.randbits(32), session)
        self._connections[connection.process] = connection
        try:
            await session.begin()
            greeting = [messages.parameter_status(*setting) for setting in relay.settings.items()]
            greeting += [
                messages.backend_key(connection.process, connection.secret),
                messages.ready_for_query(b"I"),
            ]
            await output.write(b"".join(greeting))
            await self._talk(reader, connection)
        finally:
            del self._connections[connection.process]
            await session.close()

    async def _startup(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[dict[str, str], Pair | None] | None:
        """What the client begins with, and the certificate that it was shown, if it wanted TLS; None where it only
        wanted something cancelled."""
        shown: Pair | None = None
        while True:
            length = int.from_bytes(await reader.readexactly(4), "big")
            if not 8 <= length <= _MAX_STARTUP:
                raise _fatal("invalid length of startup packet")
            body = Body(await reader.readexactly(length - 4))
            code = body.uint32()
            if code == messages.SSL_REQUEST and shown is None:
                shown = await self._start_tls(reader, writer)
            elif code == messages.GSSENC_REQUEST:
                writer.write(b"N")
            elif code == messages.CANCEL_REQUEST:
                await self._cancel(body.int32(), body.uint32())
                return None
            elif code >> 16 == 3:
                if self._settings.require_tls and shown is None:
                    raise PostgresError("28000", "this server takes sessions with TLS only", severity="FATAL")
                return self._parameters(body, writer, code & 0xFFFF), shown
            else:
                raise PostgresError(
                    "0A000", f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}", severity="FATAL"
                )

    async def _start_tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Pair | None:
        if self._certificate is None:
            writer.write(b"N")
            return None
        writer.write(b"S")
        await writer.drain()
        # Bytes that came before the answer could be somebody's between us: nothing that was sent in clear counts.
        if reader._buffer:  # type: ignore[attr-defined]
            raise _fatal("received unencrypted data after SSL request")
        shown = self._certificate.pair
        await writer.start_tls(shown.context)
        return shown

    def _parameters(self, body: Body, writer: asyncio.StreamWriter, minor: int) -> dict[str, str]:
        parameters: dict[str, str] = {}
        while not body.is_at_end and (name := body.text()):
            parameters[name] = body.text()
        options = [name for name in parameters if name.startswith("_pq_.")]
        if minor > 0 or options:
            listed = b"".join(messages.text(name) for name in options)
            writer.write(messages.message(b"v", struct.pack("!ii", messages.PROTOCOL_3, len(options)), listed))
        if not parameters.get("user"):
            raise PostgresError("28000", "no user name specified in startup packet", severity="FATAL")
        if parameters.get("replication", "false").lower() not in ("false", "off", "no", "0"):
            raise PostgresError("0A000", "replication is not offered", severity="FATAL")
        encoding = parameters.get("client_encoding", "").lower().strip("'").replace("-", "").replace("_", "")
        if encoding not in _ENCODINGS:
            raise PostgresError("0A000", "only client_encoding UTF8 is offered", severity="FATAL")
        return parameters

    async def _admitted(self, parameters: Mapping[str, str]) -> Relay:
        """A session of the catalogue, where there is room for one more."""
        # those that are about to have one take a place each, too
        if len(self._connections) + self._arriving >= self._settings.max_sessions:
            raise PostgresError(_TOO_MANY, "sorry, too many clients already", severity="FATAL")
        self._arriving += 1
        try:
            return await self._relay(parameters)
        finally:
            self._arriving -= 1

    async def _relay(self, parameters: Mapping[str, str]) -> Relay:
        wanted = {
            name: value
            for name, value in parameters.items()
            if name not in ("user", "database", "replication") and not name.startswith("_pq_.")
        }
        while True:
            try:
                return await self._connected(wanted)
            except RelayedError as refusal:
                # Here is room, there are sessions that have been left and have not ended yet.
                if refusal.state != _TOO_MANY:
                    raise
                await asyncio.sleep(_LEAVING_S)

    async def _connected(self, wanted: dict[str, str]) -> Relay:
        """`RelayedError` where the catalogue refuses the session, FATAL where there is no catalogue."""
        try:
            return await Relay.connect(self._shadow.socket_path, wanted)
        except (OSError, TimeoutError, ShadowError):
            pass
        try:
            await self._restarted()
            return await Relay.connect(self._shadow.socket_path, wanted)
        except (OSError, TimeoutError, ShadowError) as error:
            _log.error("the catalogue is not available: %s", error)
            raise PostgresError("58000", "the catalogue is not available", severity="FATAL") from None

    async def _restarted(self) -> None:
        """Starts the catalogue anew, once for all logins that find it gone; one that comes later tries again."""
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.create_task(asyncio.to_thread(self._shadow.restart))
            # seen even where nobody waits any more
            self._restarting.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._restarting)

    async def _cancel(self, process: int, secret: int) -> None:
        connection = self._connections.get(process)
        if connection is not None and hmac.compare_digest(
            connection.secret.to_bytes(4, "big"), secret.to_bytes(4, "big")
        ):
            await connection.cancel()

    async def _talk(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        """Answers messages until the client leaves; one that leaves while something runs ends that."""
        queue: asyncio.Queue[Message] = asyncio.Queue(_WAITING_MESSAGES)
        reading = asyncio.create_task(_read(reader, queue, self._settings.max_message_bytes))
        stopping = asyncio.create_task(connection.stopping.wait())
        try:
            while (received := await _next_of(queue, reading, stopping)) is not None:
                if isinstance(received, PostgresError):
                    raise received
                if received.kind == b"X":
                    return
                await self._answer(connection, received, reading)
        finally:
            await _ended(reading, stopping)

    async def _answer(
        self, connection: _Connection, received: Message, reading: asyncio.Task[PostgresError | None]
    ) -> None:
        session = connection.session
        running = connection.running = asyncio.create_task(session.handle(received))
        try:
            await asyncio.wait([running, reading], return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                # who says goodbye, or closes its side, has left: nobody waits for what runs
                await _ended(running)
                raise reading.result() or ConnectionResetError
        except asyncio.CancelledError:
            running.cancel()
            await asyncio.wait([running])
            raise
        finally:
            connection.running = None
        if running.cancelled():
            await session.cancelled(received.kind)
        else:
            running.result()

    def _new_process(self) -> int:
        process = self._next_process
        self._next_process = process % (2**31 - 1) + 1
        return process


def _address(writer: asyncio.StreamWriter) -> str:
    peer = writer.get_extra_info("peername")
    return str(peer[0]) if peer else "unknown"


class _Output:
    """Writes to a client, which must take it within a time."""

    def __init__(self, writer: asyncio.StreamWriter, timeout_s: float) -> None:
        self._writer = writer
        self._timeout_s = timeout_s
        writer.transport.set_write_buffer_limits(high=_SEND_BUFFER)

    async def write(self, content: bytes) -> None:
        self._writer.write(content)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._writer.drain()
        except TimeoutError:
            self._writer.transport.abort()
            raise ConnectionResetError from None


async def _read(reader: asyncio.StreamReader, queue: asyncio.Queue[Message], max_bytes: int) -> PostgresError | None:
    """Puts the client's messages into the queue until it says goodbye or is gone, or says what ends its session."""
    while True:
        try:
            head = await reader.readexactly(5)
        except (OSError, asyncio.IncompleteReadError):
            return None
        kind, length = head[:1], int.from_bytes(head[1:], "big", signed=True) - 4
        limit = max_bytes if kind in b"Bd" else _MAX_STATEMENT_MESSAGE
        if length < 0 or not kind.isalpha():
            return _fatal("invalid message format")
        refusal: PostgresError | None = None
        if length > limit:
            refusal = PostgresError("54000", f"a message of {length} bytes; at most {limit} are taken")
            if length > _MAX_SKIPPED:
                refusal.severity = "FATAL"
                return refusal
        elif length > _SMALL_MESSAGE:
            # one of these at a time: what waits must not fill the memory
            await queue.join()
        try:
            body = await (reader.readexactly(length) if refusal is None else _skipped(reader, length))
        except (OSError, asyncio.IncompleteReadError):
            return None
        await queue.put(Message(kind, body, refusal))
        if kind == b"X":
            return None


async def _skipped(reader: asyncio.StreamReader, length: int) -> bytes:
    """Takes what is too long from a client, which would not hear a word before it has said it; keeps nothing."""
    while length > 0:
        length -= len(await reader.readexactly(min(length, _SMALL_MESSAGE)))
    return b""


async def _next_of(
    queue: asyncio.Queue[Message], reading: asyncio.Task[PostgresError | None], stopping: asyncio.Task[Any]
) -> Message | PostgresError | None:
    """The next message; none when the client has left. What it said before is answered first."""
    if not queue.empty():
        return _taken(queue)
    if reading.done():
        return reading.result()
    getting = asyncio.create_task(queue.get())
    try:
        await asyncio.wait([getting, stopping, reading], return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            queue.task_done()
            return getting.result()
    finally:
        if not getting.done():
            await _ended(getting)
    if not queue.empty():
        return _taken(queue)
    return _shutting_down() if stopping.done() else reading.result()


def _taken(queue: asyncio.Queue[Message]) -> Message:
    queue.task_done()
    return queue.get_nowait()


async def _ended(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _streams(connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    made: asyncio.Future[asyncio.StreamWriter] = loop.create_future()
    # what is given a callback begins TLS as a server
    protocol = asyncio.StreamReaderProtocol(reader, lambda _, writer: made.set_result(writer), loop=loop)
    await loop.connect_accepted_socket(lambda: protocol, connection)
    return reader, made.result()


async def _farewell(writer: asyncio.StreamWriter, error: PostgresError) -> None:
    error.severity = "FATAL"
    try:
        writer.write(error.encoded())
        async with asyncio.timeout(5):
            await writer.drain()
    except (OSError, TimeoutError):
        return


def _fatal(message: str) -> PostgresError:
    error = protocol_violation(message)
    error.severity = "FATAL"
    return error


def _shutting_down() -> PostgresError:
    return PostgresError("57P01", "terminating connection due to administrator command", severity="FATAL")


def _instance_shapes() -> dict[str, pa.Schema]:
    """Views that exist per process or stream only: tools may look at their columns."""
    return {name: view_set.schema for name, view_set in VIEW_SETS.items() if not view_set.has_global}
