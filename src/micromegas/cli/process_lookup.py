"""The process that a person means: by its id, or the beginning of it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import pyarrow as pa

from micromegas.cli.errors import CliError, UsageError
from micromegas.cli.times import parse_time
from micromegas.client import Client
from micromegas.client.sql_literal import text_literal

# Events may lie outside of the times that their process tells of itself: clocks drift.
_MARGIN = 300_000_000_000
_ID_BEGIN = re.compile(r"[0-9a-f]{1,8}(-[0-9a-f]{0,4}){0,3}(-[0-9a-f]{0,12})?")
_FIND = "find one with  micromegas processes"


@dataclass(frozen=True, slots=True)
class KnownProcess:
    """`last` is when the newest of its blocks ended, None without any; times in ns since the epoch."""

    process_id: str
    start: int
    last: int | None

    def range(self, begin: str | None, end: str | None) -> tuple[int, int]:
        """What `--begin` and `--end` say, or all that the server has of the process."""
        now = time.time_ns()
        first = self.start - _MARGIN if begin is None else parse_time("--begin", begin, now)
        latest = (now if self.last is None else self.last) + _MARGIN
        last = max(latest, first) if end is None else parse_time("--end", end, now)
        if first > last:
            raise UsageError("--begin lies after --end: exchange them")
        return first, last


def known_process(client: Client, text: str) -> KnownProcess:
    """The one process whose id begins with `text`; raises `CliError` when there is none or another one."""
    begin = text.strip().lower()
    if re.fullmatch(r"[0-9a-f]{32}", begin):
        begin = "-".join((begin[:8], begin[8:12], begin[12:16], begin[16:20], begin[20:]))
    if _ID_BEGIN.fullmatch(begin) is None:
        raise CliError(f"{text} is not the id of a process, nor the beginning of one: {_FIND}")
    condition = f"= {text_literal(begin)}" if len(begin) == 36 else f"LIKE {text_literal(begin + '%')}"
    found = client.query(
        f"SELECT process_id, start_time, last_block_end_time FROM processes WHERE process_id {condition} LIMIT 2"
    )
    if found.num_rows == 0:
        raise CliError(f"unknown process {text}: {_FIND}")
    if found.num_rows > 1:
        raise CliError(f"several processes begin with {text}: write more of the id")
    start, last = (found[name][0].cast(pa.int64()).as_py() for name in ("start_time", "last_block_end_time"))
    return KnownProcess(found["process_id"][0].as_py(), start, last)
