"""A program is killed; the next start sends what it left: each event is in SQL once, even if that is killed as well."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from deadlines import killed_after, started
from e2e.answers import properties_of, records
from e2e.serving import Service
from record.killed import Found, Killed
from spools import forget_buffers

from micromegas.config import LakeSettings

SEEDS = [int(seed) for seed in os.environ.get("MICROMEGAS_TEST_KILL_SEEDS", "1").split()]
RECOVER = """
import os, sys, time
import micromegas as mm

mm.init(process_name="recovers", system_metrics=False)
deadline = time.monotonic() + 60
def others():
    return [name for name in os.listdir(os.environ["MICROMEGAS_SPOOL_DIR"]) if name != mm.status()["process_id"]]
mm.log.info("are you there")
mm.flush(30)
print("begun", flush=True)
while others() and time.monotonic() < deadline:
    time.sleep(0.02)
assert not others(), others()
"""


def recover(service: Service, spool: Path, seconds: float | None) -> None:
    """To the end, or killed after so many seconds."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")} | {
        "MICROMEGAS_TELEMETRY_URL": f"http://127.0.0.1:{service.http_port}",
        "MICROMEGAS_SPOOL_DIR": str(spool),
    }
    with started([sys.executable, "-c", RECOVER], env=environment, stdout=subprocess.PIPE) as process:
        with killed_after(process, 90):
            assert process.stdout.readline() == b"begun\n"
        if seconds is None:
            assert process.wait(90) == 0
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)


def found_in(service: Service, seed: int) -> Found:
    def ask(sql: str) -> list[dict[str, object]]:
        return records(service.query(sql, ranged=True))

    mine = [
        row["process_id"]
        for row in ask("SELECT process_id, properties FROM processes")
        if dict(properties_of(row["properties"])).get("seed") == str(seed)  # type: ignore[arg-type]
    ]
    assert len(mine) == 2  # it and its child
    found = Found()
    for process_id in mine:
        own = f"process_id = '{process_id}'"
        logs = ask(f"SELECT msg FROM log_entries WHERE {own} ORDER BY time")
        for row in logs:
            found.add_log(str(row["msg"]))
        assert sum("the process ended without shutdown" in str(row["msg"]) for row in logs) == 1
        for row in ask(f"SELECT name, value FROM measures WHERE {own}"):
            found.add_measure(str(row["name"]), float(str(row["value"])))
        for row in ask(f"SELECT event_type, name FROM view_instance('async_events', '{process_id}')"):
            found.spans[row["event_type"] == "begin", str(row["name"])] += 1
        for stream in ask(f"SELECT stream_id FROM streams WHERE {own} AND array_has(tags, 'cpu')"):
            spans = ask(f"SELECT name FROM view_instance('thread_spans', '{stream['stream_id']}') WHERE depth > 0")
            for row in spans:  # a row is a begin and an end
                found.spans[True, str(row["name"])] += 1
                found.spans[False, str(row["name"])] += 1
    return found


@pytest.mark.parametrize("there", [True, False], ids=["with a server", "without a server"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_recovered_session_is_in_sql_once(folder_lake: LakeSettings, tmp_path: Path, seed: int, there: bool) -> None:
    """`there`: whether the server was, while the program that is killed ran."""
    pace = random.Random(seed)
    spool = tmp_path / "spool"
    with Service("serve", folder_lake) as service:
        if there:
            service.start()
        killed = Killed(f"http://127.0.0.1:{service.http_port}", tmp_path, seed, pace.random() * 0.5)
        if not there:
            service.start()
        for _ in range(3):
            recover(service, spool, pace.random() * 0.1)
        recover(service, spool, None)
        left = os.listdir(spool)
        forget_buffers(spool)
        assert left == []
        killed.check(found_in(service, seed))
        assert records(service.query("SELECT * FROM list_block_errors()", ranged=True)) == []
