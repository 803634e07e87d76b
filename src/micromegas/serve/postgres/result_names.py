"""Names of the columns of a result as PostgreSQL gives them: `count` and `?column?` where the engine would say
`count(*)` and `Int64(1)`. Names that are there twice are told apart for the engine, which takes each only once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from micromegas.query.functions.sql_text import Kind
from micromegas.serve.postgres.edits import Edits
from micromegas.serve.postgres.literals import quoted

_TWICE = "\x1f"
"""Behind the name of a column that is there twice, with a number; never told to a client."""

_NAMELESS = "?column?"
_LIST_ENDS = frozenset(
    ["from", "where", "group", "having", "order", "limit", "offset", "fetch", "union", "intersect", "except", "window"]
)
_OPERATORS = frozenset("+-*/%^<>=!~|&#@?")
_OPERATOR_WORDS = frozenset(
    ["and", "or", "not", "is", "in", "like", "ilike", "similar", "between", "isnull", "notnull", "overlaps"]
)
# Words behind which a name goes on with what stands before: it is no alias.
_LEADING_WORDS = _OPERATOR_WORDS | {
    "when",
    "then",
    "else",
    "case",
    "distinct",
    "from",
    "to",
    "zone",
    "over",
    "by",
    "all",
}
_TRAILING_WORDS = frozenset(["end", "null", "true", "false", "unknown", "precision", "varying", "zone", "nulls"])
_UNITS = frozenset(["year", "month", "day", "hour", "minute", "second"])
# of brackets and casts within each other that are looked into for a name
_MAX_DEPTH = 32
# tokens of a type
_MAX_TYPE = 12
_CONSTANTS = frozenset(["null", "true", "false"])
_TYPES = {
    "int": "int4",
    "integer": "int4",
    "bigint": "int8",
    "smallint": "int2",
    "double": "float8",
    "float": "float8",
    "real": "float4",
    "decimal": "numeric",
    "character": "bpchar",
    "char": "bpchar",
    "boolean": "bool",
}
_TYPED_TEXTS = frozenset(
    ["interval", "date", "time", "timestamp", "timestamptz", "bool", "boolean", "uuid", "json", "jsonb"]
)
# Before the bracket of a table that a statement makes.
_TABLE_WORDS = ("from", "join", "lateral", "as", "materialized")
_AFTER_SORTED = ("asc", "desc", "nulls", "limit", "offset", "fetch", "for")
# whole numbers that the engine counts without a sign, which PostgreSQL has no type for
_COUNTING = frozenset(["row_number", "rank", "dense_rank", "ntile"])


@dataclass(slots=True)
class Named:
    """A statement, and what its first and its last columns are called: all of them, but for those that a star stands
    for."""

    sql: str
    first: list[str] = field(default_factory=list)
    last: list[str] = field(default_factory=list)

    def names(self, told: Sequence[str]) -> list[str]:
        """Of the columns that the engine has told of."""
        names = [name.partition(_TWICE)[0] for name in told]
        if len(self.first) + len(self.last) <= len(names):
            names[: len(self.first)] = self.first
            names[len(names) - len(self.last) :] = self.last
        return names


@dataclass(slots=True)
class _Item:
    """One of the columns of a list, at the tokens [first, end)."""

    first: int
    end: int
    name: str
    alias: int | None = None
    """Where its alias stands."""
    is_column: bool = False
    is_star: bool = False


def named(sql: str) -> Named:
    """The statement with names where something needs them: what asks it, what sorts it, or the engine."""
    edits = Edits(sql)
    result = Named(sql)
    depth = 0
    is_first = True
    for place in range(len(edits.tokens)):
        depth += int(edits.is_symbol(place, "(")) - int(edits.is_symbol(place, ")"))
        if not edits.is_word(place, "select"):
            continue
        if depth == 0 and is_first:
            is_first = False
            items, end = _items(edits, place)
            _name_outer(edits, items, _sorted_by(edits, end), result)
        elif edits.is_symbol(place - 1, "(") and edits.is_word(
            place - 2, "from", "join", "lateral", "as", "materialized"
        ):
            items, _ = _items(edits, place)
            _name_inner(edits, items)
    result.sql = edits.text()
    return result


def _name_outer(edits: Edits, items: list[_Item], sorted_by: set[str], result: Named) -> None:
    """The columns of the result are named where it is told of, so only what needs a name within the statement has it
    there."""
    given = {item.name for item in items if item.alias is not None or item.is_column}
    needed = sorted_by - given
    _tell_apart(edits, items, is_result=True)
    for item in items:
        if item.name in needed and not item.is_star:
            needed.discard(item.name)
            edits.insert_behind(item.end - 1, f" AS {quoted(item.name)}")
    stars = [place for place, item in enumerate(items) if item.is_star]
    result.first = [item.name for item in items[: stars[0] if stars else len(items)]]
    result.last = [item.name for item in items[stars[-1] + 1 :]] if stars else []


def _name_inner(edits: Edits, items: list[_Item]) -> None:
    """The columns of a table that a statement makes have their names for what asks it."""
    named_already: set[str] = {item.name for item in items if item.alias is not None or item.is_column}
    _tell_apart(edits, items, is_result=False)
    for item in items:
        if item.alias is None and not item.is_column and not item.is_star and item.name not in named_already:
            named_already.add(item.name)
            edits.insert_behind(item.end - 1, f" AS {quoted(item.name)}")


def _tell_apart(edits: Edits, items: list[_Item], *, is_result: bool) -> None:
    """Gives names of their own to those that the engine would take for one."""
    stars = {edits.source(item.first, item.end) for item in items if item.is_star}
    has_star = is_result and "*" in stars
    seen: set[str] = set()
    for number, item in enumerate(items):
        written = edits.source(item.first, item.end).lower()
        if item.is_star:
            continue
        if item.alias is not None:
            key = item.name
            if key in seen:
                edits.replace(item.alias, item.alias + 1, quoted(f"{key}{_TWICE}{number}"))
        else:
            key = item.name if item.is_column and "." not in written else _bare(edits, item.first, item.end)
            qualifier = written.rpartition(".")[0]
            is_again = key in seen or (not item.is_column and item.name in seen)
            is_in_star = item.is_column and is_result and f"{qualifier}.*" in stars
            if is_again or is_in_star or (has_star and item.is_column):
                edits.insert_behind(item.end - 1, f" AS {quoted(f'{item.name}{_TWICE}{number}')}")
                item.alias = item.end - 1
        seen |= {key} if item.is_column else {key, item.name}


def _bare(edits: Edits, first: int, end: int) -> str:
    """An expression without what it is cast to, which is no part of the name that the engine gives it."""
    for _ in range(_MAX_DEPTH):
        if edits.closing(first) == end - 1 and edits.is_symbol(first, "("):
            first, end = first + 1, end - 1
        elif _is_typed_text(edits, first, end):
            end = first + 2
            first += 1
        elif edits.is_word(first, "cast") and edits.closing(first + 1) == end - 1:
            first, end = first + 2, word_before(edits, "as", end - 1) or end - 1
        elif (cast := _last_cast(edits, first, end)) is not None:
            end = cast
        else:
            break
    return edits.source(first, end).lower()


def _last_cast(edits: Edits, first: int, end: int) -> int | None:
    """Where the `::` stands with whose type an expression ends."""
    place = end - 1
    while place > first + 1 and edits.is_name(place):
        place -= 1
    return place - 1 if first < place - 1 < end - 2 and edits.is_cast(place - 1) else None


def word_before(edits: Edits, word: str, end: int) -> int | None:
    """The last place of a word, not far before the end of something."""
    return next((place for place in range(end - 1, max(0, end - _MAX_TYPE), -1) if edits.is_word(place, word)), None)


def select_list_end(edits: Edits, select: int) -> int:
    """Where the list of columns behind SELECT ends."""
    return _ranges(edits, select)[1]


def _items(edits: Edits, select: int) -> tuple[list[_Item], int]:
    """The columns of the list behind SELECT, and where it ends."""
    ranges, end = _ranges(edits, select)
    return [_item(edits, *each) for each in ranges], end


def _ranges(edits: Edits, select: int) -> tuple[list[tuple[int, int]], int]:
    """The tokens [first, end) of each column of the list behind SELECT, and where it ends."""
    place = select + 1
    if edits.is_word(place, "all", "distinct"):
        place += 1
        if edits.is_word(place, "on") and edits.is_symbol(place + 1, "("):
            place = (edits.closing(place + 1) or place) + 1
    ranges: list[tuple[int, int]] = []
    begin = place
    while True:
        token = edits.at(place)
        is_word = edits.is_word(place, *_LIST_ENDS) and not edits.is_symbol(place - 1, ".")
        # IS DISTINCT FROM goes on
        is_end = is_word and not (edits.is_word(place - 1, "distinct") and place - 1 > select + 1)
        is_end = is_end or token is None or edits.is_symbol(place, ")", "]", ";")
        # what is not closed is nobody's list
        is_end = is_end or (edits.is_symbol(place, "(", "[") and edits.closing(place) is None)
        if (is_end or edits.is_symbol(place, ",")) and place > begin:
            ranges.append((begin, place))
        if is_end:
            return ranges, place
        if edits.is_symbol(place, ","):
            begin = place + 1
        place = (edits.closing(place) or place) + 1


def _sorted_by(edits: Edits, place: int) -> set[str]:
    """Names alone that ORDER BY of the same level has."""
    names: set[str] = set()
    is_order = False
    while place < len(edits.tokens):
        if edits.is_symbol(place, "("):
            place = edits.closing(place) or place
        elif edits.is_word(place, "order") and edits.is_word(place + 1, "by"):
            is_order = True
        elif edits.is_word(place, "limit", "offset", "fetch", "for"):
            is_order = False
        elif is_order and edits.is_name(place) and (edits.is_word(place - 1, "by") or edits.is_symbol(place - 1, ",")):
            following = edits.at(place + 1)
            if following is None or following.value == "," or edits.is_word(place + 1, *_AFTER_SORTED):
                names.add(edits.tokens[place].value)
        place += 1
    return names


def _item(edits: Edits, first: int, end: int) -> _Item:
    if edits.is_symbol(first, "*") or (edits.is_symbol(end - 1, "*") and edits.is_symbol(end - 2, ".")):
        return _Item(first, end, "*", is_star=True)
    last = edits.tokens[end - 1]
    if end - first >= 2 and edits.is_name(end - 1):
        if edits.is_word(end - 2, "as"):
            return _Item(first, end, last.value, alias=end - 1)
        if _is_alias(edits, end):
            if last.kind is Kind.QUOTED_NAME and edits.is_word(end - 2, *_TYPED_TEXTS):
                # for the engine a text of that type
                edits.insert_before(end - 1, "AS ")
            return _Item(first, end, last.value, alias=end - 1)
    is_column = (end - first) % 2 == 1 and all(
        edits.is_name(each) if (each - first) % 2 == 0 else edits.is_symbol(each, ".") for each in range(first, end)
    )
    if is_column and end - first == 1 and edits.is_word(first, *_CONSTANTS):
        is_column = False
    name, _ = _figured(edits, first, end)
    if edits.is_word(first, *_COUNTING) and edits.is_symbol(first + 1, "(") and _is_call_over(edits, first, end):
        edits.insert_before(first, "CAST(")
        edits.insert_behind(end - 1, " AS bigint)")
    return _Item(first, end, name or _NAMELESS, is_column=is_column)


def _is_call_over(edits: Edits, first: int, end: int) -> bool:
    """row_number() OVER (…), or OVER a window by its name."""
    close = edits.closing(first + 1)
    if close is None or not edits.is_word(close + 1, "over"):
        return False
    return (edits.closing(close + 2) if edits.is_symbol(close + 2, "(") else close + 2) == end - 1


def _is_alias(edits: Edits, end: int) -> bool:
    """Whether the last name is one without AS."""
    before, last = edits.tokens[end - 2], edits.tokens[end - 1]
    if last.kind is Kind.WORD and last.value in _TRAILING_WORDS | _UNITS | {"first", "last"}:
        return before.kind not in (Kind.WORD, Kind.TEXT) and last.value not in _TRAILING_WORDS
    if before.kind is Kind.SYMBOL:
        return before.value in ")]"
    if before.kind is Kind.TEXT or before.kind is Kind.NUMBER or before.kind is Kind.PARAMETER:
        return True
    return not (before.kind is Kind.WORD and before.value in _LEADING_WORDS)


def _figured(edits: Edits, first: int, end: int, depth: int = 0) -> tuple[str | None, bool]:
    """What PostgreSQL calls an expression, None for what has no name of its own; and whether that is the name of a
    column or a function, which a cast leaves to it."""
    if first >= end or depth > _MAX_DEPTH:
        return None, False
    if edits.closing(first) == end - 1 and edits.is_symbol(first, "("):
        if edits.is_word(first + 1, "select"):
            return _figured_subquery(edits, first + 1, depth)
        return _figured(edits, first + 1, end - 1, depth + 1)
    if edits.is_word(first, "case") and edits.is_word(end - 1, "end"):
        return _figured_case(edits, first, end, depth)
    casts: list[int] = []
    is_zoned = False
    place = first
    while place < end:
        if edits.is_cast(place):
            casts.append(place)
            place += 1
        elif edits.is_word(place, "at") and edits.is_word(place + 1, "time") and place > first:
            is_zoned = True
        elif edits.is_symbol(place, *_OPERATORS) or edits.is_word(place, *_OPERATOR_WORDS):
            return None, False
        elif edits.is_word(place, "collate"):
            return _figured(edits, first, place, depth + 1)
        place = (edits.closing(place) or place) + 1
    if is_zoned:
        return "timezone", True
    if casts:
        name, is_strong = _figured(edits, first, casts[0], depth + 1)
        return (name, True) if is_strong else (_type_name(edits, casts[-1] + 2), False)
    return _figured_primary(edits, first, end, depth)


def _figured_subquery(edits: Edits, select: int, depth: int) -> tuple[str | None, bool]:
    ranges, _ = _ranges(edits, select)
    if len(ranges) != 1:
        return None, False
    first, end = ranges[0]
    if end - first >= 2 and edits.is_name(end - 1) and (edits.is_word(end - 2, "as") or _is_alias(edits, end)):
        return edits.tokens[end - 1].value, True
    name, _ = _figured(edits, first, end, depth + 1)
    return name, name is not None


def _figured_primary(edits: Edits, first: int, end: int, depth: int) -> tuple[str | None, bool]:
    if edits.is_symbol(end - 1, "]") and not edits.is_word(first, "array"):
        opened = next(each for each in range(first, end) if edits.is_symbol(each, "[") or each == end - 1)
        return _figured(edits, first, opened, depth + 1)
    if not edits.is_name(first):
        return None, False
    if _is_typed_text(edits, first, end):
        return _type_name(edits, first), False
    last = first
    while edits.is_symbol(last + 1, ".") and edits.is_name(last + 2) and last + 2 < end:
        last += 2
    name = edits.tokens[last].value
    if last + 1 < end and edits.is_symbol(last + 1, "("):
        return _figured_call(edits, name, last + 1, depth)
    if last == first and edits.is_word(first, *_CONSTANTS):
        return None, False
    return name, True


def _figured_call(edits: Edits, name: str, opened: int, depth: int) -> tuple[str | None, bool]:
    close = edits.closing(opened)
    if name in ("cast", "try_cast") and close is not None:
        named = word_before(edits, "as", close)
        if named is None:
            return name, True
        inner, is_strong = _figured(edits, opened + 1, named, depth + 1)
        return (inner, True) if is_strong else (_type_name(edits, named + 1), False)
    if name == "trim" and (first := edits.at(opened + 1)) is not None:
        return {"leading": "ltrim", "trailing": "rtrim"}.get(first.value, "btrim"), True
    return name, True


def _figured_case(edits: Edits, first: int, end: int, depth: int) -> tuple[str | None, bool]:
    """CASE is called as what it gives otherwise, where that has a name."""
    cases = 0
    for place in range(end - 2, first, -1):
        cases += int(edits.is_word(place, "end")) - int(edits.is_word(place, "case"))
        if cases == 0 and edits.is_word(place, "else", "when"):
            name, is_strong = _figured(edits, place + 1, end - 1, depth + 1)
            if is_strong and edits.is_word(place, "else"):
                return name, True
            break
    return "case", False


def _is_typed_text(edits: Edits, first: int, end: int) -> bool:
    """interval '1 hour'"""
    is_typed = edits.is_word(first, *_TYPED_TEXTS) and first + 1 < end
    return is_typed and edits.tokens[first + 1].kind is Kind.TEXT


def _type_name(edits: Edits, place: int) -> str | None:
    if edits.is_symbol(place + 1, ".") and edits.is_name(place + 2):
        place += 2
    token = edits.at(place)
    if token is None:
        return None
    if edits.is_word(place, "timestamp", "time") and edits.is_word(place + 1, "with"):
        return f"{token.value}tz"
    if edits.is_word(place, "character") and edits.is_word(place + 1, "varying"):
        return "varchar"
    return _TYPES.get(token.value, token.value)
