"""A site's file of views, by flag and by variable, in the real program."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from e2e.posting import assert_all_accepted, post_all
from e2e.recordings import recording
from e2e.serving import FREE_PORTS, PROGRAM, Service

from micromegas.config import LakeSettings

VIEWS = """
-- @view lines
-- @time hour
-- @transform
SELECT date_trunc('hour', time) AS hour, count(*) AS n FROM log_entries GROUP BY 1
-- @merge
SELECT hour, sum(n) AS n FROM parts GROUP BY 1

-- @view wrong
-- @time time
-- @transform
SELECT time, colour FROM log_entries
-- @merge
SELECT * FROM parts
"""


@pytest.mark.parametrize("by_flag", [True, False])
def test_a_file_of_views_is_read_and_a_wrong_view_is_told(tmp_path: Path, by_flag: bool) -> None:
    file = tmp_path / "site.sql"
    file.write_text(VIEWS, encoding="utf-8")
    settings = LakeSettings(lake_dir=tmp_path / "lake")
    arguments = ("--views", str(file)) if by_flag else ()
    environment = {} if by_flag else {"MICROMEGAS_VIEWS": str(file)}
    with Service("serve", settings, arguments, environment=environment) as service:
        service.start()
        requests = recording("unreal_synth").requests
        assert_all_accepted(requests, post_all(service.http_port, requests))
        (lines,) = service.query("SELECT sum(n) AS n FROM lines").to_pylist()
        (entries,) = service.query("SELECT count(*) AS n FROM log_entries").to_pylist()
        assert lines == entries
        assert lines["n"] > 0
        assert "site.sql line 12: view wrong: transform: " in service.log()


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_can_t_be_read_is_no_start(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "site.sql"
    if content is not None:
        file.write_bytes(content)
    done = subprocess.run(
        [
            str(PROGRAM),
            "query-server",
            "--lake",
            str(tmp_path / "lake"),
            *FREE_PORTS[2:],
            "--views",
            str(file),
        ],
        capture_output=True,
        timeout=120,
        check=False,
        env={key: value for key, value in os.environ.items() if not key.startswith("MICROMEGAS_")},
    )
    assert done.returncode == 1
    assert b"the file of views can't be read" in done.stderr
    assert b"Traceback" not in done.stderr
