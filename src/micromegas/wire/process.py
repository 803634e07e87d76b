"""One run of a program, as announced by its sender. It must never guess what a sender left out."""

from __future__ import annotations

from dataclasses import dataclass

from micromegas import _core


@dataclass(frozen=True, slots=True)
class Process:
    """The announcement of a process.

    Times are nanoseconds since the epoch, ticks are the sender's counter, `tsc_frequency` is ticks per second
    (0 or less: unknown). Ids are lower-case hyphenated UUID texts.
    """

    process_id: str
    exe: str
    username: str
    realname: str
    computer: str
    distro: str
    cpu_brand: str
    tsc_frequency: int
    start_time: int
    start_ticks: int
    parent_process_id: str | None
    properties: dict[str, str]

    @classmethod
    def decode(cls, body: bytes) -> Process:
        """Read the body of an `insert_process` request; raises `WireError` naming the fault."""
        return cls(*_core.parse_process(body))
