"""A server that records itself: its audit and its measures are rows of its own lake, whichever of its processes
answers. None of them outlives the first."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from e2e.posting import wait_until
from e2e.serving import serving

from micromegas.config import LakeSettings

KEYS = '[{"name": "ops", "key": "0ps"}]'


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def is_gone(pid: int) -> bool:
    """Nothing of it runs; somebody may still have to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("workers", [0, 2])
def test_the_audit_of_a_query_is_found_by_a_query(tmp_path: Path, workers: int) -> None:
    settings = LakeSettings(lake_dir=tmp_path / "lake")
    arguments = ("--self-telemetry", "--workers", str(workers))
    with serving(settings, "serve", *arguments, environment={"MICROMEGAS_API_KEYS": KEYS}, api_key="0ps") as service:
        assert len(children(service.pid)) == workers
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
        processes = children(service.pid)
        assert service.stop() == 0
        assert all(map(is_gone, processes))


def test_workers_end_with_their_supervisor_whatever_that_dies_of(tmp_path: Path) -> None:
    with serving(LakeSettings(lake_dir=tmp_path / "lake"), "query-server", "--workers", "2") as service:
        frozen, other = children(service.pid)
        os.kill(frozen, signal.SIGSTOP)  # one that could hear nothing
        service.kill()
        wait_until(lambda: is_gone(frozen) and is_gone(other), "the workers are gone")
