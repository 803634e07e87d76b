"""How long answers leave room for short ones. All share one event loop: while megabytes are framed and handed to the
sockets nobody else is served, and a short answer needs a dozen turns of the loop."""

from __future__ import annotations

from collections.abc import Callable

LONG_BYTES = 4 * 1024 * 1024
RECENT_S = 0.05
# About what the machine spends on a frame and on a byte of it: a third of that is the loop's, the rest that of whoever
# reads, who may be on the same machine.
_FRAME_S = 0.0002
_BYTE_S = 1e-9
_ROOM = 4.0
_ROOM_OF_ALL = 2.0
"""How long to leave the machine to short answers, in parts of the time that a frame takes: of one long answer at least,
and of all that there are together."""


class Pace:
    """Of one server. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._long = 0
        self._last_short = float("-inf")

    def begin(self) -> Turn:
        self.short_seen()
        return Turn(self)

    def short_seen(self) -> None:
        self._last_short = self._clock()

    def long_begun(self) -> None:
        self._long += 1

    def long_ended(self) -> None:
        self._long -= 1

    def pause_s(self, size: int) -> float:
        """How long a long answer should wait after a frame of `size` bytes."""
        if self._clock() - self._last_short > RECENT_S:
            return 0.0
        return max(_ROOM, self._long * _ROOM_OF_ALL) * (_FRAME_S + size * _BYTE_S)


class Turn:
    """One answer, short until it has become long."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._sent = 0

    def sent(self, size: int) -> float:
        """Counts a frame; returns the seconds to wait before the next."""
        was_long = self._sent > LONG_BYTES
        self._sent += size
        if was_long:
            return self._pace.pause_s(size)
        if self._sent > LONG_BYTES:
            self._pace.long_begun()
        else:
            self._pace.short_seen()
        return 0.0

    def close(self) -> None:
        if self._sent > LONG_BYTES:
            self._pace.long_ended()
