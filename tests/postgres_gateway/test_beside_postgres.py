"""The gateway beside a PostgreSQL with the same rows: whatever is said to both gets the same answer from both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from postgres_gateway.gateway import Asked
from psycopg import sql
from psycopg.pq import DiagnosticField
from servers.postgres import PostgresServer

Answer = tuple[str, list[tuple[bytes | None, ...]]]


class Both:
    """A session with each."""

    def __init__(self, ours: psycopg.Connection[Any], theirs: psycopg.Connection[Any]) -> None:
        self.ours, self.theirs = ours, theirs
        self._ours, self._theirs = ours.pgconn, theirs.pgconn

    def say(self, text: str) -> Answer:
        ours, theirs = said(self._ours, text), said(self._theirs, text)
        assert ours == theirs, text
        assert self._ours.transaction_status == self._theirs.transaction_status, text
        return ours

    def forget(self) -> None:
        """Everything that was said before."""
        for text in ("ROLLBACK", "RESET ALL", "DEALLOCATE ALL", "CLOSE ALL"):
            said(self._ours, text)
            said(self._theirs, text)

    def copied(self, text: str) -> bytes:
        """What COPY gives."""
        contents: list[bytes] = []
        for connection in (self.ours, self.theirs):
            with connection.cursor() as cursor, cursor.copy(text.encode()) as copy:
                contents.append(b"".join(map(bytes, copy)))
        assert contents[0] == contents[1], text
        return contents[0]


def said(connection: Any, text: str) -> Answer:
    """The tag or the SQLSTATE, and rows."""
    result = connection.exec_(text.encode())
    state = result.error_field(DiagnosticField.SQLSTATE)
    told = (state or result.command_status or b"").decode()
    rows = [tuple(result.get_value(row, column) for column in range(result.nfields)) for row in range(result.ntuples)]
    return told, rows


@pytest.fixture(scope="module")
def same_rows(asked: Asked, postgres_server: PostgresServer) -> Iterator[str]:
    """A database with the logs of one process."""
    database = postgres_server.create_database()
    with (
        psycopg.connect(asked.gateway.dsn()) as ours,
        psycopg.connect(postgres_server.url(database), autocommit=True) as theirs,
    ):
        theirs.execute('CREATE TABLE log_entries (time timestamptz, process_id text, level int, msg text COLLATE "C")')
        rows = ours.execute("SELECT time, process_id, level, msg FROM log_entries").fetchall()
        theirs.cursor().executemany("INSERT INTO log_entries VALUES (%s, %s, %s, %s)", rows)
        for setting in ("timezone TO 'UTC'", "default_transaction_read_only TO on"):
            theirs.execute(sql.SQL(f"ALTER DATABASE {{}} SET {setting}").format(sql.Identifier(database)))
    yield postgres_server.url(database)
    postgres_server.drop_database(database)


@pytest.fixture(scope="module")
def long_sessions(asked: Asked, same_rows: str) -> Iterator[Both]:
    """For what is said very often, and tidies up."""
    with (
        psycopg.connect(asked.gateway.dsn(), autocommit=True) as ours,
        psycopg.connect(same_rows, autocommit=True) as theirs,
    ):
        yield Both(ours, theirs)


@pytest.fixture
def both(asked: Asked, same_rows: str) -> Iterator[Both]:
    with (
        psycopg.connect(asked.gateway.dsn(), autocommit=True) as ours,
        psycopg.connect(same_rows, autocommit=True) as theirs,
    ):
        yield Both(ours, theirs)


counts = st.integers(-9, 9)
directions = st.one_of(
    st.sampled_from(
        ["", "NEXT", "PRIOR", "FIRST", "LAST", "ALL", "FORWARD", "BACKWARD", "FORWARD ALL", "BACKWARD ALL"]
    ),
    st.builds("{} {}".format, st.sampled_from(["", "FORWARD", "BACKWARD", "ABSOLUTE", "RELATIVE"]), counts),
)
moves = st.tuples(st.sampled_from(["FETCH", "MOVE"]), directions)


@settings(max_examples=60, deadline=None)
@example(options=("NO SCROLL", "CURSOR"), of_lake=True, said_of_it=[("MOVE", "BACKWARD 0"), ("FETCH", "BACKWARD 0")])
@given(
    options=st.tuples(
        st.sampled_from(["SCROLL", "NO SCROLL"]), st.sampled_from(["CURSOR WITH HOLD", "CURSOR", "CURSOR WITHOUT HOLD"])
    ),
    of_lake=st.booleans(),
    said_of_it=st.lists(moves, min_size=1, max_size=8),
)
def test_cursors_go_where_those_of_postgresql_go(
    asked: Asked, long_sessions: Both, options: tuple[str, str], of_lake: bool, said_of_it: list[tuple[str, str]]
) -> None:
    both = long_sessions
    both.forget()
    question = "SELECT n, 'x' || n FROM generate_series(1, 7) n"
    if of_lake:
        question = f"SELECT level, msg FROM log_entries WHERE process_id = '{asked.process_id}' ORDER BY msg"
    both.say("BEGIN")
    both.say(f"DECLARE c {' '.join(options)} FOR {question}")
    if "WITH HOLD" in options[1]:
        both.say("COMMIT")
        both.say("BEGIN")
    for verb, direction in said_of_it:
        both.say("SAVEPOINT s")
        told, _ = both.say(f"{verb} {direction} FROM c")
        if not told.startswith(verb):
            # where a cursor stands that has failed is nobody's promise
            break


settings_said = st.sampled_from(["SET", "SET LOCAL", "SET SESSION"])
said_in_transactions = st.one_of(
    st.sampled_from(
        [
            "BEGIN",
            "BEGIN READ ONLY",
            "START TRANSACTION",
            "COMMIT",
            "END",
            "COMMIT AND CHAIN",
            "ROLLBACK AND CHAIN",
            "ABORT",
            "ROLLBACK",
            "SAVEPOINT a",
            "SAVEPOINT b",
            "ROLLBACK TO a",
            "ROLLBACK WORK TO SAVEPOINT b",
            "RELEASE a",
            "RELEASE SAVEPOINT b",
            "SHOW micromegas.range_end",
            "SHOW transaction_read_only",
            "SELECT count(*) FROM log_entries",
            "SELECT nosuch FROM log_entries",
            "SELECT nosuch",
            "SELECT count(*) FROM log_entries; SELECT 1/0",
            "RESET micromegas.range_end",
            "RESET ALL",
            "PREPARE p AS SELECT 1",
            "DEALLOCATE p",
            "EXECUTE p",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "DECLARE c CURSOR FOR SELECT count(*) FROM log_entries",
            "FETCH c",
            "nonsense",
            "",
        ]
    ),
    st.builds("{} micromegas.range_end = '{}'".format, settings_said, st.sampled_from(["2200-01-01", "2201-01-01"])),
)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(said_in_transactions, min_size=1, max_size=14))
def test_transactions_are_those_of_postgresql(long_sessions: Both, texts: list[str]) -> None:
    both = long_sessions
    both.forget()
    for text in [*texts, "ROLLBACK"]:
        both.say(text)


def test_transactions_have_the_isolation_that_they_were_begun_with(both: Both) -> None:
    for text in (
        "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY",
        "SHOW transaction_isolation",
        "COMMIT AND CHAIN",
        "SHOW transaction_isolation",
        "COMMIT",
        "BEGIN",
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "SELECT count(*) FROM log_entries",
        "SHOW transaction_isolation",
        "PREPARE TRANSACTION 'x'",
        "ROLLBACK PREPARED 'x'",
    ):
        both.say(text)


@pytest.mark.parametrize(
    ("prepared", "executed"),
    [
        ("p AS SELECT count(*) FROM log_entries", ["p", "p()", "p(1)", "p(nosuch)"]),
        (
            "p (int, text) AS SELECT level, msg FROM log_entries WHERE level >= $1 AND msg <> $2 ORDER BY msg, level",
            [
                "p(0, 'hello')",
                "p(1 + 1, upper('x'))",
                "p(NULL, 'x')",
                "p(-1, (('a,b')) || $$)$$)",
                "p(0)",
                "p(0, 'x', 2)",
            ],
        ),
        (
            "p AS SELECT msg FROM log_entries WHERE time >= $1 ORDER BY msg",
            ["p(now() - interval '1 day')", "p('2000-01-01')", "p('no time')", "p(now() /* all */ -- of it\n)"],
        ),
        ("p (timestamp with time zone) AS SELECT msg FROM log_entries WHERE time < $1 ORDER BY 1", ["p('2200-01-01')"]),
        ("p (unknown, numeric(10, 2)) AS SELECT $1 || $2::text", ["p('a', 1.25)", "p('a', 'b')"]),
        ('"P q" AS SELECT n FROM generate_series(1, $1) n', ['"P q"(3)', "\"P q\"('3')", "p", '"P q"(nosuch)']),
        ("p AS VALUES (1, NULL), (2, 'x')", ["p"]),
        ("p AS SELECT", ["p"]),
        ("p (nosuchtype) AS SELECT $1", ["p(1)"]),
        ("p () AS SELECT 1", ["p"]),
        ("p (int,) AS SELECT 1", ["p"]),
        ("p AS COMMIT", ["p"]),
        ("p AS", ["p"]),
        ("p", ["p"]),
    ],
)
def test_statements_that_sql_prepares(both: Both, prepared: str, executed: list[str]) -> None:
    both.say(f"PREPARE {prepared}")
    for call in executed:
        both.say(f"EXECUTE {call}")
    both.say("BEGIN")
    both.say(f"PREPARE {prepared}")
    both.say("ROLLBACK")
    both.say("DEALLOCATE p")
    both.say("DEALLOCATE PREPARE ALL")
    both.say("EXECUTE p")
    both.say("RESET ALL")


@pytest.mark.parametrize(
    "options",
    [
        "",
        "BINARY",
        "WITH (FORMAT binary)",
        "(FORMAT 'binary', ENCODING 'utf-8')",
        "WITH CSV HEADER",
        "(FORMAT csv, NULL 'NULL', FORCE_QUOTE *)",
        "(FORMAT csv, DELIMITER E'\\t', QUOTE '''', ESCAPE '\\')",
        "DELIMITER '|' NULL 'none'",
        "(FORMAT text, DELIMITER ',', HEADER false)",
    ],
)
def test_copies_are_byte_for_byte_those_of_postgresql(both: Both, options: str) -> None:
    question = "SELECT time, level, msg, process_id, NULL AS nothing FROM log_entries ORDER BY msg, level"
    assert b"hello" in both.copied(f"COPY ({question}) TO STDOUT {options}")
    assert both.copied(f"COPY (SELECT n, n / 3.0 FROM generate_series(1, 5) n) TO STDOUT {options}")


@pytest.mark.parametrize(
    "options",
    ["(FORMAT binary, HEADER)", "(FORMAT binary, DELIMITER ',')", "(FORMAT nosuch)", "(nosuch)", "(DELIMITER 'ab')"],
)
def test_copies_that_can_not_be(both: Both, options: str) -> None:
    both.say(f"COPY (SELECT msg FROM log_entries) TO STDOUT {options}")


@pytest.mark.parametrize(
    "question",
    [
        "floor(extract(epoch from time)/60)*60 AS time, count(*) FROM log_entries WHERE {filter} GROUP BY 1 ORDER BY 1",
        "floor(extract(epoch from time)) AS time, msg AS text FROM log_entries WHERE {filter} ORDER BY 2, level",
        "count(*) FROM log_entries WHERE time >= '2001-01-01T00:00:00Z' AND time <= '2199-01-01T00:00:00.123Z'",
        "count(*) FROM log_entries WHERE extract(epoch from time) >= 1 AND extract(epoch from time) <= 4000000000",
        "date_trunc('day', time) AS time, level, count(*) FROM log_entries WHERE {filter} GROUP BY 1, 2 ORDER BY 1, 2",
        "date_bin('5 minutes', time, '2001-01-01') AS time, sum(level) FROM log_entries GROUP BY 1 ORDER BY 1",
        "DISTINCT process_id AS __text, process_id AS __value FROM log_entries ORDER BY 1",
        "msg FROM log_entries WHERE process_id IN ('a','b') OR level IN (4) ORDER BY msg LIMIT 1000",
        "count(*) FROM log_entries WHERE msg ILIKE '%HELLO%' OR msg ~ '^E.*}}$' OR msg ~* 'null'",
    ],
)
def test_grafanas_macros_mean_the_same(both: Both, question: str) -> None:
    between = "time BETWEEN '2001-01-01T00:00:00Z' AND '2199-01-01T00:00:00.123Z'"
    told, rows = both.say(f"SELECT {question.format(filter=between)}")
    assert told.startswith("SELECT")
    assert rows
