"""What can go wrong with a query, as one error type that every protocol can turn into its own.

Messages reach strangers: they must never hold a traceback, a path of this machine or more than `MAX_MESSAGE`
characters.
"""

from __future__ import annotations

import re
from typing import Literal

from micromegas.lake import LakeError

QueryErrorKind = Literal["invalid", "unimplemented", "exhausted", "internal"]

MAX_MESSAGE = 1500


class QueryError(Exception):
    """A query that was refused or that failed.

    `kind` is `invalid` (the statement or its parameters are wrong), `unimplemented` (known, not offered),
    `exhausted` (a limit of time, memory, rows or files was met) or `internal` (our fault; the lake may be damaged).
    `message` is one text of at most `MAX_MESSAGE` characters.
    """

    def __init__(self, kind: QueryErrorKind, message: str) -> None:
        message = _scrubbed(message)
        super().__init__(message)
        self.kind: QueryErrorKind = kind
        self.message = message


# The engine tells the kind of an error in its text only. The first that is found decides.
_KINDS: tuple[tuple[str, QueryErrorKind], ...] = (
    ("not implemented", "unimplemented"),
    ("Object Store error", "internal"),
    ("Parquet error", "internal"),
    ("Internal error", "internal"),
    ("SQL error", "invalid"),
    ("Error during planning", "invalid"),
    ("Schema error", "invalid"),
    ("Execution error", "invalid"),
    ("Invalid or Unsupported Configuration", "invalid"),
    ("Optimizer rule", "invalid"),
    ("Arrow error", "invalid"),
    ("Divide by zero", "invalid"),
    ("type_coercion", "invalid"),
)

_NO_MEMORY = "Resources exhausted"
_NO_MEMORY_STEP = (
    "the query needs more memory or room to spill than one may take; narrow it, or raise the server's limit"
)

# How the engine shows an error that a function of ours raised.
_PYTHON_ERROR = re.compile(
    r"""PyErr \{ type: .*?, value: \w+\((?P<quote>['"])(?P<text>.*?)(?P=quote),?\), traceback: .*""", re.DOTALL
)
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):.*", re.DOTALL)
_BUG_REPORT = re.compile(r"\.?\s*This issue was likely caused by a bug in DataFusion.*", re.DOTALL)
_SOURCE_PLACE = re.compile(r" at /\S+?\.rs:\d+(?::\d+)?")
_PATH = re.compile(r"(?:file:/+|(?<![\w.)\]:])/)(?:[\w.+@%~-]+/)+([\w.+@%~-]*)")


def classified(error: BaseException) -> QueryError:
    """Any error of planning or running as a `QueryError`."""
    if isinstance(error, QueryError):
        return error
    if isinstance(error, LakeError):
        return QueryError("internal", str(error))
    text = str(error)
    if _NO_MEMORY in text:
        # What the engine says comes last: of a long text the end is cut.
        return QueryError("exhausted", f"{_NO_MEMORY_STEP}: {text}")
    for marker, kind in _KINDS:
        if marker in text:
            return QueryError(kind, text)
    # The bindings raise ValueError for what is wrong with a statement, a plain Exception for the rest.
    return QueryError("invalid" if isinstance(error, ValueError) else "internal", text or type(error).__name__)


def _scrubbed(text: str) -> str:
    text = _PYTHON_ERROR.sub(lambda match: match.group("text"), text)
    text = _TRACEBACK.sub(_last_line, text)
    text = _BUG_REPORT.sub("", text)
    text = _SOURCE_PLACE.sub("", text)
    text = _PATH.sub(lambda match: match.group(1), text)
    text = text.removeprefix("DataFusion error: ").strip()
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def _last_line(traceback: re.Match[str]) -> str:
    lines = [line.strip() for line in traceback.group().splitlines() if line.strip()]
    return lines[-1]
