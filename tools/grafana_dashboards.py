"""Writes the dashboards of deploy/grafana: python tools/grafana_dashboards.py

One description, written twice: for the FlightSQL plugin of Micromegas and for Grafana's own PostgreSQL data source.
They differ in the names of fields and in how time is cut into bins, which is why SQL below says BIN(column).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "grafana" / "dashboards"
_BIN = re.compile(r"BIN\((\w+)\)")


@dataclass(frozen=True)
class Source:
    """A kind of data source: its name as a folder, its type and the uid that is provisioned."""

    folder: str
    kind: str
    uid: str
    title: str

    @property
    def reference(self) -> dict[str, str]:
        return {"type": self.kind, "uid": self.uid}

    def sql(self, text: str) -> str:
        by_bin = r"$__dateBin(\1)" if self is FLIGHT else r"$__timeGroup(\1, $__interval)"
        return _BIN.sub(by_bin, text.strip())

    def target(self, text: str, form: str) -> dict[str, Any]:
        common = {"refId": "A", "datasource": self.reference}
        if self is FLIGHT:
            return common | {
                "query": self.sql(text),
                "rawEditor": True,
                "version": 2,
                "format": form,
                "timeFilter": True,
                "autoLimit": form != "time_series",
            }
        return common | {
            "rawSql": self.sql(text),
            "rawQuery": True,
            "editorMode": "code",
            "format": "table" if form == "logs" else form,
        }


FLIGHT = Source("flight", "micromegas-micromegas-datasource", "micromegas-flight", "Flight SQL")
POSTGRES = Source("postgres", "grafana-postgresql-datasource", "micromegas-postgres", "PostgreSQL")
SOURCES = (FLIGHT, POSTGRES)


@dataclass(frozen=True)
class Panel:
    """`form` is that of the query: table, time_series or logs. Sizes in Grafana's grid of 24 columns."""

    title: str
    kind: str
    form: str
    sql: str
    width: int = 12
    height: int = 8
    unit: str | None = None


@dataclass(frozen=True)
class Variable:
    """A choice above the panels: the values that `sql` gives, those of `values`, or free text."""

    name: str
    label: str
    sql: str | None = None
    values: tuple[tuple[str, str], ...] = ()
    several: bool = False


@dataclass(frozen=True)
class Dashboard:
    name: str
    title: str
    variables: tuple[Variable, ...]
    panels: tuple[Panel, ...]


EXE = Variable(
    "exe",
    "Program",
    "SELECT DISTINCT exe FROM processes WHERE $__timeFilter(last_update_time) ORDER BY exe",
    several=True,
)
LEVELS = (("fatal", "1"), ("error", "2"), ("warn", "3"), ("info", "4"), ("debug", "5"), ("trace", "6"))
LEVEL_NAME = "CASE level " + " ".join(f"WHEN {number} THEN '{name}'" for name, number in LEVELS) + " END"

PROCESSES = Dashboard(
    "processes",
    "Micromegas: processes",
    (EXE,),
    (
        Panel(
            "Processes",
            "stat",
            "table",
            """
SELECT count(*) AS processes FROM processes
WHERE $__timeFilter(last_update_time) AND exe IN (${exe:sqlstring})
""",
            width=6,
            height=4,
        ),
        Panel(
            "Computers",
            "stat",
            "table",
            """
SELECT count(DISTINCT computer) AS computers FROM processes
WHERE $__timeFilter(last_update_time) AND exe IN (${exe:sqlstring})
""",
            width=6,
            height=4,
        ),
        Panel(
            "Events received",
            "stat",
            "table",
            """
SELECT sum(nb_objects) AS events FROM blocks
WHERE $__timeFilter(begin_time) AND "processes.exe" IN (${exe:sqlstring})
""",
            width=6,
            height=4,
        ),
        Panel(
            "Bytes received",
            "stat",
            "table",
            """
SELECT sum(payload_size) AS bytes FROM blocks
WHERE $__timeFilter(begin_time) AND "processes.exe" IN (${exe:sqlstring})
""",
            width=6,
            height=4,
            unit="bytes",
        ),
        Panel(
            "Events by program",
            "timeseries",
            "time_series",
            """
SELECT BIN(begin_time) AS time, "processes.exe" AS exe, CAST(sum(nb_objects) AS DOUBLE) AS events
FROM blocks
WHERE $__timeFilter(begin_time) AND "processes.exe" IN (${exe:sqlstring})
GROUP BY 1, 2 ORDER BY 1
""",
        ),
        Panel(
            "Starts by program",
            "timeseries",
            "time_series",
            """
SELECT BIN(start_time) AS time, exe, CAST(count(*) AS DOUBLE) AS starts
FROM processes
WHERE $__timeFilter(start_time) AND exe IN (${exe:sqlstring})
GROUP BY 1, 2 ORDER BY 1
""",
        ),
        Panel(
            "The latest",
            "table",
            "table",
            """
SELECT process_id, exe, start_time, last_update_time, username, computer, distro, cpu_brand
FROM processes
WHERE $__timeFilter(last_update_time) AND exe IN (${exe:sqlstring})
ORDER BY last_update_time DESC LIMIT 500
""",
            width=24,
            height=12,
        ),
    ),
)

_CHOSEN_LOGS = """$__timeFilter(time) AND exe IN (${exe:sqlstring}) AND level <= ${level}
    AND (${search:sqlstring} = '' OR contains(lower(msg), lower(${search:sqlstring})))"""

LOGS = Dashboard(
    "logs",
    "Micromegas: logs",
    (EXE, Variable("level", "Level and worse", values=LEVELS), Variable("search", "Text")),
    (
        Panel(
            "Lines by level",
            "timeseries",
            "time_series",
            f"""
SELECT BIN(time) AS time, {LEVEL_NAME} AS level, CAST(count(*) AS DOUBLE) AS lines
FROM log_entries
WHERE {_CHOSEN_LOGS}
GROUP BY 1, 2 ORDER BY 1
""",
            width=16,
        ),
        Panel(
            "Lines by target",
            "table",
            "table",
            """
SELECT target, sum(count) AS lines, sum(CASE WHEN level <= 2 THEN count ELSE 0 END) AS errors
FROM log_stats
WHERE $__timeFilter(time_bin) AND level <= ${level}
GROUP BY target ORDER BY errors DESC, lines DESC LIMIT 50
""",
            width=8,
        ),
        Panel(
            "Lines",
            "logs",
            "logs",
            f"""
SELECT time, msg AS body, {LEVEL_NAME} AS level, target, exe, computer, process_id,
    jsonb_format_json(properties) AS properties
FROM log_entries
WHERE {_CHOSEN_LOGS}
ORDER BY time DESC LIMIT 1000
""",
            width=24,
            height=16,
        ),
    ),
)

_CHOSEN_MEASURES = "$__timeFilter(time) AND exe IN (${exe:sqlstring}) AND name IN (${measure:sqlstring})"

METRICS = Dashboard(
    "metrics",
    "Micromegas: metrics",
    (
        EXE,
        Variable(
            "measure",
            "Measure",
            "SELECT DISTINCT name FROM measures WHERE $__timeFilter(time) ORDER BY name",
            several=True,
        ),
    ),
    (
        Panel(
            "Mean",
            "timeseries",
            "time_series",
            f"""
SELECT BIN(time) AS time, concat(name, ' ', unit) AS measure, avg(value) AS mean
FROM measures
WHERE {_CHOSEN_MEASURES}
GROUP BY 1, 2 ORDER BY 1
""",
            width=24,
            height=10,
        ),
        Panel(
            "95th percentile",
            "timeseries",
            "time_series",
            f"""
SELECT BIN(time) AS time, concat(name, ' ', unit) AS measure, approx_percentile_cont(value, 0.95) AS p95
FROM measures
WHERE {_CHOSEN_MEASURES}
GROUP BY 1, 2 ORDER BY 1
""",
        ),
        Panel(
            "Largest",
            "timeseries",
            "time_series",
            f"""
SELECT BIN(time) AS time, concat(name, ' ', unit) AS measure, max(value) AS largest
FROM measures
WHERE {_CHOSEN_MEASURES}
GROUP BY 1, 2 ORDER BY 1
""",
        ),
        Panel(
            "What they came to",
            "table",
            "table",
            f"""
SELECT name, unit, exe, count(*) AS count, min(value) AS min, avg(value) AS mean,
    approx_median(value) AS median, max(value) AS max, sum(value) AS sum
FROM measures
WHERE {_CHOSEN_MEASURES}
GROUP BY name, unit, exe ORDER BY name, exe LIMIT 500
""",
            width=24,
        ),
    ),
)
DASHBOARDS = (PROCESSES, LOGS, METRICS)


def document(dashboard: Dashboard, source: Source) -> dict[str, Any]:
    """The dashboard as Grafana stores it."""
    return {
        "uid": f"micromegas-{dashboard.name}-{source.folder}",
        "title": f"{dashboard.title} ({source.title})",
        "tags": ["micromegas"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_variable(each, source) for each in dashboard.variables]},
        "panels": _panels(dashboard, source),
    }


def _variable(variable: Variable, source: Source) -> dict[str, Any]:
    common = {"name": variable.name, "label": variable.label}
    if variable.sql is not None:
        return common | {
            "type": "query",
            "datasource": source.reference,
            "query": source.sql(variable.sql),
            "refresh": 2,  # whenever the time range changes
            "multi": variable.several,
            "includeAll": variable.several,
            "current": {"text": ["All"], "value": ["$__all"]} if variable.several else {},
        }
    if variable.values:
        options = [{"text": text, "value": value, "selected": False} for text, value in variable.values]
        options[3]["selected"] = True
        return common | {
            "type": "custom",
            "query": ", ".join(f"{text} : {value}" for text, value in variable.values),
            "options": options,
            "current": options[3],
        }
    return common | {"type": "textbox", "query": "", "current": {"text": "", "value": ""}}


def _panels(dashboard: Dashboard, source: Source) -> list[dict[str, Any]]:
    """Placed from left to right, a new row where one doesn't fit any more."""
    panels: list[dict[str, Any]] = []
    x = y = row_height = 0
    for number, panel in enumerate(dashboard.panels, 1):
        if x + panel.width > 24:
            x, y, row_height = 0, y + row_height, 0
        panels.append(
            {
                "id": number,
                "type": panel.kind,
                "title": panel.title,
                "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
                "datasource": source.reference,
                "fieldConfig": {"defaults": {"unit": panel.unit} if panel.unit else {}, "overrides": []},
                "targets": [source.target(panel.sql, panel.form)],
            }
        )
        x, row_height = x + panel.width, max(row_height, panel.height)
    return panels


def files() -> dict[Path, str]:
    """What the folder has to hold."""
    return {
        FOLDER / source.folder / f"{dashboard.name}.json": json.dumps(document(dashboard, source), indent=2) + "\n"
        for source in SOURCES
        for dashboard in DASHBOARDS
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
