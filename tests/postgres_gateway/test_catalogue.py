"""What tools ask of the catalogue: the answers are those of a PostgreSQL with the same tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from postgres_gateway.gateway import Asked
from psycopg import sql
from servers.postgres import PostgresServer

Connection = psycopg.Connection[Any]
LOG_ENTRIES = "SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relname = 'log_entries' AND c.relkind = 'r'"


@pytest.fixture(scope="module")
def same_tables(asked: Asked, postgres_server: PostgresServer) -> Iterator[str]:
    """A database with the tables that the gateway tells of."""
    with postgres_server.database() as url:
        with psycopg.connect(asked.gateway.dsn()) as ours, psycopg.connect(url, autocommit=True) as theirs:
            theirs.execute("CREATE SCHEMA instances")
            columns = ours.execute(
                """SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull
                FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname IN ('public', 'instances') AND a.attnum > 0 ORDER BY 1, 2, a.attnum"""
            ).fetchall()
            tables: dict[tuple[str, str], list[sql.Composable]] = {}
            for schema, table, name, kind, is_required in columns:
                column = sql.SQL(f"{{}} {kind} {'NOT NULL' if is_required else ''}").format(sql.Identifier(name))
                tables.setdefault((schema, table), []).append(column)
            for table_name, parts in tables.items():
                listed = sql.SQL(", ").join(parts)
                theirs.execute(sql.SQL("CREATE TABLE {} ({})").format(sql.Identifier(*table_name), listed))
        assert ("public", "log_entries") in tables
        yield url


@pytest.fixture
def theirs(same_tables: str) -> Iterator[Connection]:
    with psycopg.connect(same_tables, autocommit=True) as opened:
        yield opened


@pytest.mark.parametrize(
    "question",
    [
        """SELECT table_schema, table_name, column_name, ordinal_position, column_default, is_nullable, data_type,
        character_maximum_length, numeric_precision, numeric_scale, datetime_precision, udt_schema, udt_name,
        is_identity, is_generated, collation_name FROM information_schema.columns
        WHERE table_schema IN ('public', 'instances') ORDER BY 1, 2, 4""",
        """SELECT table_schema, table_name, table_type FROM information_schema.tables
        WHERE table_schema IN ('public', 'instances') ORDER BY 1, 2""",
        """SELECT c.relname, c.relkind, c.relnatts, c.relhasindex, c.relpersistence, c.relispartition
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('public', 'instances') ORDER BY 1""",
        """SELECT a.attname, a.atttypid::regtype, a.attlen, a.attnum, a.attndims, a.attnotnull, a.atthasdef,
        a.attidentity, pg_catalog.format_type(a.atttypid, a.atttypmod), pg_catalog.col_description(a.attrelid, a.attnum)
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = 'public.log_entries'::regclass AND a.attnum > 0 ORDER BY 4""",
        "SELECT oid, typname, typlen, typtype, typcategory, typelem FROM pg_type WHERE oid < 10000 ORDER BY 1",
        "SELECT proname, count(*) FROM pg_proc WHERE oid < 10000 GROUP BY 1 ORDER BY 1",
        "SELECT conname, contype FROM pg_constraint c WHERE conrelid = 'public.log_entries'::regclass",
        "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp' ORDER BY 1",
        "SELECT to_regclass('log_entries')::text, to_regclass('nosuch'), 'instances.thread_spans'::regclass::text",
        # tables and their columns of time, as Grafana's query builder looks for them
        """SELECT quote_ident(table_name) FROM information_schema.tables t WHERE quote_ident(table_schema) IN (
            SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
            FROM generate_series(
                array_lower(string_to_array(current_setting('search_path'), ','), 1),
                array_upper(string_to_array(current_setting('search_path'), ','), 1)
            ) AS i, string_to_array(current_setting('search_path'), ',') s
        ) AND EXISTS (SELECT 1 FROM information_schema.columns c WHERE c.table_schema = t.table_schema
            AND c.table_name = t.table_name AND udt_name IN ('timestamptz', 'timestamp')) ORDER BY 1""",
        """SELECT quote_ident(column_name) AS "column", data_type AS "type" FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name = 'log_entries'
        AND data_type IN ('text', 'character', 'character varying') AND column_name <> 'msg' ORDER BY 1""",
        "SELECT current_setting('server_version_num')::int / 100",
    ],
)
def test_what_tools_read_is_the_same(connection: Connection, theirs: Connection, question: str) -> None:
    ours = connection.execute(question).fetchall()
    assert ours == theirs.execute(question).fetchall()
    assert ours or "pg_constraint" in question


# How DBeaver opens a connection and its tree of objects: whole rows of the catalogue beside what describes them, with
# numbers bound as bigint.
DBEAVER: list[tuple[str, list[Any]]] = [
    ("SELECT version()", []),
    ("SET application_name = 'DBeaver - Main'", []),
    ("SET extra_float_digits = 3", []),
    ("SHOW search_path", []),
    ("SELECT current_schema(), session_user", []),
    ("SELECT * FROM pg_catalog.pg_settings WHERE name = %s", ["standard_conforming_strings"]),
    (
        "SELECT string_agg(word, ',') FROM pg_catalog.pg_get_keywords() WHERE catcode <> 'U' AND word <> ALL (%s)",
        [["a"]],
    ),
    (
        "SELECT db.oid, db.* FROM pg_catalog.pg_database db WHERE datallowconn AND NOT datistemplate OR datname = %s",
        ["x"],
    ),
    (
        "SELECT n.oid, n.*, d.description FROM pg_catalog.pg_namespace n LEFT OUTER JOIN pg_catalog.pg_description d "
        "ON d.objoid = n.oid AND d.objsubid = 0 AND d.classoid = 'pg_namespace'::regclass ORDER BY nspname",
        [],
    ),
    (
        "SELECT t.oid, t.*, c.relkind, pg_catalog.format_type(nullif(t.typbasetype, 0), t.typtypmod) AS base, "
        "d.description FROM pg_catalog.pg_type t LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid = t.typelem "
        "LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid = t.typrelid LEFT OUTER JOIN pg_catalog.pg_description d "
        "ON t.oid = d.objoid WHERE t.typname IS NOT NULL AND (c.relkind IS NULL OR c.relkind = 'c') "
        "AND (et.typcategory IS NULL OR et.typcategory <> 'C')",
        [],
    ),
    (
        "SELECT c.oid, c.*, d.description, pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS bound, "
        "pg_catalog.pg_get_partkeydef(c.oid) AS parts FROM pg_catalog.pg_class c LEFT OUTER JOIN "
        "pg_catalog.pg_description d ON d.objoid = c.oid AND d.objsubid = 0 AND d.classoid = 'pg_class'::regclass "
        "WHERE c.relnamespace = %s::bigint AND c.relkind NOT IN ('i', 'I', 'c')",
        [2200],
    ),
    (
        "SELECT c.relname, a.*, pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) AS def, dsc.description, dep.objid "
        "FROM pg_catalog.pg_attribute a INNER JOIN pg_catalog.pg_class c ON a.attrelid = c.oid LEFT OUTER JOIN "
        "pg_catalog.pg_attrdef ad ON a.attrelid = ad.adrelid AND a.attnum = ad.adnum LEFT OUTER JOIN "
        "pg_catalog.pg_description dsc ON c.oid = dsc.objoid AND a.attnum = dsc.objsubid LEFT OUTER JOIN "
        "pg_catalog.pg_depend dep ON dep.refobjid = a.attrelid AND dep.deptype = 'i' AND dep.refobjsubid = a.attnum "
        "WHERE NOT a.attisdropped AND c.relkind NOT IN ('i', 'I', 'c') "
        f"AND c.oid = ({LOG_ENTRIES} LIMIT 1) ORDER BY a.attnum",
        [],
    ),
    (
        "SELECT c.oid, c.*, t.relname, rt.relnamespace, d.description, CASE WHEN c.contype = 'c' THEN "
        "pg_catalog.pg_get_constraintdef(c.oid) END AS def FROM pg_catalog.pg_constraint c INNER JOIN "
        "pg_catalog.pg_class t ON t.oid = c.conrelid LEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid = c.confrelid "
        "LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = c.oid WHERE c.conrelid = %s::bigint",
        [2200],
    ),
    (
        "SELECT i.*, i.indkey AS keys, c.relname, c.relam, tc.relname AS tab, dsc.description, "
        "pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS pred, pg_catalog.pg_get_expr(i.indexprs, i.indrelid, true), "
        "pg_catalog.pg_relation_size(i.indexrelid) FROM pg_catalog.pg_index i INNER JOIN pg_catalog.pg_class c "
        "ON c.oid = i.indexrelid INNER JOIN pg_catalog.pg_class tc ON tc.oid = i.indrelid LEFT OUTER JOIN "
        "pg_catalog.pg_description dsc ON i.indexrelid = dsc.objoid WHERE i.indrelid = %s::bigint ORDER BY c.relname",
        [2200],
    ),
    (
        "SELECT c.oid, pg_catalog.pg_total_relation_size(c.oid) AS total, pg_catalog.pg_relation_size(c.oid) AS size "
        "FROM pg_catalog.pg_class c WHERE c.relnamespace = %s::bigint",
        [2200],
    ),
    (
        "SELECT a.oid, a.*, pd.description FROM pg_catalog.pg_roles a LEFT JOIN pg_catalog.pg_shdescription pd "
        "ON a.oid = pd.objoid",
        [],
    ),
    ("SELECT e.oid, e.* FROM pg_catalog.pg_enum e JOIN pg_catalog.pg_type t ON t.oid = e.enumtypid", []),
    (
        "SELECT p.oid, p.*, pg_catalog.pg_get_expr(p.proargdefaults, 0) FROM pg_catalog.pg_proc p "
        "WHERE p.pronamespace = %s::bigint",
        [2200],
    ),
    (
        "SELECT e.oid, cfg.tables, n.nspname, e.* FROM pg_catalog.pg_extension e JOIN pg_namespace n "
        "ON n.oid = e.extnamespace LEFT JOIN (SELECT array_agg(ns.nspname || '.' || cls.relname) AS tables, x.oid "
        "FROM pg_catalog.pg_extension x JOIN pg_class cls ON cls.oid = ANY (x.extconfig) JOIN pg_namespace ns "
        "ON ns.oid = cls.relnamespace GROUP BY x.oid) cfg ON cfg.oid = e.oid",
        [],
    ),
    ("SELECT x.oid, x.* FROM pg_catalog.pg_trigger x WHERE x.tgrelid = %s::bigint AND NOT tgisinternal", [2200]),
    ("SELECT * FROM information_schema.table_privileges WHERE table_schema = %s AND table_name = %s", ["public", "x"]),
    ("SELECT pg_catalog.has_schema_privilege(%s, 'CREATE'), pg_catalog.obj_description(%s, 'pg_class')", [2200, 2200]),
    ("SELECT pid, usename, state, wait_event FROM pg_catalog.pg_stat_activity WHERE datname = current_database()", []),
]


@pytest.mark.parametrize(("question", "values"), DBEAVER)
def test_what_dbeaver_reads_has_the_same_columns(
    connection: Connection, theirs: Connection, question: str, values: list[Any]
) -> None:
    versions = [each.info.server_version for each in (connection, theirs)]
    assert versions[0] == versions[1]
    described: list[Any] = []
    for each in (connection, theirs):
        cursor = each.execute(question, values, prepare=True)
        described.append(cursor.description and [(column.name, column.type_code) for column in cursor.description])
        if cursor.description:
            cursor.fetchall()
    assert described[0] == described[1]


def test_dbeaver_finds_the_views_and_their_columns(connection: Connection) -> None:
    (schema,) = connection.execute("SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'public'").fetchone()
    question, _ = next(each for each in DBEAVER if "relpartbound" in each[0])
    cursor = connection.execute(question, [schema])
    names = [column.name for column in cursor.description or ()]
    tables = {dict(zip(names, row, strict=True))["relname"] for row in cursor.fetchall()}
    assert {"log_entries", "measures", "processes", "streams", "blocks"} <= tables
    question, _ = next(each for each in DBEAVER if "adbin" in each[0])
    assert {"time", "msg", "level"} <= {row[2] for row in connection.execute(question).fetchall()}


def test_dbeaver_shows_rows_by_pages(asked: Asked) -> None:
    with psycopg.connect(asked.gateway.dsn()) as connection, connection.cursor("page") as cursor:
        cursor.execute("""SELECT x.* FROM public.log_entries x ORDER BY x."time" DESC""")
        assert len(cursor.fetchmany(3)) == 3
        names = [column.name for column in cursor.description or ()]
        assert "msg" in names
    with psycopg.connect(asked.gateway.dsn(), autocommit=True) as connection:
        counted = connection.execute("SELECT COUNT(*) AS cnt FROM public.log_entries x WHERE x.level <= 6").fetchone()
        assert counted is not None
        assert counted[0] > 0
