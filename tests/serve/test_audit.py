"""The audit: one line for each query, whatever becomes of it, told with who asked."""

import json
import logging
import re

import pyarrow as pa
import pytest
from pyarrow import flight

import micromegas as mm
from micromegas.config import ApiKey
from micromegas.serve.audit import caller_of, statement_hash
from micromegas.serve.flight import messages

from .conftest import wait_until

LOGGER = "flightsql_query_audit"


def ticket(sql: str) -> flight.Ticket:
    return flight.Ticket(messages.pack("TicketStatementQuery", statement_handle=sql.encode()))


def options(**headers: str) -> flight.FlightCallOptions:
    pairs = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return flight.FlightCallOptions(headers=pairs)


@pytest.fixture
def lines(caplog):
    """The audit's lines so far."""
    caplog.set_level(logging.INFO, LOGGER)

    def read() -> list[dict]:
        return [json.loads(record.getMessage()) for record in caplog.records if record.name == LOGGER]

    return read


def test_a_query_is_told_with_its_caller_and_its_cost(client, lines):
    asked = options(
        x_client_type="python",
        x_client_agent="none",
        x_client_session="s1",
        x_user_id="ann%40example.org",
        x_user_name="Ann%20%E2%98%83",
        x_user_email="",
        limit="3",
    )
    client.do_get(ticket("SELECT n FROM wide"), asked).read_all()
    wait_until(lambda: len(lines()) == 1)
    (line,) = lines()
    assert (
        line.items()
        >= {
            "client_ip": "127.0.0.1",
            "client": "python",
            "agent": "none",
            "entrypoint": "unknown",
            "session": "s1",
            "user": "ann@example.org",
            "name": "Ann ☃",
            "email": "unknown",
            "service_account": False,
            "sql": "SELECT n FROM wide",
            "limit": 3,
            "status": "ok",
            "output_rows": 3,
        }.items()
    )
    assert not {"notebook", "cell", "range_begin", "error"} & line.keys()
    assert line["output_bytes"] > 0
    assert line["total_ms"] >= line["setup_ms"] >= 0
    assert line["total_ms"] == pytest.approx(line["setup_ms"] + line["execution_ms"])


def test_the_key_names_the_service_account(start_server, lines):
    server = start_server(api_keys=(ApiKey("dashboards", "k3y"),))
    with flight.connect(server.uri) as client:
        client.do_get(ticket("SELECT 1 AS one"), options(authorization="Bearer k3y", x_user_id="ann")).read_all()
    wait_until(lambda: len(lines()) == 1)
    assert lines()[0].items() >= {"service_account": True, "service_account_name": "dashboards", "user": "ann"}.items()
    assert "k3y" not in json.dumps(lines())


@pytest.mark.parametrize(
    ("sql", "failure", "error_class"),
    [
        ("fail_invalid_5", (pa.ArrowInvalid, "ééééé"), "user"),
        ("fail_unimplemented_5", (pa.ArrowNotImplementedError, "ééééé"), "user"),
        ("fail_exhausted_5", (pa.ArrowInvalid, "ééééé"), "resource"),
        ("SELECT 1 AS one -- exhaust_midway", (pa.ArrowInvalid, "memory is used up"), "resource"),
        ("SELECT 1 -- bug", (flight.FlightInternalError, "internal error"), "internal"),
        ("SELECT 1 -- panic_midway", (flight.FlightInternalError, "internal error"), "internal"),
    ],
)
def test_failures_are_told_with_whose_they_are(client, lines, sql, failure, error_class):
    raised, error = failure
    with pytest.raises(raised) as caught:
        client.do_get(ticket(sql)).read_all()
    wait_until(lambda: len(lines()) == 1)
    (line,) = lines()
    assert (line["status"], line["error"], line["error_class"]) == ("error", error, error_class)
    if error_class != "internal":
        assert f"(query_id={line['query_id']})" in str(caught.value)


def test_a_long_error_still_names_its_query(client):
    with pytest.raises(pa.ArrowInvalid, match=r"é{600} \(query_id=[0-9a-f-]{36}\)"):
        client.do_get(ticket("fail_invalid_600")).read_all()


def test_a_reader_that_leaves_is_told_as_incomplete(client, engine, lines):
    reader = client.do_get(ticket("SELECT n FROM wide -- wait_for_ever"))
    assert engine.waiting.wait(30)
    reader.cancel()
    wait_until(lambda: len(lines()) == 1)
    assert lines()[0]["status"] == "incomplete"


def test_measures_are_recorded(client, lines):
    with mm.testing.capture() as events:
        client.do_get(ticket("SELECT n FROM wide LIMIT 5")).read_all()
        with pytest.raises(pa.ArrowInvalid):
            client.do_get(ticket("fail_invalid_1")).read_all()
        wait_until(lambda: len(lines()) == 2)
    values = {}
    for measure in events.metrics:
        values.setdefault(measure.name, []).append(measure.value)
    assert values["query_output_rows"] == [5.0, 0.0]
    assert len(values["query_duration_total"]) == 2
    assert len(values["query_duration_with_error"]) == 1


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ([], "10.0.0.1"),
        ([("x-forwarded-for", "1.2.3.4, 5.6.7.8")], "5.6.7.8"),
        ([("x-forwarded-for", "1.2.3.4"), ("x-forwarded-for", "2001:db8::1")], "2001:db8::1"),
        ([("x-forwarded-for", "nobody"), ("x-real-ip", "9.9.9.9")], "9.9.9.9"),
        ([("x-forwarded-for", "1.2.3.4, evil'--"), ("x-real-ip", "")], "10.0.0.1"),
    ],
)
def test_the_callers_address_is_the_last_proxys_word(headers, address):
    assert caller_of(headers, "10.0.0.1", None).client_ip == address


def test_names_that_are_no_text_are_no_harm():
    caller = caller_of([("x-user-id", "%ff%fe"), ("x-user-name", "%zz")], "10.0.0.1", None)
    assert caller.user == "��"
    assert caller.name == "%zz"


def test_statements_that_differ_in_literals_have_one_hash():
    same = [
        "SELECT * FROM log_entries WHERE msg = 'a' AND level < 3",
        "SELECT *  FROM log_entries\n WHERE msg = 'it''s b' AND level < 40.5e3",
    ]
    assert len({statement_hash(sql) for sql in same}) == 1
    assert statement_hash(same[0]) != statement_hash(same[0].replace("msg", "exe"))
    assert re.fullmatch("[0-9a-f]{16}", statement_hash(same[0]))
