"""A statement by its tokens, and what is to stand in the place of some of them."""

from __future__ import annotations

from micromegas.query.functions.sql_text import Kind, Token, tokens

_PAIRS = {"(": ")", "[": "]"}


class Edits:
    """`text()` is the statement with all replacements; what lies within another that was made before is left out."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.tokens = tokens(sql)
        self.place = 0
        """Of the token that is looked at."""
        self._edits: list[tuple[int, int, str]] = []
        self._closings: dict[int, int] = {}
        opened: list[int] = []
        for place, token in enumerate(self.tokens):
            if token.kind is not Kind.SYMBOL:
                continue
            if token.value in _PAIRS:
                opened.append(place)
            elif opened and token.value == _PAIRS[self.tokens[opened[-1]].value]:
                self._closings[opened.pop()] = place

    def text(self) -> str:
        out, copied = [], 0
        for start, end, replacement in sorted(self._edits, key=lambda edit: edit[:2]):
            if start < copied:
                continue
            out += [self.sql[copied:start], replacement]
            copied = end
        out.append(self.sql[copied:])
        return "".join(out)

    def at(self, place: int) -> Token | None:
        return self.tokens[place] if 0 <= place < len(self.tokens) else None

    def is_symbol(self, place: int, *symbols: str) -> bool:
        token = self.at(place)
        return token is not None and token.kind is Kind.SYMBOL and token.value in symbols

    def is_word(self, place: int, *words: str) -> bool:
        token = self.at(place)
        return token is not None and token.kind is Kind.WORD and token.value in words

    def is_name(self, place: int) -> bool:
        token = self.at(place)
        return token is not None and token.kind in (Kind.WORD, Kind.QUOTED_NAME)

    def is_cast(self, place: int) -> bool:
        """Whether `::` stands here."""
        return self.is_symbol(place, ":") and self.is_symbol(place + 1, ":")

    def closing(self, place: int) -> int | None:
        """Where the bracket that opens here is closed."""
        return self._closings.get(place)

    def arguments(self, place: int) -> list[tuple[int, int]] | None:
        """The tokens [first, end) of each argument within the brackets that open here."""
        close = self.closing(place)
        if close is None:
            return None
        found: list[tuple[int, int]] = []
        first = each = place + 1
        while each < close:
            if self.is_symbol(each, ","):
                found.append((first, each))
                first = each + 1
            each = self._closings.get(each, each) + 1
        return [*found, (first, close)] if close > place + 1 else []

    def source(self, first: int, end: int) -> str:
        """The text of the tokens [first, end)."""
        return self.sql[self.tokens[first].start : self.tokens[end - 1].end] if end > first else ""

    def replace(self, first: int, end: int, text: str) -> None:
        """The tokens [first, end) become `text`; with nothing, what is between them and the next goes as well."""
        stop = self.tokens[end].start if text == "" and end < len(self.tokens) else self.tokens[end - 1].end
        self._edits.append((self.tokens[first].start, stop, text))

    def insert_before(self, place: int, text: str) -> None:
        self._edits.append((self.tokens[place].start, self.tokens[place].start, text))

    def insert_behind(self, place: int, text: str) -> None:
        self._edits.append((self.tokens[place].end, self.tokens[place].end, text))
