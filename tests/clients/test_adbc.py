"""ADBC's Flight SQL driver (Go inside): DB-API queries, parameters, and metadata; pandas and polars on top of it."""

from __future__ import annotations

from collections.abc import Iterator

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pandas
import polars
import pyarrow as pa
import pytest
from adbc_driver_flightsql import ConnectionOptions, DatabaseOptions
from e2e.recordings import recording

GLOBAL_VIEWS = {"blocks", "log_entries", "measures", "processes", "streams"}


@pytest.fixture
def connection(address: str) -> Iterator[adbc_driver_flightsql.dbapi.Connection]:
    with adbc_driver_flightsql.dbapi.connect(address, autocommit=True) as opened:
        yield opened


@pytest.fixture
def cursor(connection: adbc_driver_flightsql.dbapi.Connection) -> Iterator[adbc_driver_flightsql.dbapi.Cursor]:
    with connection.cursor() as opened:
        yield opened


def process_of(scenario: str) -> str:
    (process_id,) = recording(scenario).processes
    return process_id


def test_execute_and_fetch(cursor: adbc_driver_flightsql.dbapi.Cursor) -> None:
    cursor.execute("SELECT process_id, exe, tsc_frequency FROM processes ORDER BY process_id")
    assert [column[0] for column in cursor.description] == ["process_id", "exe", "tsc_frequency"]
    first = cursor.fetchone()
    rest = cursor.fetchall()
    assert first is not None
    assert {row[0] for row in (first, *rest)} >= {process_of("tiny"), process_of("logs")}


def test_every_view_can_be_read_whole(cursor: adbc_driver_flightsql.dbapi.Cursor) -> None:
    for view in sorted(GLOBAL_VIEWS):
        cursor.execute(f"SELECT * FROM {view}")
        table = cursor.fetch_arrow_table()
        assert table.num_rows > 0, view
        assert not any("view" in str(kind) or pa.types.is_dictionary(kind) for kind in table.schema.types)


def test_a_statement_without_rows_keeps_its_schema(cursor: adbc_driver_flightsql.dbapi.Cursor) -> None:
    cursor.execute("SELECT time, level FROM log_entries WHERE false")
    assert cursor.fetch_arrow_table().schema.names == ["time", "level"]


def test_parameters(cursor: adbc_driver_flightsql.dbapi.Cursor) -> None:
    logs = recording("logs")
    sql = "SELECT count(*) AS n FROM log_entries WHERE process_id = ? AND level <= ? -- what?"
    levels = [6, 2, 0]
    counts = []
    for level in levels:
        cursor.execute(sql, (process_of("logs"), level))
        counts.append(cursor.fetchone()[0])
    assert counts[0] == sum(len(block.events) for block in logs.blocks if "log" in block.header["tags"])
    assert counts[0] > counts[1] > counts[2] == 0


def test_numbered_parameters_may_repeat(cursor: adbc_driver_flightsql.dbapi.Cursor) -> None:
    cursor.execute("SELECT CAST($2 AS BIGINT) - CAST($1 AS BIGINT) AS a, CAST($2 AS BIGINT) AS b", (1, 10))
    assert cursor.fetchall() == [(9, 10)]


def test_two_cursors_keep_their_own_parameters(connection: adbc_driver_flightsql.dbapi.Connection) -> None:
    sql = "SELECT CAST(? AS BIGINT) AS a"
    with connection.cursor() as one, connection.cursor() as other:
        one.adbc_prepare(sql)
        other.adbc_prepare(sql)
        one.execute(sql, (1,))
        other.execute(sql, (2,))
        assert (one.fetchall(), other.fetchall()) == ([(1,)], [(2,)])


def test_prepare_tells_the_parameters(cursor: adbc_driver_flightsql.dbapi.Cursor) -> None:
    schema = cursor.adbc_prepare("SELECT * FROM log_entries WHERE level = ? AND msg = ?")
    assert [str(kind) for kind in schema.types] == ["int32", "string"]


def test_missing_and_surplus_parameters_are_errors(cursor: adbc_driver_flightsql.dbapi.Cursor) -> None:
    cursor.execute("SELECT CAST(? AS BIGINT)")
    with pytest.raises(adbc_driver_manager.Error):
        cursor.fetchall()
    with pytest.raises(adbc_driver_manager.Error, match="placeholders"):
        cursor.execute("SELECT CAST(? AS BIGINT)", (1, 2))


def test_objects(connection: adbc_driver_flightsql.dbapi.Connection) -> None:
    (catalog,) = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    assert catalog["catalog_name"] == ""
    (schema,) = catalog["catalog_db_schemas"]
    assert schema["db_schema_name"] == ""
    tables = {table["table_name"]: table for table in schema["db_schema_tables"]}
    assert tables.keys() >= GLOBAL_VIEWS
    assert {table["table_type"] for table in tables.values()} == {"table"}
    assert "msg" in {column["column_name"] for column in tables["log_entries"]["table_columns"]}
    filtered = connection.adbc_get_objects(depth="tables", table_name_filter="log%").read_all().to_pylist()
    names = [table["table_name"] for table in filtered[0]["catalog_db_schemas"][0]["db_schema_tables"]]
    assert "log_entries" in names
    assert all(name.startswith("log") for name in names)


def test_table_types_and_schema(
    connection: adbc_driver_flightsql.dbapi.Connection, cursor: adbc_driver_flightsql.dbapi.Cursor
) -> None:
    assert connection.adbc_get_table_types() == ["table"]
    schema = connection.adbc_get_table_schema("log_entries")
    cursor.execute("SELECT * FROM log_entries LIMIT 1")
    assert cursor.fetch_arrow_table().schema == schema


def test_info(connection: adbc_driver_flightsql.dbapi.Connection) -> None:
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "Micromegas Flight SQL Server"
    assert info["vendor_version"]


def test_writing_is_refused_as_read_only(cursor: adbc_driver_flightsql.dbapi.Cursor) -> None:
    with pytest.raises(adbc_driver_manager.Error, match="read-only"):
        cursor.executemany("SELECT CAST(? AS BIGINT)", [(1,), (2,)])
    for sql in ("DELETE FROM log_entries", "DROP VIEW processes", "SET datafusion.execution.batch_size = 1"):
        with pytest.raises(adbc_driver_manager.ProgrammingError):
            cursor.execute(sql)


def test_ranges_travel_as_headers(address: str) -> None:
    option = f"{ConnectionOptions.RPC_CALL_HEADER_PREFIX.value}query_range_end"
    kwargs = {option: "2001-01-01T00:00:00Z"}
    with (
        adbc_driver_flightsql.dbapi.connect(address, conn_kwargs=kwargs, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT count(*) AS n FROM log_entries")
        assert cursor.fetchone() == (0,)


def test_a_wrong_token_header_is_no_harm_without_keys(address: str) -> None:
    kwargs = {DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer None"}
    with (
        adbc_driver_flightsql.dbapi.connect(address, db_kwargs=kwargs, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT 1 AS one")
        assert cursor.fetchone() == (1,)


def test_pandas(connection: adbc_driver_flightsql.dbapi.Connection) -> None:
    frame = pandas.read_sql("SELECT time, level, msg FROM log_entries WHERE level <= 4 ORDER BY time", connection)
    assert list(frame.columns) == ["time", "level", "msg"]
    assert len(frame) > 0
    assert frame["time"].dtype.kind == "M"
    assert frame["level"].max() <= 4


def test_polars(connection: adbc_driver_flightsql.dbapi.Connection) -> None:
    frame = polars.read_database("SELECT * FROM log_entries", connection)
    assert {"time", "level", "msg", "properties"} <= set(frame.columns)
    # nanoseconds as they are, in UTC
    assert frame.schema["time"] == polars.Datetime("ns", "UTC")
    assert frame.height > 0
