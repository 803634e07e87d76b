"""gRPC over HTTP/2 as bytes in and bytes out, for one thread: that of an event loop. Nothing in here blocks."""

from collections.abc import Sequence
from typing import Any, final

from typing_extensions import Buffer

@final
class Call:
    """A call of a client; whoever answers it must `finish` it, whatever happens."""

    @property
    def number(self) -> int:
        """Tells it from all others of its transport."""

    @property
    def path(self) -> str: ...
    @property
    def peer(self) -> str:
        """The caller's IP address."""

    @property
    def is_gone(self) -> bool:
        """The caller gave up, or the connection ended."""

    @property
    def is_over(self) -> bool:
        """Nothing waits to be sent."""

    @property
    def has_room(self) -> bool:
        """The reader took what was written; else more should not be before it does."""

    @property
    def has_all(self) -> bool:
        """No message will follow those that `take` gives."""

    def metadata(self) -> list[tuple[str, str | bytes]]:
        """Headers with names in lower case; values that aren't ASCII are bytes."""

    def take(self) -> tuple[bool, bytes] | None:
        """The next message of the request and, before it, whether it is compressed; None when there is none now."""

    def start(self, headers: list[tuple[str, str]]) -> None:
        """Sends the headers of the answer, at most once. `ValueError` for what is no header."""

    def write(self, *parts: Buffer | Body) -> int:
        """Sends a message after those before, given in parts that lie in one piece each; its length in bytes. Long
        parts aren't copied, and must not change until they are sent. `BufferError` for what is no bytes, `ValueError`
        from 4 GiB on."""

    def finish(self, code: int, text: str) -> bool:
        """Ends the call after all that was written; only the first end counts. False while some of it waits for the
        reader."""

    def reset(self) -> None:
        """Drops what still waits for the reader."""

@final
class Layout:
    """Messages of Arrow's IPC format, of batches of one schema whose columns are plain: a value of some bits or a text
    per row."""

    def __new__(
        cls,
        schema: Any,
        columns: Sequence[int | None],
        metadata: bytes,
        places: tuple[int, int, int, int],
    ) -> Layout:
        """`schema` is a `pyarrow.Schema`. `columns`: bits of a value, 0 where all are null, None of texts with offsets
        of 32 bits. `metadata` is that of a batch of `schema` (the flatbuffer that Arrow wrote), with its number of
        rows, the length of the body, the first node and the first buffer at `places`. `ValueError` for other bits than
        1 and multiples of 8, and where no numbers can stand at `places`."""

    def message(self, batch: Any) -> tuple[bytes, Body]:
        """Metadata and body of a `pyarrow.RecordBatch` with rows. `ValueError` for one of another schema."""

@final
class Body:
    """The body of a message, with its padding; the columns stay where they are. It holds its batch."""

    def __len__(self) -> int: ...
    def __bytes__(self) -> bytes: ...

@final
class Transport:
    """Connections of a server. When `fileno()` is readable, or after anything was done with a call, `drive`
    must follow. It gives calls that begin, numbers of calls that moved (a message came, there is room, all is sent, the
    caller is gone), and whether it should be called once more."""

    def __new__(
        cls,
        *,
        unary_paths: Sequence[str],
        max_message_bytes: int,
        max_calls: int,
        patience_s: float,
        keepalive_s: float,
        keepalive_patience_s: float,
    ) -> Transport:
        """Calls of `unary_paths` begin when their one message is here, for which they
        have `patience_s` from one piece to the next; all others begin at once."""

    def fileno(self) -> int: ...
    def secure(self, chain: bytes, key: bytes) -> None:
        """Connections that come from now on speak TLS; both in PEM form. `ValueError` where they don't fit."""

    def add(self, fd: int) -> None:
        """Takes a connected socket over, however it ends. `drive` must follow."""

    @property
    def connections(self) -> int:
        """How many there are."""

    def drive(self, asks: bool) -> tuple[list[Call], list[int], bool]:
        """Does what there is to do; asks the kernel for it, too, where `asks`."""

    def look(self) -> tuple[list[Call], list[int], bool]:
        """Ends connections whose other end is gone without a word, and calls whose message doesn't come: now and
        then."""

    def stop(self) -> None:
        """Takes no more calls."""

    @property
    def is_idle(self) -> bool:
        """Nothing is answered, and all that was is with the kernel."""

    def close(self) -> tuple[list[Call], list[int], bool]:
        """Ends all connections."""
