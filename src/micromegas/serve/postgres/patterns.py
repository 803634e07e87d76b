"""Patterns that PostgreSQL writes in its own way, as the engine writes them: of times, of SIMILAR TO, of intervals."""

from __future__ import annotations

import re

from micromegas.serve.postgres.errors import PostgresError, not_offered

# of `to_char` and its like, the longest first
_TIME_PARTS = {
    "HH24": "%H",
    "HH12": "%I",
    "HH": "%I",
    "MI": "%M",
    "SS": "%S",
    "MS": "%3f",
    "US": "%6f",
    "AM": "%p",
    "PM": "%p",
    "am": "%P",
    "pm": "%P",
    "YYYY": "%Y",
    "yyyy": "%Y",
    "YY": "%y",
    "IYYY": "%G",
    "IW": "%V",
    "Month": "%B",
    "Mon": "%b",
    "MM": "%m",
    "Day": "%A",
    "Dy": "%a",
    "DDD": "%j",
    "DD": "%d",
    "ID": "%u",
    "TZH:TZM": "%:z",
    "OF": "%:::z",
}
_SAME_IN_LOWER_CASE = ("HH24", "HH12", "HH", "MI", "SS", "MS", "US", "YY", "MM", "DDD", "DD", "IYYY", "IW")
_PARTS = _TIME_PARTS | {each.lower(): _TIME_PARTS[each] for each in _SAME_IN_LOWER_CASE}
# that only look like others behind each other
_REFUSED = ("SSSS", "ssss", "IDDD", "iddd")
# PostgreSQL fills these up with spaces to the longest name, unless FM stands before
_FILLED = frozenset(["Month", "Day"])
_TIME_PART = re.compile(
    r"(?P<quoted>\"(?:[^\"\\]|\\.)*\")|(?P<refused>" + "|".join(_REFUSED) + ")"
    r"|(?P<fm>FM)?(?P<part>" + "|".join(sorted(_PARTS, key=len, reverse=True)) + ")"
    r"|(?P<letter>[A-Za-z])|(?P<percent>%)"
)
_CLASS = re.compile(r"\[:[a-z]+:\]")
_CLOCK = re.compile(r"(?P<sign>[+-]?)(?P<h>\d+):(?P<m>\d{1,2})(?::(?P<s>\d{1,2}(?:\.\d+)?))?")


def time_pattern(pattern: str) -> str:
    """A pattern of `to_char` as one of strftime. One of strftime stays as it is: it has no meaning for PostgreSQL."""
    if "%" in pattern:
        return pattern

    def part_of(match: re.Match[str]) -> str:
        if match["quoted"]:
            return match["quoted"][1:-1].replace('\\"', '"')
        part = match["part"]
        if part is None or (match["fm"] and part not in _FILLED) or (part in _FILLED and not match["fm"]):
            raise not_offered(
                f'the part "{match.group()}" of the pattern "{pattern[:60]}" is not offered',
                "parts: YYYY MM DD HH24 HH12 MI SS MS US AM Mon FMMonth Dy FMDay IYYY IW ID DDD, or those of strftime",
            )
        return _PARTS[part]

    return _TIME_PART.sub(part_of, pattern)


def similar_pattern(pattern: str) -> str:
    """A pattern of SIMILAR TO as a regular expression."""
    out: list[str] = []
    place = 0
    while place < len(pattern):
        letter = pattern[place]
        place += 1
        if letter == "\\":
            out.append(re.escape(pattern[place : place + 1] or letter))
            place += 1
        elif letter == "[":
            listed, place = _letters(pattern, place)
            out.append(listed)
        elif letter in "%_":
            out.append("(?s:.*)" if letter == "%" else "(?s:.)")
        else:
            # the ones that mean the same there
            out.append(letter if letter in "|*+?{}()" else re.escape(letter))
    return f"^(?:{''.join(out)})$"


def _letters(pattern: str, place: int) -> tuple[str, int]:
    """A list of letters, of which the bracket stands before, as one of a regular expression; and what is behind it."""
    out = ["["]
    if pattern.startswith("^", place):
        out.append("^")
        place += 1
    first = place
    while place < len(pattern) and (place == first or pattern[place] != "]"):
        if named := _CLASS.match(pattern, place):
            out.append(named.group())
            place = named.end()
        elif pattern[place] == "\\":
            out.append(re.escape(pattern[place + 1 : place + 2] or "\\"))
            place += 2
        else:
            # two of some stand for what is in both lists there
            out.append(pattern[place] if pattern[place] == "-" else re.escape(pattern[place]))
            place += 1
    if place >= len(pattern):
        raise PostgresError("2201B", "invalid regular expression: brackets [] not balanced")
    return "".join([*out, "]"]), place + 1


def interval_text(text: str) -> str:
    """An interval whose hours, minutes and seconds may stand as on a clock, in words."""

    def words_of(match: re.Match[str]) -> str:
        sign = match["sign"].replace("+", "")
        parts = [f"{sign}{match['h']} hours", f"{sign}{match['m']} minutes"]
        return " ".join([*parts, f"{sign}{match['s']} seconds"] if match["s"] else parts)

    return _CLOCK.sub(words_of, text)


def bytes_of_hex(text: str) -> str:
    """The digits of a bytea that is written in hexadecimal form."""
    digits = "".join(text[2:].split())
    if len(digits) % 2 or not re.fullmatch("[0-9a-fA-F]*", digits):
        raise PostgresError("22P02", "invalid hexadecimal data")
    return digits
