"""Writes docs/views.md: `python tools/views_page.py`; a test fails when the page is not what this writes.

A view set gets onto the page by being in the catalogue, and by an entry in `ABOUT` below: what a row is, and an
example. The example runs on the lake of `example_lake.py` under the rules of `functions_page.py`; `NO_EXAMPLE_ROWS`
are views of which that lake holds nothing. Schema, time columns and keeper come from the code.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from example_lake import example_lake, with_ids
from shown_answers import answer, shown, type_name

from micromegas.config import QuerySettings
from micromegas.query import QueryEngine
from micromegas.serve.query_engine import query_engine
from micromegas.views.catalogue import VIEW_SETS
from micromegas.views.view_set import ViewSet

PAGE = Path(__file__).resolve().parents[1] / "docs" / "views.md"
OWN_VIEWS = Path(__file__).resolve().parents[1] / "docs" / "own_views.sql"


@dataclass(frozen=True, slots=True)
class About:
    """What the code does not say of a view set."""

    row: str
    example: str


ABOUT = {
    "async_events": About(
        "The begin or the end of an asynchronous span. Both have the same `span_id`; `parent_span_id` is 0 without a "
        "parent, `depth` counts the spans above.",
        "SELECT time, event_type, name, span_id, parent_span_id, depth FROM view_instance('async_events', '$process') "
        "ORDER BY time LIMIT 4",
    ),
    "async_spans": About(
        "An asynchronous span, begin and end joined whichever threads told them, with stream, parent, depth and scope "
        "of its begin. `state` is `closed`; `open` while the end is not known: `end` is then that of the last block of "
        "the process; or `begin_lost`, where only the end arrived: it is `begin` too.",
        "SELECT name, span_id, parent_span_id, depth, duration, state FROM view_instance('async_spans', '$process') "
        "ORDER BY begin LIMIT 4",
    ),
    "blocks": About(
        "A block of events, as it was sent, with its stream and its process beside; the columns of these have dots in "
        "their names, so they are to be quoted. `nb_objects` is its number of events, `payload_size` its bytes.",
        'SELECT "streams.tags", nb_objects, begin_time, "processes.exe" FROM blocks ORDER BY nb_objects DESC',
    ),
    "images": About(
        "A screenshot or another picture, with its bytes in `data`.",
        "SELECT time, name, format, payload_size FROM view_instance('images', '$process') ORDER BY time",
    ),
    "log_entries": About(
        "A log event. Levels: 1 fatal, 2 error, 3 warning, 4 info, 5 debug, 6 trace. `properties` are those of the "
        "event, `process_properties` those of its process.",
        "SELECT time, level, target, msg FROM log_entries WHERE level <= 3 ORDER BY time",
    ),
    "log_stats": About(
        "A minute in which a process logged events of one level and target, and how many. Always equal to the GROUP BY "
        "over `log_entries` (from the first minute on that 64 bits can tell, of 1677), but kept after these rows are "
        "gone, as long as its own retention says.",
        "SELECT time_bin, level, target, count FROM log_stats ORDER BY level, target",
    ),
    "measures": About(
        "A measured value, with the name and the unit of its metric. Integers arrive as doubles; what was measured in "
        "ticks comes in seconds.",
        "SELECT name, unit, count(*) AS n, avg(value) AS average FROM measures GROUP BY 1, 2 ORDER BY 1",
    ),
    "net_spans": About(
        "A connection, an object, a property or a call that an Unreal process replicated, when it was over, in bits: "
        "`begin_bits` and `end_bits` are places in what its parent has sent. `parent_span_id` is -1 without a parent.",
        "SELECT name, sum(bit_size) / 8 AS bytes FROM view_instance('net_spans', '$process') "
        "WHERE kind = 'object' AND is_outgoing GROUP BY 1",
    ),
    "otel_spans": About(
        "A span that came by OTLP, of whatever process: a trace is found whole. `duration` is in ns, a root has no "
        "`parent_span_id`. `properties` are the attributes as texts, with those of the scope as `otel.scope.…`; "
        "`events` (time, name, attributes) and `links` (trace_id, span_id, attributes) are arrays of typed values.",
        "SELECT exe, name, kind, status, duration FROM otel_spans "
        "WHERE trace_id = decode('4bf92f3577b34da6a3ce929d0e0e4736', 'hex') ORDER BY start_time",
    ),
    "processes": About(
        "A process, in its newest state; `last_update_time` is when the newest of its blocks came.",
        "SELECT exe, username, computer, property_get(properties, 'Build') AS build, start_time FROM processes",
    ),
    "streams": About(
        "A stream of blocks of a process (its log, its measures, one per thread), in its newest state.",
        "SELECT tags, property_get(properties, 'thread-name') AS thread FROM streams ORDER BY stream_id",
    ),
    "thread_spans": About(
        "A span of a thread. `parent` is the `id` of the span around it, `duration` is in ns.",
        "SELECT id, parent, depth, name, begin, duration FROM view_instance('thread_spans', '$thread') "
        "ORDER BY begin, depth LIMIT 4",
    ),
}

NO_EXAMPLE_ROWS = frozenset({"images", "net_spans"})

HEAD = """# Views

What stands in FROM. Written by `python tools/views_page.py` from the code; every example was run, over the lake of
`tools/example_lake.py`, with a time range that covers it. [Functions in FROM](functions.md#tables-functions-in-from)
give further tables.

A *global* view is named as it is. An *instance* is that of one process or stream: `view_instance('name', id)`. A
query range [b, e] leaves the rows that its *row filter* lets through, both ends inclusive. An answer holds everything
that was acknowledged before the query began, whether or not a daemon has made partitions of it.

`jsonb` is JSON in its binary form ([functions](functions.md#properties) read it); times are UTC, in ns. No column
holds NULLs where nothing else is said.
"""

OWN = """## Views of your own

A file of SQL, given to every server of the lake (`--views FILE` or `MICROMEGAS_VIEWS`), declares views beside these:

```sql
{file}```

| line | says |
|---|---|
| `-- @view NAME` | begins a view; lower-case letters, digits and `_` |
| `-- @row TEXT` | what a row is, for people |
| `-- @time FIRST, LAST` | columns of type `TIMESTAMP WITH TIME ZONE`; one where they are the same |
| `-- @largest minute`, `hour` or `day` | how long (by insert time) a partition gets at most; `day` if not said |
| `-- @transform` | a SELECT over `log_entries`, `measures`, `blocks`, `log_stats` and other views of the file |
| `-- @merge` | a SELECT over the table `parts`, rows of the view, that gives rows of the view |

The daemon runs the transform over the source rows of each minute and merges minutes to hours and days; a query merges
what it finds in partitions with the transform of what is in none yet. So a view is as fresh as its sources and its
rows are always fully reduced. For this the two must keep the law that *merging the rows of two parts gives the rows
of both together*: counts are summed, minima are minimized, histograms are summed, an average is kept as sum and
count. LIMIT and functions of the moment (`now()`, `random()`) are refused; functions like those of any query may be
used.

How long rows are kept is told by the view's name in the [retention policies](operating.md), and may be longer than
for its sources. A definition that changes in more than blanks and comments is made anew from what the sources hold;
while that goes on answers are right, only dearer. Partitions of the earlier definition whose blocks are gone stay,
unseen, until they are too old or an administrator retires them.

What is wrong with a definition is told in the server's log with file, line and view, and to who asks for the view;
the other views work. `list_view_sets()` lists what is usable, `list_partitions()` what is kept. A view that takes too
long or too much memory for a minute (the limits of a query hold) is told in the log, and its queries carry the cost.
"""


def page() -> str:
    """The page's text."""
    with tempfile.TemporaryDirectory() as folder, example_lake(Path(folder) / "lake") as lake:
        engine = query_engine(lake, QuerySettings(spill_dir=Path(folder) / "spill"))
        try:
            return "\n".join([HEAD, *_sections(engine), OWN.format(file=OWN_VIEWS.read_text(encoding="utf-8"))])
        finally:
            engine.close()


def _sections(engine: QueryEngine) -> Iterator[str]:
    for name, view_set in sorted(VIEW_SETS.items()):
        about = ABOUT[name]
        yield f"## {name}\n"
        yield f"{about.row}\n"
        yield f"{_facts(view_set)}\n"
        yield "| column | type |"
        yield "|---|---|"
        for field in view_set.schema:
            null = ", may be NULL" if field.nullable else ""
            yield f"| `{field.name}` | {type_name(field.type)}{null} |"
        sql = with_ids(about.example)
        yield f"\n```sql\n{sql}\n```\n"
        yield from shown(answer(engine, sql))
        yield ""


def _facts(view_set: ViewSet) -> str:
    named = []
    if view_set.has_global:
        named.append(f"`{view_set.name}`")
    if view_set.instance_kind is not None:
        named.append(f"`view_instance('{view_set.name}', {view_set.instance_kind.value}_id)`")
    if view_set.reduced is not None:
        kept = f"kept by the daemon, reduced from other views (`src/micromegas/views/{view_set.name}.sql`)"
    elif view_set.decoded is None:
        kept = "read from the metadata database"
    else:
        ways = ["globally by the daemon"] if view_set.has_global else []
        ways += ["per instance when a query asks for it"] if view_set.instance_kind is not None else []
        kept = f"decoded from blocks of streams with the tag `{view_set.decoded.stream_tag}`, {', '.join(ways)}"
    low, high = view_set.min_column, view_set.max_column
    row_filter = f"b <= `{low}` <= e" if low == high else f"`{low}` <= e and `{high}` >= b"
    needs = "; needs a time range" if view_set.needs_range else ""
    return f"In FROM: {' or '.join(named)}{needs}. Rows: {kept}. Row filter: {row_filter}."


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
