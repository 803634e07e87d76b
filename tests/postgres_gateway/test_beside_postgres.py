"""The gateway beside a PostgreSQL with the same rows: whatever is said to both gets the same answer from both."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from postgres_gateway.beside import Both, said, say_at_once
from postgres_gateway.gateway import Asked

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


said_together = st.lists(
    st.one_of(said_in_transactions.filter(lambda text: text != "nonsense"), st.just("SELECT 1/0")),
    min_size=2,
    max_size=6,
).map("; ".join)


@settings(max_examples=40, deadline=None)
@example(texts=["SET micromegas.range_end = '2200-01-01'; SELECT nosuch FROM log_entries", "SHOW micromegas.range_end"])
@example(texts=["SET micromegas.range_end = '2200-01-01'; COMMIT; SELECT 1/0", "SHOW micromegas.range_end"])
@example(texts=["SET micromegas.range_end = '2200-01-01'; BEGIN; SELECT 1", "ROLLBACK", "SHOW micromegas.range_end"])
@example(texts=["DECLARE c CURSOR FOR SELECT count(*) FROM log_entries; FETCH c", "FETCH c"])
@example(texts=["DECLARE c CURSOR WITH HOLD FOR SELECT count(*) FROM log_entries; SELECT 1/0", "FETCH c"])
@example(texts=["SELECT 1; PREPARE TRANSACTION 'x'", "SELECT 1; COMMIT PREPARED 'x'", "SELECT 1; COMMIT AND CHAIN"])
@given(texts=st.lists(st.one_of(said_in_transactions, said_together), min_size=1, max_size=5))
def test_statements_of_one_text_are_one_transaction(long_sessions: Both, texts: list[str]) -> None:
    both = long_sessions
    both.forget()
    for text in [*texts, "SHOW micromegas.range_end", "FETCH c", "ROLLBACK"]:
        both.say(text)


@pytest.mark.parametrize("fails", ["SELECT nosuch FROM log_entries", "SELECT nosuch", "DELETE FROM log_entries"])
@pytest.mark.parametrize("setting", ["micromegas.range_end", "search_path"])
def test_messages_up_to_a_sync_are_one_transaction(both: Both, setting: str, fails: str) -> None:
    shown = both.say(f"SHOW {setting}") if setting == "search_path" else ("SHOW", [(b"",)])
    for each in (both.ours, both.theirs):
        with pytest.raises(psycopg.Error):
            say_at_once(each, f"SET {setting} = '2200-01-01'", fails)
        assert said(each.pgconn, f"SHOW {setting}").rows == shown[1]
        assert said(each.pgconn, "SELECT count(*) > 0 FROM log_entries").rows == [(b"t",)]


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
