"""Small promises of the protocol that a driver relies on without saying so."""

from __future__ import annotations

import struct
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from postgres_gateway.gateway import Asked
from postgres_gateway.raw import RawClient, message, startup, state_of, text
from psycopg import errors

from micromegas.serve.postgres.types import RowEncoder, result_column

SYNC = message(b"S")


def test_a_newer_protocol_is_told_which_one_is_spoken(asked: Asked) -> None:
    with RawClient(asked.gateway.port) as client:
        client.send(startup({"user": "raw"}, 0x30002))
        assert client.answer() == (b"v", struct.pack("!ii", 0x30000, 0))
        assert client.until(b"Z")[-1] == (b"Z", b"I")


def test_a_message_that_is_too_large_is_told_behind_one_that_runs(asked: Asked) -> None:
    with RawClient(asked.gateway.port) as client:
        client.start()
        client.send(message(b"P", text(""), text("SELECT pg_sleep(1000)"), b"\0\0"))
        client.send(b"B" + struct.pack("!i", 2**31 - 1))
        answers = client.rest()
        assert state_of(answers[-1][1]) == "54000"
    with RawClient(asked.gateway.port) as client:
        client.start()
        client.send(message(b"Q", text("SELECT pg_sleep(1000)")) + b"B" + struct.pack("!i", 2**31 - 1))
        assert state_of(client.rest()[-1][1]) == "54000"


def test_a_named_statement_leaves_the_unnamed_one(asked: Asked) -> None:
    with RawClient(asked.gateway.port) as client:
        client.start()
        client.send(message(b"P", text(""), text("SELECT 1"), b"\0\0"))
        client.send(message(b"P", text("a"), text("SELECT 2"), b"\0\0"))
        client.send(message(b"B", text(""), text(""), b"\0\0\0\0\0\0") + message(b"E", text(""), b"\0\0\0\0") + SYNC)
        assert [kind for kind, _ in client.until(b"Z")] == [b"1", b"1", b"2", b"D", b"C", b"Z"]


def test_there_is_no_way_back_outside_of_a_transaction(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(errors.NoActiveSqlTransaction):
        connection.execute("ROLLBACK TO SAVEPOINT a")
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_a_range_that_a_function_sets_holds(connection: psycopg.Connection[Any]) -> None:
    count = "SELECT count(*) FROM log_entries"
    everything = connection.execute(count).fetchone()
    connection.execute("SELECT set_config('micromegas.range_end', %s, false)", ["2000-01-01"])
    assert connection.execute(count).fetchone() == (0,)
    # what is no time resets the range, here as at PostgreSQL
    with pytest.raises(errors.InvalidParameterValue):
        connection.execute("SET micromegas.range_end = 'some day'")
    assert connection.execute("SHOW micromegas.range_end").fetchone() == ("",)
    assert connection.execute(count).fetchone() == everything


@pytest.mark.parametrize(
    "way",
    [
        "COPY (SELECT {}) TO STDOUT",
        "BEGIN; DECLARE rows CURSOR FOR SELECT {}; COMMIT",
        "PREPARE ask (text) AS SELECT $1; EXECUTE ask ({})",
    ],
)
def test_a_range_holds_whichever_way_a_function_sets_it(asked: Asked, way: str) -> None:
    with RawClient(asked.gateway.port) as client:
        client.start()
        client.send(message(b"Q", text(way.format("set_config('micromegas.range_end', '2000-01-01', false)"))))
        assert not [body for kind, body in client.until(b"Z") if kind == b"E"]
        client.send(message(b"Q", text("SELECT count(*) FROM log_entries")))
        assert [body[6:] for kind, body in client.until(b"Z") if kind == b"D"] == [b"0"]


@pytest.mark.parametrize(
    "setting",
    [
        "SET LOCAL micromegas.range_end = '2000-01-01'",
        "SELECT set_config('micromegas.range_end', '2000-01-01', true)",
    ],
)
@pytest.mark.parametrize("is_prepared", [False, True])
def test_a_setting_for_a_transaction_ends_with_it(
    connection: psycopg.Connection[Any], setting: str, is_prepared: bool
) -> None:
    count = "SELECT count(*) FROM log_entries"
    everything = connection.execute(count).fetchone()
    with connection.transaction():
        connection.execute(setting, [] if is_prepared else None, prepare=is_prepared)
        assert connection.execute(count).fetchone() == (0,)
    assert connection.execute(count).fetchone() == everything


def test_what_a_transaction_has_set_is_taken_back_with_it(connection: psycopg.Connection[Any]) -> None:
    count = "SELECT count(*) FROM log_entries"
    everything = connection.execute(count).fetchone()
    connection.execute("BEGIN")
    connection.execute("SAVEPOINT a")
    connection.execute("SET micromegas.range_end = '2000-01-01'")
    assert connection.execute(count).fetchone() == (0,)
    connection.execute("ROLLBACK TO a")
    assert connection.execute(count).fetchone() == everything
    connection.execute("SET micromegas.range_end = '2000-01-01'")
    with pytest.raises(errors.UndefinedColumn):
        connection.execute("SELECT nosuch FROM log_entries")
    # what failed at the lake has failed everything
    assert connection.execute("COMMIT").statusmessage == "ROLLBACK"
    assert connection.execute(count).fetchone() == everything


def test_what_only_the_lake_knows_leaves_a_transaction_as_it_was(connection: psycopg.Connection[Any]) -> None:
    connection.execute("BEGIN")
    moment = connection.execute("SELECT now(), set_config('micromegas.default_lookback', '9d', true)").fetchone()
    for parameters in (None, []):
        assert connection.execute("SELECT arrow_typeof(1)", parameters, prepare=parameters is not None).fetchone()
        assert connection.execute("DESCRIBE log_entries").fetchone()
    # the transaction is the same one, and has not failed
    assert connection.execute("SELECT now(), current_setting('micromegas.default_lookback')").fetchone() == moment
    connection.execute("SET TRANSACTION READ ONLY")
    assert connection.execute("COMMIT").statusmessage == "COMMIT"
    assert connection.execute("SHOW micromegas.default_lookback").fetchone() == ("",)


def test_rows_that_are_kept_as_texts_are_not_given_as_binary(connection: psycopg.Connection[Any]) -> None:
    with connection.transaction():
        connection.execute("DECLARE a CURSOR FOR SELECT 258")
        connection.execute("DECLARE b BINARY CURSOR FOR SELECT 258")
        with pytest.raises(errors.FeatureNotSupported), connection.transaction():
            connection.execute("FETCH a", binary=True)
        assert connection.execute("FETCH a").fetchone() == (258,)
        assert connection.execute("FETCH b", binary=True).fetchone() == (258,)


def test_arrays_of_jsonb_are_those_of_json() -> None:
    kind = pa.list_(pa.dictionary(pa.int32(), pa.binary()))
    column = result_column(pa.field("a", kind))
    assert column.description.type_oid == 199
    assert RowEncoder([column], [1])._element_oids == [114]


def test_a_portal_of_the_catalogue_lives_as_long_as_its_transaction(asked: Asked) -> None:
    with RawClient(asked.gateway.port) as client:
        client.start()
        client.say(b"Q", text("BEGIN"))
        client.until(b"Z")
        client.send(message(b"P", text("s"), text("SELECT $1::int4 + 1"), b"\0\0"))
        client.send(message(b"B", text("p"), text("s"), b"\0\0\0\x01\0\0\0\x0241\0\0") + SYNC)
        assert [kind for kind, _ in client.until(b"Z")] == [b"1", b"2", b"Z"]
        client.say(b"Q", text("SELECT 1"))
        client.until(b"Z")
        client.send(message(b"E", text("p"), b"\0\0\0\0") + SYNC)
        answers = client.until(b"Z")
        assert [kind for kind, _ in answers] == [b"D", b"C", b"Z"]
        assert answers[0][1].endswith(b"42")
