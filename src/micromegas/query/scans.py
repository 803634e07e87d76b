"""What a statement needs of each table, read off its optimized plan over placeholders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from datafusion import LogicalPlan
from datafusion.expr import Explain, TableScan

from micromegas.query.bounds import ANYTHING, EVERYTHING, Bounds, TimeRange, bounds_of

_SCAN_LINE = re.compile(r"^\s*TableScan: (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class FilterColumns:
    """The columns of a table whose filters help to choose what to read: those of event time, that of insert time (when
    it is not one of them), and those compared with texts."""

    time: Sequence[str] = ()
    insert_time: str | None = None
    values: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ScanNeed:
    """Union over all scans of one table: bounds of the rows, of their insert time, and the columns (None = all).

    `max_rows` are enough, whichever they are; None = all rows within the bounds are needed.
    """

    bounds: Bounds
    inserted: TimeRange
    columns: frozenset[str] | None
    max_rows: int | None = None

    def joined(self, other: ScanNeed) -> ScanNeed:
        columns = None if self.columns is None or other.columns is None else self.columns | other.columns
        max_rows = None if self.max_rows is None or other.max_rows is None else max(self.max_rows, other.max_rows)
        return ScanNeed(self.bounds.either(other.bounds), self.inserted.hull(other.inserted), columns, max_rows)


ALL_ROWS = ScanNeed(ANYTHING, EVERYTHING, None)


def scan_needs(plan: LogicalPlan, tables: Mapping[str, FilterColumns]) -> dict[str, ScanNeed]:
    """Needs of each of `tables` that the optimized plan scans, by table name."""
    needs: dict[str, ScanNeed] = {}
    seen: dict[str, int] = {}
    for node, scan in _scans(plan):
        name = scan.table_name()
        if name not in tables:
            continue
        seen[name] = seen.get(name, 0) + 1
        columns = tables[name]
        filters = scan.filters()
        bounds = bounds_of(filters, columns.time, columns.values)
        inserted = bounds_of(filters, [columns.insert_time] if columns.insert_time else [], []).time
        # A scan without a projection reports an empty one, like a scan that needs no column.
        projected = frozenset(column for _, column in scan.projection()) if "projection=" in node.display() else None
        # A limit that came down to a scan with filters counts rows after them.
        need = ScanNeed(bounds, inserted, projected, None if filters else scan.fetch())
        needs[name] = needs[name].joined(need) if name in needs else need
    # Scans inside uncorrelated subqueries hang on expressions, where they can't be reached from here.
    shown: dict[str, int] = {}
    for name in _SCAN_LINE.findall(plan.display_indent()):
        if name in tables:
            shown[name] = shown.get(name, 0) + 1
    for name, count in shown.items():
        if count > seen.get(name, 0):
            needs[name] = ALL_ROWS
    return needs


def _scans(plan: LogicalPlan) -> Iterator[tuple[LogicalPlan, TableScan]]:  # pyright: ignore[reportInvalidTypeForm]
    pending = [plan]
    while pending:
        node = pending.pop()
        variant = node.to_variant()
        if isinstance(variant, TableScan):
            yield node, variant
        pending.extend(node.inputs())


def is_explain(plan: LogicalPlan) -> bool:
    """Whether the statement only shows a plan; EXPLAIN ANALYZE runs and is none."""
    return isinstance(plan.to_variant(), Explain)
