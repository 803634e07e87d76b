"""deploy/grafana: its dashboards are what the tool writes, and every query of theirs is answered with rows.

Queries are expanded as the data sources do it: macros as `grafana/pkg/macros` of the plugin and as Grafana's PostgreSQL
data source, variables by Grafana's formats `raw` and `sqlstring`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from cli.example import START_NS, example_lake
from cli.example import grafana_dashboards as tool
from e2e.serving import serving
from postgres_gateway.gateway import RunningGateway
from servers.lakes import LAKE_BACKENDS, local_or_remote_lake

from micromegas.client import Client
from micromegas.config import LakeSettings
from micromegas.lake import Lake
from micromegas.wire import rfc3339_text

ROOT = tool.FOLDER.parents[2]
BEGIN_NS = START_NS - 3_600_000_000_000
# The example's process sent what it tells of in 2026 while the test runs: only a long range holds both.
BEGIN, END = rfc3339_text(BEGIN_NS), "2125-01-01T00:00:00Z"
INTERVAL_S = 60
SHOWN = (pa.types.is_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_timestamp)
PAGES = sorted(tool.FOLDER.rglob("*.json"))

Expand = Callable[[str], str]


def _macros(patterns: dict[str, str]) -> Expand:
    def expand(sql: str) -> str:
        for pattern, replacement in patterns.items():
            sql = re.sub(pattern, replacement, sql)
        return sql

    return expand


def flight_macros(begin: str, end: str) -> Expand:
    return _macros(
        {
            r"\$__(?:timeFilter|timeRange)\((\w+)\)": rf"\1 >= '{begin}' AND \1 <= '{end}'",
            r"\$__dateBin\((\w+)\)": (
                rf"date_bin(interval '{INTERVAL_S} second', \1, timestamp '1970-01-01T00:00:00Z')"
            ),
        }
    )


def postgres_macros(begin: str, end: str) -> Expand:
    return _macros(
        {
            r"\$__timeFilter\((\w+)\)": rf"\1 BETWEEN '{begin}' AND '{end}'",
            r"\$__timeGroup\((\w+), \$__interval\)": rf"floor(extract(epoch from \1)/{INTERVAL_S})*{INTERVAL_S}",
        }
    )


MACROS = {tool.FLIGHT.kind: flight_macros, tool.POSTGRES.kind: postgres_macros}


def sqlstring(values: list[str]) -> str:
    return ",".join("'" + value.replace("'", "''") + "'" for value in values)


@dataclass(frozen=True)
class Answer:
    """What a data source gets: names of columns, kinds of those that aren't told by PostgreSQL's types, rows."""

    names: list[str]
    kinds: list[pa.DataType]
    rows: list[tuple[Any, ...]]


Ask = Callable[[str, bool], Answer]


@pytest.fixture(scope="module", params=LAKE_BACKENDS)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeSettings]:
    """The lake of the documentation's examples, on each back end."""
    with local_or_remote_lake(request.param, tmp_path_factory.mktemp("grafana"), request) as settings:
        with example_lake(settings):
            pass
        yield settings


@pytest.fixture(scope="module")
def ask_flight(example: LakeSettings) -> Iterator[Ask]:
    with (
        serving(example) as service,
        Client(f"grpc://127.0.0.1:{service.flight_port}") as client,
    ):

        def ask(sql: str, ranged: bool) -> Answer:
            table = client.query(sql, *((BEGIN, END) if ranged else ()))
            return Answer(table.schema.names, table.schema.types, list(zip(*table.to_pydict().values(), strict=True)))

        yield ask


@pytest.fixture(scope="module")
def ask_postgres(example: LakeSettings) -> Iterator[Ask]:
    with (
        Lake.open(example) as lake,
        RunningGateway(lake) as gateway,
        psycopg.connect(gateway.dsn(), autocommit=True) as connection,
    ):

        def ask(sql: str, ranged: bool) -> Answer:
            # Grafana speaks the extended protocol
            cursor = connection.execute(sql.encode(), prepare=True)
            assert cursor.description is not None
            return Answer([each.name for each in cursor.description], [], cursor.fetchall())

        yield ask


@pytest.fixture(params=PAGES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def page(request: pytest.FixtureRequest, example: LakeSettings) -> Page:
    source = request.param.parent.name
    return Page(request.param, request.getfixturevalue(f"ask_{source}"))


class Page:
    """A stored dashboard and how its queries are asked."""

    def __init__(self, path: Path, ask: Ask) -> None:
        self.document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self._ask = ask
        self._expand = MACROS[self.document["panels"][0]["datasource"]["type"]](BEGIN, END)
        self._values: dict[str, list[str]] = {}
        for variable in self.document["templating"]["list"]:
            self._values[variable["name"]] = self._choice(variable)

    def _choice(self, variable: dict[str, Any]) -> list[str]:
        """What is chosen above the panels; `All` is every value."""
        if variable["type"] != "query":
            chosen = variable["current"]["value"]
            assert isinstance(chosen, str)
            return ["6"] if variable["type"] == "custom" else [chosen]
        assert variable["current"]["value"] == ["$__all"]
        values = [row[0] for row in self.ask(variable["query"], ranged=True).rows]
        assert values
        assert all(isinstance(value, str) for value in values)
        return values

    def ask(self, sql: str, *, ranged: bool) -> Answer:
        for name, values in self._values.items():
            sql = sql.replace(f"${{{name}:sqlstring}}", sqlstring(values)).replace(f"${{{name}}}", ",".join(values))
        sql = self._expand(sql)
        assert "$" not in sql, "a variable or macro that isn't known"
        return self._ask(sql, ranged)

    def targets(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for panel in self.document["panels"]:
            for target in panel["targets"]:
                yield panel["title"], target


def test_the_dashboards_are_those_of_the_tool() -> None:
    stored = {path: path.read_text(encoding="utf-8") for path in PAGES}
    assert stored == tool.files(), "deploy/grafana/dashboards is stale: python tools/grafana_dashboards.py"


def test_every_query_is_answered(page: Page) -> None:
    for title, target in page.targets():
        answer = page.ask(target.get("query") or target["rawSql"], ranged=target.get("timeFilter", False))
        assert answer.rows, title
        assert any(value is not None for value in answer.rows[0]), title
        for name, kind in zip(answer.names, answer.kinds, strict=False):
            assert any(is_known(kind) for is_known in SHOWN), f"{title}: the plugin shows {name} of {kind} empty"
        if target["format"] == "time_series":
            assert answer.names[0] == "time"
            assert all(row[0] is not None for row in answer.rows)
        if title == "Lines":
            assert answer.names[:2] == ["time", "body"]
            assert len(answer.rows) == 6


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_panels_lie_side_by_side_in_the_grid(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_what_is_provisioned_is_what_dashboards_ask() -> None:
    text = (ROOT / "deploy/grafana/provisioning/datasources/micromegas.yaml").read_text(encoding="utf-8")
    uids, kinds = (re.findall(rf"^    {key}: (\S+)", text, re.MULTILINE) for key in ("uid", "type"))
    asked = {
        (source["uid"], source["type"])
        for path in PAGES
        for document in [json.loads(path.read_text(encoding="utf-8"))]
        for source in (
            [panel["datasource"] for panel in document["panels"]]
            + [each["datasource"] for each in document["templating"]["list"] if "datasource" in each]
        )
    }
    assert asked == set(zip(uids, kinds, strict=True))
    folders = (ROOT / "deploy/grafana/provisioning/dashboards/micromegas.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"/dashboards/(\w+)$", folders, re.MULTILINE)) == {path.parent.name for path in PAGES}
    assert len({json.loads(path.read_text(encoding="utf-8"))["uid"] for path in PAGES}) == len(PAGES) == 6
