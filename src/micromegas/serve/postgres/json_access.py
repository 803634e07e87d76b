"""JSON as PostgreSQL writes it (`->`, `->>`, `#>`, `?`, subscripts, comparisons, casts), by the engine's functions."""

from __future__ import annotations

from dataclasses import dataclass, field

from micromegas.query.functions.sql_text import Kind
from micromegas.serve.postgres.edits import Edits
from micromegas.serve.postgres.literals import literal, text_of
from micromegas.serve.postgres.parameters import array_items

_TEXTS = frozenset(["text", "varchar", "json", "bpchar"])


@dataclass(slots=True)
class _Operand:
    """What the tokens up to `end` say, in calls around it: `calls` from the inner to the outer, each with its end."""

    text: str
    end: int
    calls: list[tuple[str, str]] = field(default_factory=list)
    is_text: bool = False

    def written(self) -> str:
        opened = "".join(begin for begin, _ in reversed(self.calls))
        return opened + self.text + "".join(end for _, end in self.calls)


def rewrite(edits: Edits, place: int, columns: frozenset[str]) -> bool:
    """Whether an operand of JSON begins here, which then has its new text. `columns` are those that hold JSON."""
    end = _operand_end(edits, place, columns)
    if end is None:
        return False
    is_parsed = edits.tokens[place].kind is Kind.TEXT
    operand = _Operand(edits.tokens[place].value if is_parsed else edits.source(place, end), end)
    if is_parsed:
        operand.calls.append(("jsonb_parse(", ")"))
    while not operand.is_text and _step(edits, operand):
        pass
    if operand.is_text:
        if edits.is_cast(operand.end) and edits.is_word(operand.end + 2, "text"):
            operand.end += 3
    elif not _compare(edits, operand) and operand.end == end:
        _cast(edits, operand)
    if operand.end == end:
        return False
    edits.replace(place, operand.end, operand.written())
    edits.place = operand.end - 1
    return True


def _operand_end(edits: Edits, place: int, columns: frozenset[str]) -> int | None:
    """Behind a column, something in brackets before an arrow, or a text that is cast to JSON."""
    token = edits.tokens[place]
    if token.kind is Kind.TEXT:
        is_json = edits.is_cast(place + 1) and edits.is_word(place + 3, "json", "jsonb")
        return place + 4 if is_json and _is_step(edits, place + 4) else None
    if edits.is_symbol(place, "("):
        close = edits.closing(place)
        is_call = edits.is_name(place - 1) and not edits.is_word(place - 1, "select", "where", "and", "or", "not", "on")
        return close + 1 if close is not None and not is_call and _is_step(edits, close + 1) else None
    if not edits.is_name(place) or edits.is_symbol(place - 1, "."):
        return None
    end = place + 1
    while edits.is_symbol(end, ".") and edits.is_name(end + 1):
        end += 2
    last = edits.tokens[end - 1].value
    return end if _is_step(edits, end) or (last in columns and not edits.is_symbol(end, "(", ".")) else None


def _is_step(edits: Edits, place: int) -> bool:
    """Whether an arrow stands here."""
    return edits.is_symbol(place, "-", "#") and edits.is_symbol(place + 1, ">")


def _step(edits: Edits, operand: _Operand) -> bool:
    """Whether something is taken out of the operand here."""
    place = operand.end
    if edits.is_symbol(place, "[") and edits.is_symbol(end := _key_end(edits, place + 1), "]") and end > place + 1:
        operand.calls.append(_member(edits, place + 1, is_text=False))
        operand.end = end + 1
        return True
    if edits.is_symbol(place, "?") and text_of(edits.at(place + 1)) is not None:
        operand.calls.append(("(jsonb_get(", f", {edits.source(place + 1, place + 2)}) IS NOT NULL)"))
        operand.end, operand.is_text = place + 2, True
        return True
    if not _is_step(edits, place):
        return False
    operand.is_text = edits.is_symbol(place + 2, ">")
    first = place + 3 if operand.is_text else place + 2
    if edits.is_symbol(place, "#"):
        return _follow(edits, first, operand)
    end = _key_end(edits, first)
    # of an element by its number, no function gives a text whatever it is
    if end == first or (operand.is_text and edits.tokens[first].kind is Kind.NUMBER):
        operand.is_text = False
        return False
    operand.calls.append(_member(edits, first, is_text=operand.is_text))
    operand.end = end
    return True


def _key_end(edits: Edits, place: int) -> int:
    """Behind a key or a number of an element; the same place where none stands."""
    token = edits.at(place)
    if token is None or token.kind not in (Kind.TEXT, Kind.PARAMETER, Kind.NUMBER):
        return place
    is_cast = edits.is_cast(place + 1) and edits.is_word(place + 3, "text", "varchar", "int", "integer", "int4")
    return place + 4 if is_cast else place + 1


def _member(edits: Edits, place: int, *, is_text: bool) -> tuple[str, str]:
    key = edits.tokens[place]
    if key.kind is Kind.NUMBER:
        return "jsonb_path_query_first(", f", '$[{key.value}]')"
    return ("property_get(" if is_text else "jsonb_get(", f", {key.value})")


def _follow(edits: Edits, first: int, operand: _Operand) -> bool:
    """#> '{a,b}', or an array of texts."""
    keys: list[str | None] = []
    end = first + 1
    listed = text_of(edits.at(first))
    if listed is not None:
        keys += array_items(listed)
    elif edits.is_word(first, "array") and (items := edits.arguments(end)) is not None:
        keys += [text_of(edits.at(item)) for item, _ in items]
        end = (edits.closing(end) or end) + 1
    names = [key for key in keys if key is not None]
    if not names or len(names) < len(keys):
        operand.is_text = False
        return False
    if edits.is_cast(end) and edits.is_word(end + 2, "text"):
        end += 5 if edits.is_symbol(end + 3, "[") else 3
    for name in names[:-1]:
        operand.calls.append(("jsonb_get(", f", {literal(name)})"))
    operand.calls.append(("property_get(" if operand.is_text else "jsonb_get(", f", {literal(names[-1])})"))
    operand.end = end
    return True


def _compare(edits: Edits, operand: _Operand) -> bool:
    """Whether it is compared with a text, which is JSON then: both are compared as they are written out."""
    place = operand.end
    if edits.is_symbol(place, "=") and not edits.is_symbol(place + 1, "=", ">"):
        operator, value = "=", place + 1
    elif edits.is_symbol(place, "<", "!") and edits.is_symbol(place + 1, ">" if edits.is_symbol(place, "<") else "="):
        operator, value = "<>", place + 2
    else:
        return False
    token = edits.at(value)
    if token is None or token.kind not in (Kind.TEXT, Kind.PARAMETER):
        return False
    end = value + 1
    if edits.is_cast(end):
        if not edits.is_word(end + 2, "json", "jsonb", "text"):
            return False
        end += 3
    operand.calls.append(("jsonb_format_json(", f") {operator} jsonb_format_json(jsonb_parse({token.value}))"))
    operand.end = end
    return True


def _cast(edits: Edits, operand: _Operand) -> None:
    """To a text, as it is written out; to JSON, as it is."""
    place = operand.end
    if edits.is_cast(place) and edits.is_word(place + 2, "jsonb"):
        operand.end = place + 3
    elif edits.is_cast(place) and edits.is_word(place + 2, *_TEXTS):
        operand.calls.append(("jsonb_format_json(", ")"))
        operand.end = place + 3
