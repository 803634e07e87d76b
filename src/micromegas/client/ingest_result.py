"""What a server says of rows that were written into it."""

from __future__ import annotations


class IngestResult(int):
    """The number of rows that it has taken; `record_count` is the same under the name of the original's client."""

    @property
    def record_count(self) -> int:
        return int(self)
