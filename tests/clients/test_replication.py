"""Copying a lake by what every client can do: query it, and bulk ingest the answers into another one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions
from clients.published import PublishedPackage
from e2e.serving import Service, serving

from micromegas.config import LakeSettings

KEYS = """[{"name": "ops", "key": "0ps"}, {"name": "analyst", "key": "k3y"}]"""
PAYLOADS = "SELECT process_id, stream_id, block_id, get_payload(process_id, stream_id, block_id) AS payload FROM blocks"
ANSWERS = [
    "SELECT process_id, exe, username, tsc_frequency, start_time, start_ticks, parent_process_id, properties, "
    "last_block_end_time FROM processes ORDER BY process_id",
    "SELECT stream_id, process_id, objects_metadata, dependencies_metadata, tags, properties, format FROM streams "
    "ORDER BY stream_id",
    "SELECT block_id, begin_time, end_time, begin_ticks, nb_objects, object_offset, payload_size FROM blocks "
    "ORDER BY block_id",
    "SELECT process_id, stream_id, block_id, level, target, msg, properties FROM log_entries ORDER BY block_id, msg",
    "SELECT block_id, name, value FROM measures ORDER BY block_id, name, value",
]


@contextlib.contextmanager
def serving_empty_lake(folder: Path) -> Iterator[Service]:
    """A server where `ops` administers."""
    environment = {"MICROMEGAS_API_KEYS": KEYS, "MICROMEGAS_ADMINS": '["ops"]'}
    with serving(LakeSettings(lake_dir=folder), environment=environment, api_key="0ps") as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Service]:
    """A server to copy to."""
    with serving_empty_lake(tmp_path / "target") as running:
        yield running


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that takes nothing of what these tests send."""
    with serving_empty_lake(tmp_path_factory.mktemp("refusing") / "lake") as running:
        yield running


def assert_same_answers(source: Service, target: Service) -> None:
    for sql in ANSWERS:
        ours, theirs = source.query(sql), target.query(sql)
        assert ours.num_rows > 0, sql
        assert ours.schema == theirs.schema, sql
        # by text, in which a nan is like another
        assert str(ours.to_pydict()) == str(theirs.to_pydict()), sql
    # Times of processes that did not announce the frequency of their counter are estimated by each lake.
    times = (
        "SELECT l.block_id, l.time FROM log_entries l JOIN processes p ON p.process_id = l.process_id "
        "WHERE p.tsc_frequency > 0 ORDER BY l.block_id, l.time"
    )
    assert source.query(times).equals(target.query(times))


def test_the_published_client_copies_a_lake(published: PublishedPackage, remote_service: Service, target) -> None:
    script = f"""
import micromegas.flightsql.client as m
source = m.FlightSQLClient("grpc://127.0.0.1:{remote_service.flight_port}")
target = m.FlightSQLClient("grpc://127.0.0.1:{target.flight_port}", headers={{"authorization": "Bearer 0ps"}})
keeping = m.FlightSQLClient("grpc://127.0.0.1:{remote_service.flight_port}", preserve_dictionary=True)
for table, sql in (
    ("processes", "SELECT * FROM processes"),
    ("payloads", {PAYLOADS!r}),
    ("blocks", "SELECT * FROM blocks"),
    ("streams", "SELECT * FROM streams"),
):
    rows = (source if table == "blocks" else keeping).query_arrow(sql)
    for _ in range(2):
        answer = target.bulk_ingest(table, rows)
        assert answer.record_count == rows.num_rows, answer
print("copied")
"""
    assert published.run(script).split()[-1] == "copied"
    assert_same_answers(remote_service, target)


def connect(target: Service, key: str) -> adbc_driver_flightsql.dbapi.Connection:
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {key}"}
    return adbc_driver_flightsql.dbapi.connect(
        f"grpc://127.0.0.1:{target.flight_port}", db_kwargs=options, autocommit=True
    )


def test_adbc_copies_a_lake(folder_service: Service, target: Service) -> None:
    with connect(target, "0ps") as connection, connection.cursor() as cursor:
        for table, sql in (
            ("streams", "SELECT * FROM streams"),
            ("blocks", "SELECT * FROM blocks"),
            ("payloads", PAYLOADS),
            ("processes", "SELECT * FROM processes"),
        ):
            rows = folder_service.query(sql)
            assert cursor.adbc_ingest(table, rows, mode="append") == rows.num_rows
    assert_same_answers(folder_service, target)


def test_only_administrators_ingest(refusing: Service) -> None:
    with connect(refusing, "k3y") as connection, connection.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.Error, match="administrators"):
            cursor.adbc_ingest("processes", pa.table({"process_id": ["x"]}), mode="append")
        cursor.execute("SELECT count(*) AS n FROM processes")
        assert cursor.fetchone() == (0,)


U = "8e2d1c0a-1111-4222-8333-444455556666"
TIME = pa.timestamp("ns", tz="UTC")
BLOCK = {
    "block_id": pa.array([U]),
    "stream_id": pa.array([U]),
    "process_id": pa.array([U]),
    "begin_time": pa.array([1], TIME),
    "end_time": pa.array([2], TIME),
    "begin_ticks": pa.array([1]),
    "end_ticks": pa.array([2]),
    "nb_objects": pa.array([1], pa.int32()),
    "object_offset": pa.array([0]),
    "payload_size": pa.array([3]),
}


@pytest.mark.parametrize(
    ("table", "columns", "told"),
    [
        ("no_such_table", {"a": pa.array([1])}, "no_such_table.*processes, streams, blocks, payloads"),
        ("blocks", {"a": pa.array([1])}, "no column block_id"),
        ("blocks", BLOCK | {"block_id": pa.array(["nobody"])}, "row 0: block_id 'nobody' is no uuid"),
        ("blocks", BLOCK | {"block_id": pa.array([None], pa.string())}, "block_id 'None' is no uuid"),
        ("blocks", BLOCK | {"begin_ticks": pa.array([None], pa.int64())}, "begin_ticks is null"),
        ("blocks", BLOCK | {"begin_ticks": pa.array(["many"])}, "column begin_ticks"),
        ("blocks", BLOCK | {"begin_time": pa.array([5])}, "column begin_time: int64 is no time"),
        ("blocks", BLOCK | {"begin_time": pa.array([2**62], pa.timestamp("s"))}, "column begin_time"),
        ("blocks", BLOCK | {"nb_objects": pa.array([2**40])}, "out of range"),
        ("blocks", BLOCK | {"payload_size": pa.array([-1])}, "out of range"),
        ("payloads", {name: BLOCK[name] for name in ("block_id", "stream_id", "process_id")}, "no column payload"),
        (
            "streams",
            {
                "stream_id": pa.array([U]),
                "process_id": pa.array([U]),
                "dependencies_metadata": pa.array([b""]),
                "objects_metadata": pa.array([b""]),
                "properties": pa.array([b"\xff\xfe garbage"]),
            },
            "column properties",
        ),
    ],
)
def test_rows_that_cant_be_are_told_of(refusing: Service, table: str, columns: dict[str, pa.Array], told: str) -> None:
    with connect(refusing, "0ps") as connection, connection.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.Error, match=told) as caught:
            cursor.adbc_ingest(table, pa.table(columns), mode="append")
        assert "Traceback" not in str(caught.value)
        cursor.execute("SELECT count(*) AS n FROM blocks")
        assert cursor.fetchone() == (0,)
    refusing.assert_running()
