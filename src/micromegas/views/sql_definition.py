"""Views that a text file declares in SQL: reading the file, and what identifies a definition. Must never run or plan
the SQL, and never let one wrong definition hide the others."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

Bucket = Literal["minute", "hour", "day"]
"""Length of insert time that one partition holds at most."""

PARTS = "parts"
"""Name of the table that the merge statement reads."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DIRECTIVE = re.compile(r"\s*--\s*@(\w+)[ \t]*(.*?)\s*")
_STATEMENTS = ("transform", "merge")
_ONCE = ("row", "time", "largest", *_STATEMENTS)
# Texts, quoted names and comments are told apart, so that only what means nothing is taken out.
_SQL_PIECE = re.compile(
    r"""
      (?P<kept> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$ )
    | (?P<blank> (?: \s+ | --[^\n]* | /\*.*?\*/ )+ )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class SqlText:
    """A statement and the line of its file (from 1) on which it begins."""

    text: str
    line: int

    @property
    def canonical(self) -> str:
        """The same for texts that differ in blanks and comments only."""
        return _SQL_PIECE.sub(lambda piece: piece["kept"] or " ", self.text).strip(" ;")


@dataclass(frozen=True, slots=True)
class ViewProblem:
    """Why a view of a file can't be used; `view` is None for what belongs to no view."""

    origin: str
    line: int
    view: str | None
    message: str

    def __str__(self) -> str:
        subject = f"view {self.view}: " if self.view is not None else ""
        return f"{self.origin} line {self.line}: {subject}{self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlDefinition:
    """A view reduced from source rows: `merge(transform(a) + transform(b))` must be `transform(a + b)` for any two sets
    of source rows, as far as rows of the view are sets.

    `transform` reads other views by name, of which it is given the rows of a range of insert time; `merge` reads the
    table `parts`. `row` says in words what a row is.
    """

    name: str
    min_column: str
    max_column: str
    transform: SqlText
    merge: SqlText
    row: str = ""
    largest: Bucket = "day"
    origin: str = ""
    line: int = 1

    def problem(self, message: str, line: int | None = None) -> ViewProblem:
        """A problem of this view, on the line where its definition begins or another one."""
        return ViewProblem(self.origin, self.line if line is None else line, self.name, message)

    @property
    def canonical(self) -> str:
        """What the rows depend on, in one text."""
        return "\n".join([self.min_column, self.max_column, self.transform.canonical, self.merge.canonical])


@dataclass(slots=True)
class _Section:
    """The lines of a view's definition so far."""

    name: str
    line: int
    directives: dict[str, tuple[str, int]] = field(default_factory=dict)
    statements: dict[str, list[str]] = field(default_factory=dict)
    problems: list[tuple[str, int]] = field(default_factory=list)


def read_definitions(text: str, origin: str) -> tuple[list[SqlDefinition], list[ViewProblem]]:
    """The definitions of a file called `origin`, and what is wrong with the others.

    A line `-- @view NAME` begins a definition; `-- @time COLUMN` or `-- @time MIN_COLUMN, MAX_COLUMN`, `-- @transform`
    and `-- @merge` (each followed by a SELECT) must follow; `-- @row TEXT` and `-- @largest minute|hour|day` may.
    """
    sections, problems = _sections(text, origin)
    definitions: list[SqlDefinition] = []
    names: set[str] = set()
    for section in sections:
        if section.name in names:
            section.problems.append(("defined twice", section.line))
        names.add(section.name)
        definition = _definition(section, origin)
        problems += [ViewProblem(origin, line, section.name, message) for message, line in section.problems]
        if definition is not None and not section.problems:
            definitions.append(definition)
    return definitions, problems


def _sections(text: str, origin: str) -> tuple[list[_Section], list[ViewProblem]]:
    sections: list[_Section] = []
    problems: list[ViewProblem] = []
    statement: list[str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        match = _DIRECTIVE.fullmatch(line)
        if match is None:
            if statement is not None:
                statement.append(line)
            elif line.strip() and not line.lstrip().startswith("--"):
                name = sections[-1].name if sections else None
                problems.append(ViewProblem(origin, number, name, "SQL outside of -- @transform and -- @merge"))
            continue
        word, value = match[1], match[2]
        if word == "view":
            statement = None
            sections.append(_Section(value, number))
            continue
        if not sections:
            problems.append(ViewProblem(origin, number, None, f"-- @{word} before the first -- @view"))
            continue
        section = sections[-1]
        if word not in _ONCE:
            section.problems.append((f"unknown setting -- @{word}; there are {', '.join(_ONCE)}", number))
        elif word in section.directives:
            section.problems.append((f"second -- @{word}", number))
        else:
            section.directives[word] = (value, number)
        statement = section.statements.setdefault(word, []) if word in _STATEMENTS else None
    return sections, problems


def _definition(section: _Section, origin: str) -> SqlDefinition | None:
    def wrong(message: str, line: int = section.line) -> None:
        section.problems.append((message, line))

    if _NAME.fullmatch(section.name) is None:
        wrong("the name must be of lower-case letters, digits and _, at most 63, a letter first")
    statements = {}
    for word in _STATEMENTS:
        text = "\n".join(section.statements.get(word, ()))
        line = section.directives.get(word, ("", section.line))[1]
        statements[word] = SqlText(text, line + 1)
        if not statements[word].canonical:
            wrong(f"-- @{word} with a SELECT below it is missing", line)
    times, times_line = section.directives.get("time", ("", section.line))
    columns = [column.strip() for column in times.split(",")]
    if len(columns) > 2 or not all(columns):
        wrong("-- @time must name one column, or two with a comma", times_line)
    largest, largest_line = section.directives.get("largest", ("day", 0))
    if largest not in get_args(Bucket):
        wrong(f"-- @largest must be one of {', '.join(get_args(Bucket))}", largest_line)
    if section.problems:
        return None
    bucket: Bucket = next(each for each in get_args(Bucket) if each == largest)
    return SqlDefinition(
        name=section.name,
        min_column=columns[0],
        max_column=columns[-1],
        transform=statements["transform"],
        merge=statements["merge"],
        row=section.directives.get("row", ("", 0))[0],
        largest=bucket,
        origin=origin,
        line=section.line,
    )


def in_file_lines(message: str, statement: SqlText) -> str:
    """A message of the SQL parser with lines of the file in place of lines of the statement."""
    return re.sub(r"\bLine: (\d+)", lambda match: f"Line: {int(match[1]) + statement.line - 1}", message)
