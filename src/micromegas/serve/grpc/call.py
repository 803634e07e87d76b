"""One call, as whoever answers it has it: bytes in, bytes out, and waiting for both where that must be."""

from __future__ import annotations

import asyncio
import re
import zlib
from base64 import b64decode
from collections.abc import AsyncGenerator, Callable
from typing import Any

from micromegas._transport import Call
from micromegas.config import FlightSettings
from micromegas.serve.grpc.status import CODES, OK, CallError

Metadata = list[tuple[str, str | bytes]]

_LONG = 64 * 1024
"""What is at least so long is sent at once; what is shorter, with all that else is written in this turn of the loop."""
_TURN = 1024 * 1024
"""Who wrote so much lets others have their turn."""
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_UNIT_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class ServerCall:
    """A call's `path`, `peer` (an IP address), `metadata` (names in lower case; values are text where they are that)
    and messages."""

    def __init__(
        self, call: Call, settings: FlightSettings, flush: Callable[[], None], send: Callable[[], None]
    ) -> None:
        """`flush` asks for what was written to be sent soon, `send` sends it at once."""
        self._call = call
        self._settings = settings
        self._flush = flush
        self._send = send
        self._since_turn = 0
        self._waiter: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_ended = False
        self._is_finishing = False
        self.ended_for: CallError | None = None
        self.path = call.path
        self.peer = call.peer
        self.metadata: Metadata = [_decoded(name, value) for name, value in call.metadata()]

    def timeout_s(self) -> float | None:
        """How long the caller gives the call; `CallError` where that isn't said as gRPC says it."""
        text = next((value for name, value in self.metadata if name == "grpc-timeout"), None)
        if text is None:
            return None
        if not isinstance(text, str) or re.fullmatch("[0-9]{1,8}[HMSmun]", text) is None:
            raise CallError("INVALID_ARGUMENT", "header grpc-timeout: up to eight digits and one of HMSmun are needed")
        return int(text[:-1]) * _UNIT_S[text[-1]]

    async def message(self) -> bytes:
        """The one message of a call that carries one."""
        taken = self._call.take()
        if taken is None:
            raise CallError("UNIMPLEMENTED", "the call carries no message")
        return await self._inflated(*taken)

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """The messages of the call as they come; a sender that stalls ends it."""
        while True:
            taken = self._call.take()
            if taken is not None:
                self._flush()
                yield await self._inflated(*taken)
            elif self._call.has_all:
                return
            else:
                await self._moved(self._settings.read_timeout_s, "the sender sent nothing")

    def start(self, headers: list[tuple[str, str]]) -> None:
        """Sends the headers of the answer before its first message."""
        self._call.start(headers)
        self._flush()

    async def write(self, *parts: Any) -> None:
        """Sends a message, given in parts (`bytes` or other buffers, which must not change until they are sent);
        returns once there is room for more. A reader that takes nothing ends the call."""
        size = self._call.write(*parts)
        self._since_turn += size
        if size < _LONG and self._call.has_room:
            self._flush()
        else:
            # most readers take it at once, and there is nothing to wait for
            self._send()
        while not self._call.has_room:
            self._since_turn = 0
            await self._moved(self._settings.write_timeout_s, "the reader took nothing")
        if self._since_turn >= _TURN:
            self._since_turn = 0
            await asyncio.sleep(0)

    # What follows is the server's.

    def begin(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def moved(self) -> None:
        """There is something new to be seen in the call."""
        if self._call.is_over and not self._is_finishing:
            # the caller is gone, or was told already what is wrong with the request
            self._end()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end_for(self, error: CallError) -> None:
        """Ends the call from outside."""
        if not self._is_ended:
            self.ended_for = error
        self._end()

    def _end(self) -> None:
        """Once, though caller, deadline and stop may all ask for it: whoever answers is cleaning up from then on."""
        assert self._task is not None
        if not self._is_ended:
            self._is_ended = True
            self._task.cancel()

    async def finish(self, error: CallError | None) -> None:
        """Sends the status, after all that was written."""
        self._is_finishing = True
        # a stop doesn't wait for the reader
        self._is_ended = False
        code, text = (OK, "") if error is None else (CODES[error.status], error.message)
        is_over = self._call.finish(code, text)
        self._flush()
        try:
            while not is_over:
                await self._moved(self._settings.write_timeout_s, "the reader took nothing")
                is_over = self._call.is_over
        except CallError:
            pass
        finally:
            # nothing to one that is over
            self._call.reset()
            self._flush()

    async def _moved(self, timeout_s: float, what: str) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._waiter
        except TimeoutError:
            raise CallError("DEADLINE_EXCEEDED", f"{what} for {timeout_s:g} s") from None
        finally:
            self._waiter = None

    async def _inflated(self, is_compressed: bool, message: bytes) -> bytes:
        if not is_compressed:
            return message
        encoding = next((value for name, value in self.metadata if name == "grpc-encoding"), "identity")
        if encoding == "identity":
            raise CallError("INTERNAL", "a message is compressed, and no header grpc-encoding says how")
        if not isinstance(encoding, str) or encoding not in _WINDOW_BITS:
            raise CallError("UNIMPLEMENTED", f"messages compressed by {encoding[:100]!r} are not taken; gzip is")
        return await asyncio.to_thread(_inflate, message, _WINDOW_BITS[encoding], self._settings.max_message_bytes)


def _inflate(message: bytes, window_bits: int, max_bytes: int) -> bytes:
    inflater = zlib.decompressobj(window_bits)
    try:
        inflated = inflater.decompress(message, max_bytes + 1)
    except zlib.error:
        raise CallError("INTERNAL", "a message can't be decompressed") from None
    if len(inflated) > max_bytes:
        raise CallError("RESOURCE_EXHAUSTED", f"a message of more than {max_bytes} bytes")
    if not inflater.eof:
        raise CallError("INTERNAL", "a compressed message ends too early")
    return inflated


def _decoded(name: str, value: str | bytes) -> tuple[str, str | bytes]:
    """Binary values travel as base64, with padding or without."""
    if not name.endswith("-bin"):
        return name, value
    try:
        return name, b64decode(value + "=" * (-len(value) % 4) if isinstance(value, str) else value)
    except ValueError:
        return name, value
