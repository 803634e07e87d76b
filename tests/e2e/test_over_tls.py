"""A server of which nothing is said in clear: a program that trusts its authority records into it, the server records
itself, whatever its certificate is for, and both are found by SQL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from e2e.posting import wait_until
from e2e.serving import serving
from servers.authority import Authority

from micromegas.config import LakeSettings

PROGRAM = """
import micromegas as mm
mm.init(process_name="secret")
mm.log.info("said in secret")
print(mm.flush(30), mm.status()["last_error"])
"""


def recorded(port: int, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    environment |= {"MICROMEGAS_TELEMETRY_URL": f"https://localhost:{port}", "MICROMEGAS_CONSOLE": "off", **variables}
    program = [sys.executable, "-c", PROGRAM]
    return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout


def test_from_a_program_to_sql(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pem = str(authority.issue("localhost"))
    tls = ("--tls-certificate", pem, "--tls-key", pem, "--self-telemetry")
    spool = {"MICROMEGAS_SPOOL_DIR": str(tmp_path / "spool")}
    with serving(LakeSettings(lake_dir=tmp_path / "lake"), "serve", *tls, ca_file=authority.file) as service:
        assert f"https://127.0.0.1:{service.http_port}" in service.log()
        assert recorded(service.http_port, MICROMEGAS_CA_FILE=authority.file, **spool) == "True None\n"
        said = "SELECT msg FROM log_entries WHERE exe = 'secret' AND target = '__main__'"
        assert service.query(said, ranged=True)["msg"].to_pylist() == ["said in secret"]
        itself = "SELECT count(*) AS n FROM processes WHERE exe = 'micromegas'"
        wait_until(lambda: service.query(itself)["n"].to_pylist() == [1], "the server is in its own lake")
        assert service.stop() == 0
