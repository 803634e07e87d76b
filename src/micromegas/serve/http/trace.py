"""What `GET /api/perfetto/{process}` asks for."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from micromegas.query import QueryRequest
from micromegas.serve.http.problem import invalid
from micromegas.wire import rfc3339_ns, rfc3339_text, typed_time_ns

# Wide enough for the life of any process; what lies outside of it costs nothing.
_BEGIN, _END = rfc3339_ns("1970-01-01T00:00:00Z"), rfc3339_ns("2200-01-01T00:00:00Z")
_TYPES = re.compile(r"[a-z]+(?:,[a-z]+)*", re.ASCII)
_DEFAULTS = {"types": "all", "begin": "", "end": ""}


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A process, what of it, and from when to when (ns since the epoch)."""

    process_id: str
    types: str
    begin: int
    end: int

    @classmethod
    def of(cls, process: str, parameters: Mapping[str, str], now: int) -> TraceFile:
        """From the path and the query string; raises `Problem`. Without times, all of the process."""
        unknown = sorted(parameters.keys() - _DEFAULTS.keys())
        if unknown:
            raise invalid(f"unknown {unknown[0][:100]!r}; known are {', '.join(sorted(_DEFAULTS))}")
        try:
            process_id = str(uuid.UUID(process))
        except ValueError:
            raise invalid(f"{process[:100]!r} is not the id of a process") from None
        times = []
        for name, default in (("begin", _BEGIN), ("end", _END)):
            try:
                times.append(typed_time_ns(text, now) if (text := parameters.get(name)) else default)
            except ValueError as error:
                raise invalid(f"{name}: {error}") from None
        types = parameters.get("types") or _DEFAULTS["types"]
        if _TYPES.fullmatch(types) is None:
            raise invalid(f"types: {types[:100]!r} is no list of words with commas between")
        return cls(process_id, types, *times)

    def request(self) -> QueryRequest:
        """The statement. Its arguments are constants, for table functions take no parameters, and hold no quotes."""
        times = f"'{rfc3339_text(self.begin)}', '{rfc3339_text(self.end)}'"
        return QueryRequest(
            f"SELECT chunk_data FROM perfetto_trace_chunks('{self.process_id}', '{self.types}', {times})"
        )
