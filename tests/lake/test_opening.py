"""Opening a lake: migrations under a lock, newer and older programs, several processes, stores that are away."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from senders import block, process, stream
from servers.lake_writer import open_and_write
from servers.postgres import PostgresServer
from servers.proxy import CuttableProxy
from servers.s3 import S3Server

from micromegas.config import LakeSettings
from micromegas.lake import Lake, LakeError, LakeTooNew, LakeUnavailable
from micromegas.lake.metadata import schema
from micromegas.lake.metadata.database import Database, open_database
from micromegas.wire import Batch

SPAWN = multiprocessing.get_context("spawn")


@contextmanager
def database_of(settings: LakeSettings) -> Iterator[Database]:
    database = open_database(settings)
    try:
        yield database
    finally:
        database.close()


def set_generation(settings: LakeSettings, **values: int) -> None:
    with database_of(settings) as database, database.write() as connection:
        connection.execute(sa.update(schema.lake_generation).values(values))


def test_migrations_make_exactly_the_schema(lake_backend: LakeSettings) -> None:
    Lake.open(lake_backend).close()
    with database_of(lake_backend) as database, database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_processes_open_an_empty_lake_at_once_and_all_write(lake_backend: LakeSettings) -> None:
    starters = SPAWN.Barrier(2)
    writers = [SPAWN.Process(target=open_and_write, args=(lake_backend, starters, 20)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    with Lake.open(lake_backend) as lake:
        rows = lake.metadata.blocks()
        assert len(rows) == 40
        assert len({row.insert_time for row in rows}) == 40
        assert all(lake.read_payloads(rows))


def test_a_newer_database_is_used_while_it_says_so(lake_backend: LakeSettings) -> None:
    Lake.open(lake_backend).close()
    set_generation(lake_backend, current=schema.GENERATION + 5)
    with Lake.open(lake_backend) as lake:
        lake.check()
    set_generation(lake_backend, min_compatible=schema.GENERATION + 1)
    with pytest.raises(LakeTooNew, match=f"generation {schema.GENERATION + 5}"):
        Lake.open(lake_backend)


def test_what_is_written_is_there_after_reopening(lake_backend: LakeSettings) -> None:
    owner = process()
    log = stream(owner.process_id)
    with Lake.open(lake_backend) as lake:
        lake.commit(Batch([owner], [log], [block(log)]))
        watermark = lake.metadata.watermark()
    with Lake.open(lake_backend) as lake:
        assert lake.metadata.watermark() == watermark
        assert [lake.read_payload(row) for row in lake.metadata.blocks()]


def test_settings_must_name_both_stores(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a folder"):
        LakeSettings(database_url="postgresql://x/y")
    with pytest.raises(ValueError, match="only s3:// and file://"):
        LakeSettings(lake_dir=tmp_path, object_store="gs://bucket")
    with pytest.raises(ValueError, match="aws_profile is unknown"):
        Lake.open(LakeSettings(lake_dir=tmp_path, object_store="s3://b", object_store_options={"aws_profile": "x"}))


def test_a_folder_can_be_given_by_url(tmp_path: Path) -> None:
    folder = tmp_path / "with space ü"
    with Lake.open(LakeSettings(lake_dir=tmp_path / "lake", object_store=folder.as_uri())) as lake:
        lake.objects.put("views/x", b"1")
        assert (folder / "views" / "x").read_bytes() == b"1"
        assert lake.objects.url_of("views/x") == (folder / "views" / "x").as_uri()


def test_postgres_away_is_unavailable_then_fine_again(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    proxy = CuttableProxy(postgres_server.port)
    url = postgres_url.replace(f":{postgres_server.port}/", f":{proxy.port}/")
    owner = process()
    log = stream(owner.process_id)
    refused, again = block(log), block(log)
    with Lake.open(LakeSettings(lake_dir=tmp_path, database_url=url)) as lake:
        lake.commit(Batch([owner], [log]))
        proxy.cut()
        with pytest.raises(LakeUnavailable, match="metadata database"):
            lake.commit(Batch(blocks=[refused]))
        with pytest.raises(LakeUnavailable):
            lake.check()
        with pytest.raises(LakeUnavailable):
            Lake.open(LakeSettings(lake_dir=tmp_path, database_url=url))
        proxy.restore()
        lake.check()
        lake.commit(Batch(blocks=[again]))
        assert [row.block_id for row in lake.metadata.blocks()] == [again.block_id]
    proxy.close()


def test_s3_away_is_unavailable_then_fine_again(s3_server: S3Server, tmp_path: Path) -> None:
    proxy = CuttableProxy(s3_server.port)
    bucket = s3_server.create_bucket(endpoint=f"http://127.0.0.1:{proxy.port}")
    settings = LakeSettings(lake_dir=tmp_path, object_store=bucket.url, object_store_options=bucket.options)
    owner = process()
    log = stream(owner.process_id)
    each = block(log)
    with Lake.open(settings) as lake:
        proxy.cut()
        with pytest.raises(LakeUnavailable, match="object store"):
            lake.commit(Batch([owner], [log], [each]))
        assert lake.metadata.process_rows() == [], "nothing of a refused batch is kept"
        with pytest.raises(LakeUnavailable):
            lake.check()
        proxy.restore()
        lake.check()
        lake.commit(Batch([owner], [log], [each]))
        assert lake.read_payload(lake.metadata.blocks()[0]) == each.payload
    proxy.close()


def test_a_missing_bucket_is_not_ready(s3_server: S3Server, tmp_path: Path) -> None:
    options = s3_server.create_bucket().options
    with (
        Lake.open(LakeSettings(lake_dir=tmp_path, object_store="s3://nobody", object_store_options=options)) as lake,
        pytest.raises(LakeUnavailable),
    ):
        lake.check()


def test_a_broken_sqlite_file_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "metadata.db").write_bytes(b"this is no database at all, it is a letter" * 100)
    with pytest.raises(LakeError, match="metadata database"):
        Lake.open(LakeSettings(lake_dir=tmp_path))


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LakeUnavailable, match="lake folder"):
        Lake.open(LakeSettings(lake_dir=tmp_path / "file" / "lake"))


def test_sqlite_keeps_its_promises(tmp_path: Path) -> None:
    with Lake.open(LakeSettings(lake_dir=tmp_path)) as lake, lake.metadata._database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    assert sqlite3.connect(tmp_path / "metadata.db").execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_isolation_does_not_depend_on_the_server_s_default(postgres_url: str, tmp_path: Path) -> None:
    settings = LakeSettings(database_url=postgres_url, object_store=tmp_path.as_uri())
    with database_of(settings) as database, database.write() as connection:
        name = connection.execute(sa.select(sa.func.current_database())).scalar_one()
        connection.execute(sa.DDL(f'ALTER DATABASE "{name}" SET default_transaction_isolation TO "repeatable read"'))
    with database_of(settings) as database:
        for transaction in (database.read, database.write):
            with transaction() as connection:
                assert connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "read committed"
