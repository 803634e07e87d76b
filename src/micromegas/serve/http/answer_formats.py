"""Forms of an answer: which one a request asks for, how rows are written, and how a reader sees that one broke off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from micromegas.serve.http.accepted import accepted
from micromegas.serve.http.problem import Problem
from micromegas.wire.row_formats import ArrowWriter, CsvWriter, JsonLinesWriter, JsonWriter, RowWriter, Sink


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """A media type, and what writes it."""

    media_type: str
    writer: Callable[[Sink, pa.Schema], RowWriter]


JSON = AnswerFormat("application/json", lambda sink, _schema: JsonWriter(sink))
FORMATS = (
    JSON,
    AnswerFormat("application/x-ndjson", lambda sink, _schema: JsonLinesWriter(sink)),
    AnswerFormat("text/csv", CsvWriter),
    AnswerFormat("application/vnd.apache.arrow.stream", ArrowWriter),
)
"""The first is what a request gets that doesn't mind."""


def format_for(accept: str | None) -> AnswerFormat:
    """What the header `accept` likes best, of equals what it says more exactly, or earlier; a `Problem` when it takes
    none of ours."""
    ranges = dict(accepted(accept or "")) or {"*/*": 1.0}
    places = {kind: place for place, kind in enumerate(ranges)}

    def liking(form: AnswerFormat) -> tuple[float, int, int]:
        """Quality, how exactly, how early. A more exact entry counts instead of a vaguer one, to the worse, too."""
        group = form.media_type.partition("/")[0]
        for exactness, kind in enumerate((form.media_type, f"{group}/*", "*/*")):
            if kind in ranges:
                return ranges[kind], -exactness, -places[kind]
        return 0.0, 0, 0

    best = max(FORMATS, key=liking)
    if liking(best)[0] <= 0:
        offered = ", ".join(form.media_type for form in FORMATS)
        raise Problem(406, "not_acceptable", f"accept: answers are offered as {offered}")
    return best


class Buffer:
    """What was written since it was last taken; a sink for writers, also for Arrow's."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        self.size = 0
        return data
