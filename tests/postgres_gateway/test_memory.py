"""What one session may hold of the memory of the gateway, and of the catalogue's PostgreSQL."""

from __future__ import annotations

from typing import Any

import psycopg
import pyarrow as pa
import pytest
from postgres_gateway.gateway import Asked
from psycopg import errors

from micromegas.serve.postgres import answers, portals, relay
from micromegas.serve.postgres.lake_rows import narrow

MIB = 1024 * 1024


def wide(kind: str) -> pa.Array:
    """Rows of a mebibyte each, which take hardly more than one."""
    one = pa.array(["x" * MIB])
    indices = pa.array([0] * 4096, pa.int32())
    match kind:
        case "texts":
            return pa.DictionaryArray.from_arrays(indices, one)
        case "encoded":
            return pa.DictionaryArray.from_arrays(indices, pa.array([b"x" * MIB]))
        case "lists":
            return pa.DictionaryArray.from_arrays(indices, pa.array([["x" * MIB]]))
        case "runs":
            return pa.RunEndEncodedArray.from_arrays(pa.array([4096], pa.int32()), one)
        case "in lists":
            return pa.ListArray.from_arrays(
                pa.array(range(4097), pa.int32()), pa.DictionaryArray.from_arrays(indices, one)
            )
        case "in structs":
            return pa.StructArray.from_arrays([pa.DictionaryArray.from_arrays(indices, one)], ["a"])
    length, long_text = (MIB).to_bytes(4, "little"), one.buffers()[2]
    views = pa.py_buffer((length + b"xxxx" + b"\0" * 8) * 4096)
    return pa.Array.from_buffers(pa.string_view(), 4096, [None, views, long_text])


@pytest.mark.parametrize("kind", ["texts", "encoded", "lists", "runs", "in lists", "in structs", "views"])
def test_wide_rows_are_written_by_few(kind: str) -> None:
    batch = pa.record_batch([wide(kind)], names=["a"])
    assert 1 <= narrow(batch.slice(7)).num_rows <= 4
    assert narrow(batch.slice(4000, 1)).num_rows == 1


def test_narrow_rows_are_written_by_many() -> None:
    texts = pa.array(["some text"] * 4096)
    for column in (texts, texts.dictionary_encode(), texts.cast(pa.string_view()), pa.array(range(4096))):
        assert narrow(pa.record_batch([column, column], names=["a", "b"])).num_rows == 4096


def test_a_huge_row_of_the_catalogue_ends_its_session_alone(asked: Asked) -> None:
    with psycopg.connect(asked.gateway.dsn()) as other:
        with (
            psycopg.connect(asked.gateway.dsn()) as connection,
            pytest.raises(psycopg.OperationalError, match=f"at most {relay.MAX_MESSAGE} are sent"),
        ):
            connection.execute(f"SELECT repeat('x', {relay.MAX_MESSAGE})")
        assert other.execute("SELECT 1").fetchone() == (1,)


def test_the_catalogue_has_only_so_much_memory(connection: psycopg.Connection[Any]) -> None:
    for _ in range(2):
        with pytest.raises(errors.OutOfMemory):
            connection.execute("SELECT length(repeat('x', 900000000))")
    assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("name", ["work_mem", "hash_mem_multiplier", "temp_buffers"])
def test_no_session_takes_more_of_it(asked: Asked, connection: psycopg.Connection[Any], name: str) -> None:
    before = connection.execute(f"SHOW {name}").fetchone()
    for way in (f"SET {name} = 900", f"SELECT set_config('{name}', '900', false)"):
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(way)
        assert connection.execute(f"SHOW {name}").fetchone() == before
    with (
        pytest.raises(errors.InsufficientPrivilege),
        connection.cursor().copy(f"COPY (SELECT set_config('{name}', '900', false)) TO STDOUT") as rows,
    ):
        list(rows)
    assert connection.execute(f"SHOW {name}").fetchone() == before
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(asked.gateway.dsn(options=f"-c {name}=900"))


def test_what_takes_long_in_the_catalogue_ends_whatever_was_set(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute("SET statement_timeout = 0")
    monkeypatch.setattr(relay, "_ANSWER_TIMEOUT_S", 0.1)
    for parameters in (None, [1000]):
        with pytest.raises(errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(1000)" if parameters is None else "SELECT pg_sleep(%s)", parameters)
    monkeypatch.undo()
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_cursors_of_the_catalogue_share_what_a_session_may_keep(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MAX_BUFFERED_BYTES", MIB)
    with connection.transaction():
        connection.execute("DECLARE a CURSOR FOR SELECT repeat('x', 600000)")
        with pytest.raises(errors.ProgramLimitExceeded), connection.transaction():
            connection.execute("DECLARE b CURSOR FOR SELECT repeat('x', 600000)")
        connection.execute("CLOSE a")
        connection.execute("DECLARE b CURSOR FOR SELECT repeat('x', 600000)")


@pytest.mark.parametrize("of", ["generate_series(1, 40000)", "range(1, 40000)"])
def test_short_rows_that_are_kept_count_as_what_they_take(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    monkeypatch.setattr(answers, "MAX_BUFFERED_BYTES", MIB)
    with pytest.raises(errors.ProgramLimitExceeded), connection.transaction():
        connection.execute(f"DECLARE a SCROLL CURSOR FOR SELECT 1 FROM {of}; MOVE ALL FROM a")


def test_texts_of_prepared_statements_are_limited(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portals, "MAX_PREPARED_BYTES", 100_000)
    padding = "/*" + "x" * 60_000 + "*/"
    connection.execute(f"SELECT 1 {padding}", prepare=True)
    with pytest.raises(errors.ConfigurationLimitExceeded):
        connection.execute(f"SELECT 2 {padding}", prepare=True)
    connection.execute("DEALLOCATE ALL")
    connection.execute(f"SELECT 2 {padding}", prepare=True)


@pytest.mark.parametrize(
    "call",
    [
        "pg_terminate_backend(pid) FROM pg_stat_activity",
        "pg_cancel_backend(pid) FROM pg_stat_activity",
        "pg_logical_emit_message(false, 'a', 'b')",
        "pg_export_snapshot()",
    ],
)
def test_no_session_reaches_another(asked: Asked, connection: psycopg.Connection[Any], call: str) -> None:
    with psycopg.connect(asked.gateway.dsn()) as other:
        other.execute("SELECT 'a secret' FROM pg_class LIMIT 1")
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(f"SELECT {call}")
        told = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%secr%'").fetchone()
        assert told == (0,)
    assert connection.execute("SELECT has_schema_privilege('public', 'CREATE')").fetchone() == (False,)
