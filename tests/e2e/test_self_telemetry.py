"""A server that records itself: its audit and its measures are rows of its own lake."""

from __future__ import annotations

import json
from pathlib import Path

from e2e.posting import wait_until
from e2e.serving import serving

from micromegas.config import LakeSettings

KEYS = '[{"name": "ops", "key": "0ps"}]'


def test_the_audit_of_a_query_is_found_by_a_query(tmp_path: Path) -> None:
    settings = LakeSettings(lake_dir=tmp_path / "lake")
    with serving(
        settings, "serve", "--self-telemetry", environment={"MICROMEGAS_API_KEYS": KEYS}, api_key="0ps"
    ) as service:
        marked = "SELECT 42 AS the_marked_query"
        service.query(marked)
        audit = (
            "SELECT l.msg, p.exe FROM log_entries l JOIN processes p ON p.process_id = l.process_id "
            "WHERE l.target = 'flightsql_query_audit' AND l.msg LIKE '%\"SELECT 42 AS the_marked_query\"%'"
        )
        wait_until(lambda: service.query(audit).num_rows == 1, "the audit's line is in the lake")
        (row,) = service.query(audit).to_pylist()
        assert row["exe"] == "micromegas"
        line = json.loads(row["msg"][row["msg"].index("{") :])
        assert (line["sql"], line["service_account_name"], line["output_rows"]) == (marked, "ops", 1)
        measured = "SELECT count(*) AS n FROM measures WHERE name = 'query_duration_total' AND unit = 'ms'"
        wait_until(lambda: service.query(measured)["n"][0].as_py() > 0, "the measures are in the lake")
        assert service.stop() == 0
