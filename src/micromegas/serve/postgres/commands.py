"""What a statement asks of a session, told by its tokens: a question, or one of the commands of PostgreSQL that drivers
send around questions. Executes nothing, and never looks into texts or comments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from micromegas.query.functions.sql_text import Kind, Token, tokens
from micromegas.serve.postgres.errors import PostgresError, not_offered
from micromegas.serve.postgres.literals import text_of

_SELECTS = frozenset(["select", "with", "values", "table", "describe", "desc", "explain", "show"])
_WRITES = frozenset(
    [
        "insert",
        "update",
        "delete",
        "merge",
        "truncate",
        "create",
        "alter",
        "drop",
        "grant",
        "revoke",
        "comment",
        "vacuum",
        "analyze",
        "reindex",
        "cluster",
        "refresh",
        "import",
        "security",
        "reassign",
        "do",
        "call",
        "lock",
    ]
)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
# what FETCH may count to
_MAX_COUNT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Question:
    """A statement with rows, for the lake or for the catalogue."""

    sql: str


@dataclass(frozen=True, slots=True)
class Setting:
    """SET, RESET, SHOW, DISCARD: settings are those of the catalogue's session. `mentions`: its words."""

    sql: str
    mentions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Transaction:
    """BEGIN, COMMIT, SAVEPOINT and their like, which are the catalogue's. `returns`: to a savepoint; `commits`: and
    begins no other; `is_of_prepared`: is about commits in two phases, of which there are none."""

    sql: str
    begins: bool = False
    returns: bool = False
    commits: bool = False
    is_of_prepared: bool = False


@dataclass(frozen=True, slots=True)
class Declare:
    """DECLARE … CURSOR FOR a question; `scrolls` None where nothing is said of it."""

    cursor: str
    question: str
    is_binary: bool
    holds: bool
    scrolls: bool | None


class Direction(Enum):
    """Where a cursor goes: so many rows on or back, to a row by its number, or to one so many rows away."""

    FORWARD = auto()
    BACKWARD = auto()
    ABSOLUTE = auto()
    RELATIVE = auto()


@dataclass(frozen=True, slots=True)
class Fetch:
    """FETCH or MOVE; `count` None is ALL. On and back it is at least 0: the row where the cursor stands."""

    cursor: str
    direction: Direction
    count: int | None
    moves: bool


@dataclass(frozen=True, slots=True)
class CloseCursor:
    """CLOSE; no cursor is ALL."""

    cursor: str | None


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """How rows are written; of `binary` ones nothing else is said."""

    binary: bool = False
    csv: bool = False
    delimiter: str = "\t"
    null: str = "\\N"
    header: bool = False
    quote: str = '"'
    escape: str = '"'
    force_quote: bool = False


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY … TO STDOUT; `sql` is all of it."""

    sql: str
    question: str
    options: CopyOptions


@dataclass(frozen=True, slots=True)
class Prepare:
    """PREPARE name (types) AS a question."""

    name: str
    types: tuple[str, ...]
    question: str


@dataclass(frozen=True, slots=True)
class Execute:
    """EXECUTE name (arguments), which are expressions."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deallocate:
    """DEALLOCATE; no name is ALL."""

    name: str | None


@dataclass(frozen=True, slots=True)
class Nothing:
    """A command that has nothing to do here; its tag is answered."""

    tag: str


@dataclass(frozen=True, slots=True)
class Empty:
    pass


Command = (
    Question
    | Setting
    | Transaction
    | Declare
    | Fetch
    | CloseCursor
    | Copy
    | Prepare
    | Execute
    | Deallocate
    | Nothing
    | Empty
)


@dataclass(slots=True)
class _Words:
    """The tokens of a statement, read from the left."""

    sql: str
    tokens: list[Token] = field(default_factory=list)
    place: int = 0

    def __post_init__(self) -> None:
        self.tokens = tokens(self.sql)

    @property
    def next(self) -> Token | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def word(self) -> str:
        """The next word, without taking it; empty for what is none."""
        return self.next.value if self.next is not None and self.next.kind is Kind.WORD else ""

    def takes(self, *words: str) -> bool:
        """Takes the words if they are next."""
        following = self.tokens[self.place : self.place + len(words)]
        if [token.value for token in following if token.kind is Kind.WORD] != list(words):
            return False
        self.place += len(words)
        return True

    def takes_symbol(self, symbol: str) -> bool:
        if self.next is None or self.next.kind is not Kind.SYMBOL or self.next.value != symbol:
            return False
        self.place += 1
        return True

    def name(self) -> str:
        if self.next is None or self.next.kind not in (Kind.WORD, Kind.QUOTED_NAME):
            raise self.error()
        self.place += 1
        return self.tokens[self.place - 1].value

    def rest(self) -> str:
        """The text from here on."""
        return "" if self.next is None else self.sql[self.next.start :]

    def end(self) -> None:
        if self.next is not None:
            raise self.error()

    def error(self) -> PostgresError:
        if self.next is None:
            return PostgresError("42601", "syntax error at end of input")
        shown = self.sql[self.next.start : self.next.end][:60]
        return PostgresError("42601", f'syntax error at or near "{shown}"')


def split(sql: str) -> list[str]:
    """The statements of a text, without their semicolons; at least one, which may be empty."""
    parts: list[str] = []
    depth = begin = 0
    is_empty = True
    for token in tokens(sql):
        if token.kind is Kind.SYMBOL and token.value == ";" and depth == 0:
            if not is_empty or _has_unreadable(sql[begin : token.start]):
                parts.append(sql[begin : token.start])
            begin, is_empty = token.end, True
            continue
        is_empty = False
        if token.kind is not Kind.SYMBOL:
            continue
        if token.value in _OPENING:
            depth += 1
        elif token.value in _CLOSING:
            depth = max(0, depth - 1)
    if not is_empty or _has_unreadable(sql[begin:]):
        parts.append(sql[begin:])
    return parts or [""]


def _has_unreadable(part: str) -> bool:
    """Whether something stands in a text without tokens that the real parser should refuse."""
    return any(quote in part for quote in ("'", '"')) and not part.lstrip().startswith(("--", "/*"))


def command_of(sql: str) -> Command:
    """Raises `PostgresError` for what is not offered."""
    words = _Words(sql)
    if words.next is None:
        return Question(sql) if _has_unreadable(sql) else Empty()
    first = words.word()
    match first:
        case "begin" | "start":
            return Transaction(sql, begins=True)
        case "commit" | "end":
            return _commit(words)
        case "savepoint" | "release":
            return Transaction(sql)
        case "rollback" | "abort":
            return _rollback(words)
        case "prepare" if [token.value for token in words.tokens[1:2]] == ["transaction"]:
            return Transaction(sql, is_of_prepared=True)
        case "prepare":
            return _prepare(words)
        case "execute":
            return _execute(words)
        case "set" | "reset" | "discard" | "show":
            return Setting(sql, frozenset(token.value.lower().strip("'") for token in words.tokens))
        case "declare":
            return _declare(words)
        case "fetch" | "move":
            return _fetch(words, first)
        case "close":
            words.place = 1
            return CloseCursor(None if words.takes("all") else words.name())
        case "copy":
            return _copy(words)
        case "deallocate":
            words.place = 1
            words.takes("prepare")
            return Deallocate(None if words.takes("all") else words.name())
        case "unlisten":
            return Nothing("UNLISTEN")
        case "listen" | "notify":
            raise not_offered(f"{first.upper()} is not offered: nothing is announced here")
    if first in _SELECTS or not first:
        return Question(sql)
    if first in _WRITES:
        raise PostgresError(
            "25006",
            f"cannot execute {first.upper()}: telemetry is read-only here",
            hint="telemetry comes in through the ingestion service",
        )
    raise words.error()


def _end(words: _Words, ended: Callable[[], Transaction]) -> Transaction:
    """COMMIT and ROLLBACK, `ended` by what follows their `WORK` or `TRANSACTION`."""
    words.place = 1
    if words.takes("prepared"):
        return Transaction(words.sql, is_of_prepared=True)
    if words.word() in ("work", "transaction"):
        words.place += 1
    return ended()


def _commit(words: _Words) -> Transaction:
    return _end(words, lambda: Transaction(words.sql, commits=not words.takes("and", "chain")))


def _rollback(words: _Words) -> Transaction:
    return _end(words, lambda: Transaction(words.sql, returns=words.takes("to")))


def _prepare(words: _Words) -> Prepare:
    words.place = 1
    name = words.name()
    types = _listed(words)
    if not words.takes("as") or words.next is None:
        raise words.error()
    question = words.rest()
    # refuses what writes as it is refused by itself
    if not isinstance(command_of(question), Question):
        raise words.error()
    return Prepare(name, types, question)


def _execute(words: _Words) -> Execute:
    words.place = 1
    name = words.name()
    arguments = _listed(words)
    words.end()
    return Execute(name, arguments)


def _listed(words: _Words) -> tuple[str, ...]:
    """The texts between the commas of a list in brackets, where one is next."""
    if not words.takes_symbol("("):
        return ()
    parts: list[str] = []
    begin, depth = words.place, 1
    while depth:
        token = words.next
        if token is None:
            raise words.error()
        is_symbol = token.kind is Kind.SYMBOL
        if is_symbol and token.value in _OPENING:
            depth += 1
        elif is_symbol and token.value in _CLOSING:
            depth -= 1
        if depth == 0 or (depth == 1 and is_symbol and token.value == ","):
            if begin == words.place:
                raise words.error()
            parts.append(words.sql[words.tokens[begin].start : words.tokens[words.place - 1].end])
            begin = words.place + 1
        words.place += 1
    return tuple(parts)


def _declare(words: _Words) -> Declare:
    words.place = 1
    cursor = words.name()
    is_binary = holds = False
    scrolls: bool | None = None
    while not words.takes("for"):
        if words.takes("binary"):
            is_binary = True
        elif words.takes("scroll"):
            scrolls = True
        elif words.takes("no", "scroll"):
            scrolls = False
        elif words.takes("with", "hold"):
            holds = True
        elif not (
            words.takes("insensitive")
            or words.takes("asensitive")
            or words.takes("cursor")
            or words.takes("without", "hold")
        ):
            raise words.error()
    if words.next is None:
        raise words.error()
    return Declare(cursor, words.rest(), is_binary, holds, scrolls)


def _fetch(words: _Words, verb: str) -> Fetch:
    words.place = 1
    direction, count = _direction(words)
    if words.word() in ("from", "in"):
        words.place += 1
    cursor = words.name()
    words.end()
    return Fetch(cursor, direction, count, verb == "move")


def _direction(words: _Words) -> tuple[Direction, int | None]:
    for word, count in (("first", 1), ("last", -1)):
        if words.takes(word):
            return Direction.ABSOLUTE, count
    for word, direction in (("absolute", Direction.ABSOLUTE), ("relative", Direction.RELATIVE)):
        if words.takes(word):
            number = _number(words)
            if number is None:
                raise words.error()
            return direction, number
    if words.takes("next"):
        return Direction.FORWARD, 1
    if words.takes("prior"):
        return Direction.BACKWARD, 1
    goes_back = words.takes("backward")
    if not goes_back:
        words.takes("forward")
    if words.takes("all"):
        return Direction.BACKWARD if goes_back else Direction.FORWARD, None
    number = _number(words)
    count = 1 if number is None else number
    return Direction.BACKWARD if goes_back != (count < 0) else Direction.FORWARD, abs(count)


def _number(words: _Words) -> int | None:
    """The number that is next, with its sign."""
    is_negative = words.takes_symbol("-")
    if not is_negative:
        words.takes_symbol("+")
    token = words.next
    if token is None or token.kind is not Kind.NUMBER:
        if is_negative:
            raise words.error()
        return None
    if not token.value.isdecimal() or int(token.value) > _MAX_COUNT:
        raise words.error()
    words.place += 1
    return -int(token.value) if is_negative else int(token.value)


def _copy(words: _Words) -> Copy:
    words.place = 1
    if words.takes_symbol("("):
        begin, depth = words.place, 1
        while depth and words.next is not None:
            token = words.next
            if token.kind is Kind.SYMBOL and token.value in "()":
                depth += 1 if token.value == "(" else -1
            words.place += 1
        if depth:
            raise words.error()
        question = words.sql[words.tokens[begin].start : words.tokens[words.place - 1].start]
    else:
        question = _copied_table(words)
    if not words.takes("to"):
        raise PostgresError("25006", "cannot execute COPY FROM: telemetry is read-only here")
    if not words.takes("stdout"):
        raise PostgresError("42501", "COPY writes to STDOUT only", hint="use \\copy of psql for a file of yours")
    return Copy(words.sql, question, _copy_options(words))


def _copied_table(words: _Words) -> str:
    begin = words.place
    words.name()
    while words.takes_symbol("."):
        words.name()
    table = words.sql[words.tokens[begin].start : words.tokens[words.place - 1].end]
    if not words.takes_symbol("("):
        return f"SELECT * FROM {table}"
    begin = words.place
    words.name()
    while words.takes_symbol(","):
        words.name()
    columns = words.sql[words.tokens[begin].start : words.tokens[words.place - 1].end]
    if not words.takes_symbol(")"):
        raise words.error()
    return f"SELECT {columns} FROM {table}"


def _copy_options(words: _Words) -> CopyOptions:
    words.takes("with")
    in_brackets = words.takes_symbol("(")
    options: dict[str, str] = {}
    while words.next is not None and not (in_brackets and words.takes_symbol(")")):
        name = words.name().lower()
        if name == "format":
            is_text = words.next is not None and words.next.kind is Kind.TEXT
            options["format"] = (_copy_text(words) if is_text else words.name()).lower()
        elif name in ("csv", "binary", "text") and not in_brackets:
            options["format"] = name
        elif name == "header":
            value = words.name().lower() if words.word() in ("true", "false", "on", "off") else "true"
            options["header"] = str(value in ("true", "on"))
        elif name in ("delimiter", "null", "quote", "escape", "encoding"):
            words.takes("as")
            options[name] = _copy_text(words)
        elif name in ("force_quote", "force"):
            words.takes("quote")
            if not words.takes_symbol("*"):
                raise not_offered("FORCE_QUOTE of some columns is not offered", "say FORCE_QUOTE *")
            options["force_quote"] = "True"
        else:
            raise PostgresError("42601", f'option "{name}" not recognized')
        words.takes_symbol(",")
    words.end()
    form = options.get("format", "text")
    if form not in ("text", "csv", "binary"):
        raise PostgresError("22023", f'COPY format "{form}" not recognized', hint="text, csv or binary")
    if form == "binary" and (other := sorted(options.keys() - {"format", "encoding"})):
        state = "0A000" if other == ["header"] else "42601"
        raise PostgresError(state, f"cannot specify {other[0].upper()} in BINARY mode")
    if options.get("encoding", "utf8").lower().replace("-", "") != "utf8":
        raise not_offered("COPY in another encoding than UTF8 is not offered")
    csv = form == "csv"
    quote = options.get("quote", '"')
    made = CopyOptions(
        form == "binary",
        csv,
        options.get("delimiter", "," if csv else "\t"),
        options.get("null", "" if csv else "\\N"),
        options.get("header") == "True",
        quote,
        options.get("escape", quote),
        "force_quote" in options,
    )
    for name, letter in (("delimiter", made.delimiter), ("quote", made.quote), ("escape", made.escape)):
        if len(letter.encode()) != 1 or letter in "\r\n":
            raise PostgresError("0A000", f"COPY {name} must be a single one-byte character")
    return made


def _copy_text(words: _Words) -> str:
    text = text_of(words.next)
    if text is None:
        raise words.error()
    words.place += 1
    return text
