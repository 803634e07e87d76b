"""DataFusion contexts: a base per share of the memory, with its pool, spill folder and functions, and one derived of it
per statement.

A derived context must never see files, statements that write, or the tables of another statement.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext, SQLOptions
from datafusion.catalog import Catalog, CatalogProviderList, Schema
from datafusion.object_store import AmazonS3

from micromegas.config import QuerySettings
from micromegas.lake import DataFusionStore, Scratch

CATALOG = "datafusion"
SCHEMA = "public"

READ_ONLY = SQLOptions().with_allow_ddl(False).with_allow_dml(False).with_allow_statements(False)

# Remote reads wait more than they compute: they need more partitions than there are cores.
_REMOTE_PARTITIONS = 16
_FOOTER_BYTES = 200 * 1024 * 1024


class _OneCatalog(CatalogProviderList):
    """The catalogue list of a derived context: a single catalogue in memory.

    The raw handle is handed out, as a Python wrapper would be called back from the planner's threads and panic.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._raw = catalog.catalog

    def catalog_names(self) -> set[str]:
        return {CATALOG}

    def catalog(self, name: str) -> Catalog | None:
        return self._raw if name == CATALOG else None


@dataclass(slots=True)
class _Share:
    """A part of the memory and of the room to spill, with the number of queries that are at work in it."""

    context: SessionContext
    queries: int = 0


class Place:
    """A query's place in a share of the memory, which it can't take more than."""

    def __init__(self, share: _Share, guard: threading.Lock) -> None:
        self.context = share.context
        self._share: _Share | None = share
        self._guard = guard

    def release(self) -> None:
        """The query is over; may be called more than once."""
        with self._guard:
            if self._share is not None:
                self._share.queries -= 1
                self._share = None


class Sessions:
    """The base context of a process and its scratch folder. `close()` removes the folder."""

    def __init__(self, settings: QuerySettings, store: DataFusionStore) -> None:
        self._scratch = Scratch(settings.spill_dir)
        self.folder = self._scratch.prepare()
        """The scratch folder."""
        remote = store.scheme != "file"
        partitions = settings.target_partitions or (_REMOTE_PARTITIONS if remote else os.cpu_count() or 1)
        self._config = SessionConfig(_engine_options(partitions))
        count = settings.memory_bytes // settings.share_bytes
        self._shares: list[_Share] = []
        for _ in range(count):
            runtime = (
                RuntimeEnvBuilder()
                .with_disk_manager_specified(str(self.folder))
                .with_fair_spill_pool(settings.share_bytes)
            )
            context = SessionContext(self._config, runtime)
            for option, value in _runtime_options(settings.spill_bytes // count, _FOOTER_BYTES // count).items():
                context.sql(f"SET datafusion.runtime.{option} = '{value}'")
            if remote:
                context.register_object_store(f"{store.scheme}://", _amazon_s3(store), store.bucket)
            self._shares.append(_Share(context))
        self.base = self._shares[0].context
        self._guard = threading.Lock()

    @property
    def bases(self) -> list[SessionContext]:
        """What contexts are derived from: their functions are those of each of these."""
        return [share.context for share in self._shares]

    def take_place(self) -> Place:
        """A place for a query in the share of the memory that has the fewest."""
        with self._guard:
            share = min(self._shares, key=lambda each: each.queries)
            share.queries += 1
        return Place(share, self._guard)

    def new_catalog(self) -> Catalog:
        """An empty catalogue with one schema."""
        catalog = Catalog.memory_catalog(self.base)
        catalog.register_schema(SCHEMA, Schema.memory_schema(self.base))
        return catalog

    def derive(self, catalog: Catalog | None = None, place: Place | None = None) -> SessionContext:
        """A context with the stores and functions of all, the memory of a place (by default that of the base), and the
        tables of a catalogue (by default a new one). Table functions that are registered there stay private in any
        case."""
        # Enabling URL tables makes a copy that shares the runtime; replacing its catalogues at once takes the files
        # away again, so that a quoted path is just an unknown table.
        context = (self.base if place is None else place.context).enable_url_table()
        return self.emptied(context, catalog)

    def emptied(self, context: SessionContext, catalog: Catalog | None = None) -> SessionContext:
        """A derived context with the tables of a catalogue (by default a new one) in place of its own. What was planned
        in it before keeps its tables."""
        context.register_catalog_provider_list(_OneCatalog(catalog or self.new_catalog()))
        return context

    def new_folder(self) -> Path:
        """A private folder below the scratch folder, to be removed by who asked for it."""
        return self._scratch.new_folder()

    def close(self) -> None:
        self._scratch.close()


def _engine_options(target_partitions: int) -> dict[str, str]:
    return {
        "datafusion.catalog.information_schema": "true",
        "datafusion.catalog.default_catalog": CATALOG,
        "datafusion.catalog.default_schema": SCHEMA,
        "datafusion.execution.time_zone": "+00:00",
        "datafusion.execution.target_partitions": str(target_partitions),
        "datafusion.execution.batch_size": "32768",
        # Memory is shared out evenly among all operators. A sort per stream of a scan, and queues that spread the rows
        # of small files over them, leave each too little to work with, where one sort for all spills and ends.
        "datafusion.optimizer.repartition_sorts": "false",
        "datafusion.optimizer.enable_round_robin_repartition": "false",
        # Which files can matter is decided by us before planning.
        "datafusion.execution.collect_statistics": "false",
        "datafusion.execution.parquet.pushdown_filters": "true",
        "datafusion.execution.parquet.reorder_filters": "true",
        "datafusion.execution.parquet.schema_force_view_types": "false",
        "datafusion.sql_parser.map_string_types_to_utf8view": "false",
        # In this dialect `begin` and `end` are plain names: they are columns of thread_spans.
        "datafusion.sql_parser.dialect": "postgresql",
    }


def _runtime_options(spill_bytes: int, footer_bytes: int) -> dict[str, str]:
    return {
        "max_temp_directory_size": f"{max(1, spill_bytes // 1024)}K",
        # A listing would stay cached for ever; every table here names its files.
        "list_files_cache_limit": "0M",
        "metadata_cache_limit": f"{max(1, footer_bytes // 1024)}K",
    }


def _amazon_s3(store: DataFusionStore) -> AmazonS3:  # pyright: ignore[reportInvalidTypeForm]
    options = store.options
    return AmazonS3(
        bucket_name=store.bucket or "",
        region=options.get("region"),
        endpoint=options.get("endpoint"),
        access_key_id=options.get("access_key_id"),
        secret_access_key=options.get("secret_access_key"),
        session_token=options.get("session_token"),
        allow_http=options.get("allow_http") == "true",
    )
