"""Recording for a server that wants an API key: what the right one, a wrong one and none come to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.answers import records
from e2e.serving import Service, serving

from micromegas.config import LakeSettings

KEY, WRONG = "r1ght-k3y", "wr0ng-k3y"
PROGRAM = """
import json, sys
import micromegas as mm

process_id = mm.init(process_name=sys.argv[1], flush_period=0.05)
mm.log.info("from %s", sys.argv[1])
mm.metric("m").record(1)
with mm.span("s"):
    pass
has_arrived = mm.flush(float(sys.argv[2]))
print(json.dumps({"process_id": process_id, "has_arrived": has_arrived, "status": mm.status()}))
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    keys = json.dumps([{"name": "programs", "key": KEY}, {"name": "others", "key": "an0ther"}])
    settings = LakeSettings(lake_dir=tmp_path_factory.mktemp("lake"))
    with serving(settings, environment={"MICROMEGAS_API_KEYS": keys}, api_key=KEY) as started:
        yield started


def run(service: Service, name: str, key: str | None, patience: float, spool: str) -> tuple[dict[str, Any], str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")} | {
        "MICROMEGAS_TELEMETRY_URL": f"http://127.0.0.1:{service.http_port}",
        "MICROMEGAS_SPOOL_DIR": spool,
        "MICROMEGAS_CONSOLE": "warn",
    }
    if key is not None:
        environment["MICROMEGAS_INGESTION_API_KEY"] = key
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, str(patience)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout), done.stderr


def messages(service: Service, name: str) -> list[str]:
    sql = f"SELECT msg FROM log_entries WHERE exe = '{name}' AND target = '__main__'"
    return [row["msg"] for row in records(service.query(sql, ranged=True))]


def test_the_right_key(service: Service, tmp_path: Any) -> None:
    said, told = run(service, "right", KEY, 30, str(tmp_path / "spool"))
    assert (said["has_arrived"], said["status"]["lost_events"], said["status"]["last_error"]) == (True, 0, None)
    assert told == ""
    process = f"process_id = '{said['process_id']}'"
    assert messages(service, "right") == ["from right"]
    measures = service.query(f"SELECT value FROM measures WHERE {process} AND name = 'm'", ranged=True)
    assert records(measures) == [{"value": 1.0}]
    streams = service.query(f"SELECT stream_id FROM streams WHERE {process} AND array_has(tags, 'cpu')", ranged=True)
    [stream_id] = [row["stream_id"] for row in records(streams)]
    spans = service.query(f"SELECT name FROM view_instance('thread_spans', '{stream_id}') WHERE depth > 0", ranged=True)
    assert records(spans) == [{"name": "s"}]


@pytest.mark.parametrize(("name", "key"), [("wrong", WRONG), ("none", None)])
def test_whoever_is_not_let_in_is_told(service: Service, tmp_path: Any, name: str, key: str | None) -> None:
    spool = tmp_path / "spool"
    said, told = run(service, name, key, 30, str(spool))
    status = said["status"]
    assert "401" in status["last_error"]
    assert (status["sent_requests"], status["sent_events"]) == (0, 0)
    # Another key can't come in this process: what it would have sent is counted, by class.
    refused = status["losses"]["refused"]
    assert refused["spans"] == 2
    assert refused["measures"] >= 1
    assert refused["logs"] >= 1
    assert status["lost_events"] == sum(refused.values())
    assert "401" in told  # on the console, for the log does not arrive
    assert WRONG not in told + json.dumps(said)
    assert KEY not in told + json.dumps(said)
    assert messages(service, name) == []
    assert list(spool.iterdir()) == []
