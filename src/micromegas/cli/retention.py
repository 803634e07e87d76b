"""`micromegas retention`: what the policies of a site would delete now, line by line; and deletes it if told
to, as the daemons do by themselves."""

from __future__ import annotations

from collections.abc import Mapping

from micromegas.cli.engine_process import prepare_engine_process
from micromegas.cli.errors import CliError
from micromegas.cli.rows import write_table
from micromegas.cli.service_options import EngineFlags, LakeFlags, RetentionFlags
from micromegas.cli.settings import daemon_settings, lake_settings, query_settings


def run_retention(
    flags: LakeFlags,
    policies: RetentionFlags,
    engine_flags: EngineFlags,
    environment: Mapping[str, str],
    format_name: str,
    *,
    delete: bool,
) -> None:
    """Prints a row per policy, of before it deletes if that was asked for; `CliError` for whatever goes wrong."""
    if flags.lake is not None and flags.database_url is None and not (flags.lake / "metadata.db").exists():
        raise CliError(f"--lake {flags.lake}: no lake there")
    prepare_engine_process()
    import pyarrow as pa

    from micromegas.daemon.housekeeping import Housekeeping
    from micromegas.daemon.retention import Retention
    from micromegas.daemon.selection import PolicyError, Selection
    from micromegas.lake import Lake, LakeError
    from micromegas.query import QueryError
    from micromegas.serve.query_engine import query_engine

    try:
        settings = daemon_settings(policies)
        with Lake.open(lake_settings(flags, environment)) as lake:
            engine = query_engine(lake, query_settings(engine_flags))
            try:
                select = Selection(engine, settings.policies)
                lines = Retention(lake, settings, lake.clock, select).report()
                failures = Housekeeping(lake, settings, lake.clock, select).run(lambda: True) if delete else 0
            finally:
                engine.close()
    except (LakeError, QueryError, PolicyError, ValueError) as error:
        raise CliError(" ".join(str(error).split())) from None
    schema = pa.schema(
        [
            ("kind", pa.string()),
            ("policy", pa.string()),
            ("days", pa.int64()),
            ("kept_from", pa.timestamp("ns", "+00:00")),
            ("streams", pa.int64()),
            ("expired", pa.int64()),
            ("expired_bytes", pa.int64()),
        ]
    )
    columns = [pa.array([getattr(line, field.name) for line in lines], field.type) for field in schema]
    write_table(pa.Table.from_arrays(columns, schema=schema), format_name)
    if failures:
        raise CliError(f"{failures} kinds of deleting failed, see above; what could be deleted is: give it again")
