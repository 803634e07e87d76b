"""Rules that refuse queries: what they refuse, whom they never refuse, and conditions that are none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from query.asking import ask, column, one, refusal
from query.conftest import SETTINGS
from query.traffic import MadeTraffic

from micromegas.config import LakeSettings, RetentionPolicies, StreamPolicy
from micromegas.daemon.selection import Selection
from micromegas.lake import Lake
from micromegas.query import QueryEngine, QueryError
from micromegas.query.deny_list import MAX_RULES, DenyList
from micromegas.query.fingerprint import fingerprint
from micromegas.query.request import QueryRequest
from micromegas.serve.query_engine import query_engine


@pytest.fixture
def engine(lake: Lake) -> Iterator[QueryEngine]:
    opened = query_engine(lake, SETTINGS)
    yield opened
    opened.close()


@pytest.fixture
def local_engine(local_lake: Lake) -> Iterator[QueryEngine]:
    opened = query_engine(local_lake, SETTINGS)
    yield opened
    opened.close()


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def deny(engine: QueryEngine, condition: str, reason: str = "too much") -> str:
    """The id of a new rule."""
    sql = f"SELECT rule_id FROM deny_queries({quoted(condition)}, {quoted(reason)})"
    return str(one(ask(engine, sql, administers=True, user="ann")))


def remove(engine: QueryEngine, rule_id: str) -> str:
    return str(one(ask(engine, f"SELECT remove_query_denial('{rule_id}')", administers=True)))


def test_a_rule_refuses_what_meets_it_until_it_is_removed(lake: Lake, engine: QueryEngine) -> None:
    MadeTraffic(lake).logs("a")
    count = "SELECT count(*) FROM log_entries"
    rule_id = deny(engine, "user_name = 'bob' AND client_type = 'grafana'", "bob's dashboard asks each second")
    by_bob: dict[str, Any] = {"user": "bob", "client": "grafana"}
    refused = refusal(engine, count, **by_bob)
    assert refused.kind == "exhausted"
    assert rule_id in refused.message
    assert "bob's dashboard asks each second" in refused.message
    for other in ({}, {"user": "bob"}, {"client": "grafana"}, {"user": "ann", "client": "grafana"}):
        assert one(ask(engine, count, **other)) == 1
    (rule,) = ask(engine, "SELECT * FROM list_query_denials()", administers=True).to_pylist()
    assert (rule["rule_id"], rule["created_by"], rule["match_expr"]) == (
        rule_id,
        "ann",
        "user_name = 'bob' AND client_type = 'grafana'",
    )
    assert rule["created_at"] <= rule["last_hit_at"]
    assert remove(engine, rule_id) == f"SUCCESS: removed rule {rule_id}"
    assert remove(engine, rule_id) == f"ERROR: no rule {rule_id}"
    assert remove(engine, "nonsense") == "ERROR: no rule nonsense"
    assert one(ask(engine, count, **by_bob)) == 1


@pytest.mark.parametrize(
    "before", ["a --x\r", "$1$ ' $1$ AS a", "$a1$ ' $a1$ AS a", "$é$ ' $é$ AS a", "1 AS a$b$", "1 AS a€$b$"]
)
def test_fingerprints_hold_what_the_engine_runs(before: str) -> None:
    assert "from thread_spans" in fingerprint(f"SELECT {before} FROM thread_spans")


def test_statements_are_told_by_their_fingerprint(local_lake: Lake, local_engine: QueryEngine) -> None:
    wanted = fingerprint("SELECT msg FROM log_entries WHERE level <= 3 AND msg LIKE '%x%' LIMIT $1")
    assert wanted == "select msg from log_entries where level <= ? and msg like ? limit ?"
    deny(local_engine, f"fingerprint = {quoted(fingerprint('SELECT msg FROM log_entries LIMIT 1'))}")
    for alike in ("select MSG from log_entries\n limit 77", "SELECT msg /* why */ FROM log_entries LIMIT 1 -- so"):
        assert refusal(local_engine, alike).kind == "exhausted"
    assert ask(local_engine, 'SELECT "msg" FROM log_entries LIMIT 1').num_rows == 0


def test_who_refused_everything_can_take_it_back(lake: Lake, engine: QueryEngine) -> None:
    rule_id = deny(engine, "true")
    assert refusal(engine, "SELECT 1", administers=True).kind == "exhausted"
    assert refusal(engine, "SELECT * FROM list_query_denials()").kind == "exhausted"
    assert one(ask(engine, "SELECT rule_id FROM list_query_denials()", administers=True)) == rule_id
    # The server itself goes on: retention decides by queries.
    policies = RetentionPolicies(raw=(StreamPolicy(name="p", days=1, processes="exe = 'nobody'"),))
    assert Selection(engine, policies)("processes", "exe = 'nobody'") == frozenset()
    assert remove(engine, rule_id).startswith("SUCCESS")
    assert one(ask(engine, "SELECT 1")) == 1


def test_other_servers_follow(lake_backend: LakeSettings, lake: Lake, engine: QueryEngine) -> None:
    with Lake.open(lake_backend) as elsewhere:
        at_once, patient = DenyList(elsewhere, refresh_s=0), DenyList(elsewhere, refresh_s=3600)
        request = QueryRequest("SELECT 1")
        patient.check(request)
        rule_id = deny(engine, "sql = 'SELECT 1'")
        with pytest.raises(QueryError, match=rule_id):
            at_once.check(request)
        patient.check(request)
        patient.changed()
        with pytest.raises(QueryError, match=rule_id):
            patient.check(request)
        remove(engine, rule_id)
        at_once.check(request)


NO_CONDITIONS = {
    "unnest([true, false])": "this gives 2 rows",
    "1": "a rule is one condition, this gives int64",
    "true), (false": "a rule is one condition, this gives bool, bool",
    "true) FROM query UNION ALL SELECT (true": "query' not found",
    "colour = 'red'": "No field named colour",
    "(SELECT true FROM log_entries)": "log_entries' not found",
    "EXISTS (SELECT * FROM '/etc/passwd.csv')": "not found",
    "sql = ": "Expected: an expression",
    "": "Expected: an expression",
    "regexp_like(sql, '(')": "regex parse error",
    "sql = 1": "Cannot cast",
    "true; DROP TABLE query": "nothing|Expected",
    "(" * 100 + "true" + ")" * 100: "nested parentheses",
}


@pytest.mark.parametrize("condition", NO_CONDITIONS)
def test_what_is_no_condition_is_told(local_lake: Lake, local_engine: QueryEngine, condition: str) -> None:
    sql = f"SELECT * FROM deny_queries({quoted(condition)}, 'why')"
    refused = refusal(local_engine, sql, administers=True)
    assert refused.kind == "invalid"
    with pytest.raises(QueryError, match=NO_CONDITIONS[condition]):
        raise refused
    assert local_lake.metadata.query_denials() == []


def test_a_rule_that_fails_for_a_query_refuses_nothing(
    local_lake: Lake, local_engine: QueryEngine, caplog: pytest.LogCaptureFixture
) -> None:
    failing = deny(local_engine, "CASE WHEN user_name = 'bob' THEN CAST(sql AS INT) > 3 ELSE false END")
    deny(local_engine, "user_name = 'bob' AND sql = 'SELECT 2'")
    assert one(ask(local_engine, "SELECT 1", user="bob")) == 1
    assert f"rule {failing} refuses nothing" in caplog.text
    assert refusal(local_engine, "SELECT 2", user="bob").kind == "exhausted"


def test_rules_are_few_have_reasons_and_are_made_once(local_lake: Lake, local_engine: QueryEngine) -> None:
    call = "deny_queries('sql = ''never''', 'why')"
    for explained in (f"EXPLAIN SELECT * FROM {call}", f"EXPLAIN VERBOSE SELECT * FROM {call}"):
        ask(local_engine, explained, administers=True)
    assert local_lake.metadata.query_denials() == []
    twice = f"SELECT a.rule_id = b.rule_id FROM {call} a CROSS JOIN {call} b"
    assert column(ask(local_engine, twice, administers=True)) == [True]
    assert len(local_lake.metadata.query_denials()) == 1
    assert "tell a reason" in refusal(local_engine, "SELECT * FROM deny_queries('true', ' ')", administers=True).message
    for _ in range(MAX_RULES - 1):
        deny(local_engine, "sql = 'never'")
    refused = refusal(local_engine, f"SELECT * FROM {call}", administers=True)
    assert refused.kind == "exhausted"
    assert "remove one first" in refused.message
    assert one(ask(local_engine, "SELECT 1")) == 1
    for unknown in (f"SELECT * FROM {call}", "SELECT * FROM list_query_denials()", "SELECT remove_query_denial('x')"):
        with pytest.raises(QueryError, match=r"not found|Invalid function"):
            ask(local_engine, unknown)


def test_many_ask_at_once_while_rules_change(local_lake: Lake) -> None:
    deny_list = DenyList(local_lake, refresh_s=0)
    engine = query_engine(local_lake, SETTINGS)
    outcomes: list[bool] = []

    def ask_often(sql: str) -> None:
        for _ in range(20):
            try:
                deny_list.check(QueryRequest(sql))
                outcomes.append(sql == "SELECT 2")
            except QueryError:
                outcomes.append(sql == "SELECT 1")

    try:
        rule_ids = [deny(engine, "sql = 'SELECT 1'") for _ in range(3)]
        threads = [threading.Thread(target=ask_often, args=(sql,)) for sql in ("SELECT 1", "SELECT 2") * 3]
        for thread in threads:
            thread.start()
        for rule_id in rule_ids[1:]:
            remove(engine, rule_id)
        for thread in threads:
            thread.join()
        assert outcomes == [True] * 120
    finally:
        engine.close()
