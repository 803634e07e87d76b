"""PostgreSQL's own JDBC driver, which DBeaver, Metabase and most of the world's BI tools are built on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from postgres_gateway.gateway import Asked

DRIVER = "org.postgresql:postgresql:42.7.7"
CACHE = Path(__file__).parents[2] / "build" / "java"


@pytest.fixture(scope="session")
def driver() -> Path:
    """The driver's archive, fetched once into a folder that git ignores."""
    if shutil.which("javac") is None or shutil.which("mvn") is None:
        pytest.skip("a JDK and Maven are needed for the JDBC driver (Debian: default-jdk-headless, maven)")
    archive = CACHE / "postgresql-42.7.7.jar"
    if not archive.exists():
        command = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={DRIVER}", f"-DoutputDirectory={CACHE}"]
        fetched = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if fetched.returncode != 0 or not archive.exists():
            pytest.skip(f"Maven could not fetch {DRIVER}: {fetched.stdout.strip()[-300:]}")
    return archive


@pytest.fixture(scope="session")
def program(driver: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The compiled probe, as a command without its arguments."""
    classes = tmp_path_factory.mktemp("classes")
    source = Path(__file__).with_name("JdbcProbe.java")
    subprocess.run(["javac", "-d", classes, source], check=True, timeout=300)
    return ["java", "-cp", f"{driver}:{classes}", "JdbcProbe"]


def test_everything_that_programs_do(asked: Asked, program: list[str]) -> None:
    address = f"jdbc:postgresql://127.0.0.1:{asked.gateway.port}/micromegas"
    ran = subprocess.run(
        [*program, address, asked.process_id], capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0] == "valid true"
    assert lines.count(f"prepared {len(asked.messages)}") == 5
    assert lines.count("filtered true") == 3
    assert (
        lines.count('types true true true true 1.5 {"a",NULL} MiXed timestamptz')
        + lines.count("types true true true true 1.5 {a,NULL} MiXed timestamptz")
        == 4
    ), lines
    assert f"pieces {len(asked.messages)}" in lines
    assert [line for line in lines if line.startswith("table")] == ["table log_entries TABLE", "table log_stats TABLE"]
    columns = dict(line.split()[1:] for line in lines if line.startswith("column"))
    assert columns["time"] == "timestamptz"
    assert columns["properties"] == "jsonb"
    assert lines.count("listed true") == 7
    assert [line for line in lines if line.startswith("state")] == ["state 42703", "state 57014"]
    assert lines[-1] == "still 1"
