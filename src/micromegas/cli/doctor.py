"""`micromegas doctor`: looks at a deployment from outside, as senders and clients see it, and says what is wrong with
it. Changes nothing."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from micromegas.cli.administration import DoctorFlags
from micromegas.cli.connection import connected, signed_in, told_in_one_line
from micromegas.cli.errors import CliError
from micromegas.cli.findings import OK, PROBLEM, WARNING, Finding
from micromegas.cli.options import Connection, RowFlags
from micromegas.cli.ports import http_queries, ingestion, postgresql
from micromegas.cli.rows import chosen_format, write_table
from micromegas.client import Client

_SECOND = 1_000_000_000
_MAX_SKEW_S = 5
_MAX_SENDER_SKEW_S = 60
_MAX_DAEMON_LAG_S = 120
_FEW_BYTES = 5 * 1024**3
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre"}
)

_NEWEST = "SELECT max(insert_time) AS newest FROM blocks"
_NEWEST_LOG = """
    SELECT max(insert_time) AS newest FROM blocks WHERE array_has("streams.tags", 'log')
"""
_COVERED = """
    SELECT max(end_insert_time) AS covered FROM list_partitions()
    WHERE view_set_name = 'log_entries' AND view_instance_id = 'global'
"""
_FAILED_BLOCKS = """
    SELECT count(DISTINCT block_id) AS blocks, first_value(error) AS error FROM list_block_errors()
    WHERE view_set_name IS NOT NULL
"""
_WAITING_BLOCKS = "SELECT count(*) AS blocks FROM list_block_errors() WHERE view_set_name IS NULL"
_FAST_CLOCKS = """
    SELECT "processes.computer" AS computer, max(end_time) AS latest, min(insert_time) AS inserted FROM blocks
    WHERE insert_time >= now() - INTERVAL '1 day' AND end_time > insert_time + INTERVAL '{seconds} seconds'
    GROUP BY 1 ORDER BY 1 LIMIT 20
"""


def run_doctor(connection: Connection, flags: DoctorFlags, rows: RowFlags) -> None:
    """A row per check; raises `CliError` at the end when there is a problem."""
    format_name = chosen_format(rows)
    findings = [*ingestion(flags.url, flags.ingestion_key), *_queries(connection, flags.api_url)]
    if flags.pg is not None:
        findings.append(postgresql(flags.pg))
    findings += _spool(flags.spool)
    if flags.lake is not None:
        findings += _folder(flags.lake)
    fields = ("check", "state", "found", "next_step")
    columns = {name: pa.array([getattr(each, name) for each in findings], pa.string()) for name in fields}
    write_table(pa.table(columns), format_name)
    problems = [each.check for each in findings if each.state == PROBLEM]
    if problems:
        raise CliError(f"{len(problems)} of {len(findings)} checks found a problem: {', '.join(problems)}")


def _queries(connection: Connection, api_url: str | None) -> Iterator[Finding]:
    try:
        with connected(connection) as client:
            begin = time.perf_counter()
            now = _time(client, "SELECT now() AS now", "now") or 0
            milliseconds = (time.perf_counter() - begin) * 1000
            yield Finding("queries", OK, f"{client.address} answered in {milliseconds:.0f} ms")
            yield _clock(now)
            for check in (_arrival, _daemon, _blocks, _senders):
                yield check(client)
    except CliError as error:
        # the last part is the next step; texts of gRPC have parts of their own
        found, _, step = str(error).rpartition("; ")
        yield Finding("queries", PROBLEM, found or step, step if found else "")
        if api_url is None:
            return
    with told_in_one_line():
        yield http_queries(api_url, *signed_in(connection))


def _clock(server: int) -> Finding:
    skew = (server - time.time_ns()) / _SECOND
    if abs(skew) <= _MAX_SKEW_S:
        return Finding("clock", OK, "the server's clock is that of this machine")
    return Finding("clock", WARNING, f"the server's clock is {skew:+.0f} s from this machine's", "run NTP on both")


def _arrival(client: Client) -> Finding:
    newest = _time(client, _NEWEST, "newest")
    if newest is None:
        return Finding("telemetry", WARNING, "nothing has arrived yet", "set MICROMEGAS_TELEMETRY_URL of programs")
    return Finding("telemetry", OK, f"the newest block came {_ago(newest)}")


def _daemon(client: Client) -> Finding:
    newest = _time(client, _NEWEST_LOG, "newest")
    covered = _time(client, _COVERED, "covered")
    if newest is None:
        return Finding("daemon", OK, "there are no logs to make partitions of")
    lag = (newest - covered) / _SECOND if covered is not None else (time.time_ns() - newest) / _SECOND
    if lag <= _MAX_DAEMON_LAG_S:
        return Finding("daemon", OK, "partitions are made")
    return Finding(
        "daemon", PROBLEM, f"partitions are {lag:.0f} s behind what arrived", "run  micromegas daemon, see its log"
    )


def _blocks(client: Client) -> Finding:
    failed, waiting = client.query(_FAILED_BLOCKS), client.query(_WAITING_BLOCKS)["blocks"][0].as_py()
    count = failed["blocks"][0].as_py()
    if count:
        found = f"{count} blocks could not be decoded whole, such as: {failed['error'][0].as_py()}"
        return Finding("blocks", WARNING, found, 'see  micromegas query "SELECT * FROM list_block_errors()"')
    if waiting:
        found = f"{waiting} blocks wait for the announcement of their process or stream"
        return Finding("blocks", WARNING, found, "a sender lost it: it announces itself again when it restarts")
    return Finding("blocks", OK, "all blocks could be decoded")


def _senders(client: Client) -> Finding:
    fast = client.query(_FAST_CLOCKS.format(seconds=_MAX_SENDER_SKEW_S))
    if not fast.num_rows:
        return Finding("senders", OK, "no sender's clock runs ahead")
    names = ", ".join(name or "?" for name in fast["computer"].to_pylist())
    return Finding("senders", WARNING, f"clocks run more than {_MAX_SENDER_SKEW_S} s ahead on {names}", "run NTP there")


def _spool(chosen: str | None) -> Iterator[Finding]:
    """What died on this machine before it had sent everything."""
    from micromegas import _core
    from micromegas.record.spool import spool_folder

    folder = chosen or spool_folder(os.environ)
    if folder is None or not os.path.isdir(folder):
        return
    left = [process_id for process_id, _, is_left in _core.spool_sessions(folder) if is_left]
    if left:
        found = f"{len(left)} processes of this machine died before they had sent everything"
        yield Finding("spool", WARNING, found, "run  micromegas spool upload")
    else:
        yield Finding("spool", OK, "nothing was left behind on this machine")


def _folder(lake: Path) -> Iterator[Finding]:
    """The folder of an embedded lake."""
    if not (lake / "metadata.db").exists():
        yield Finding("lake", PROBLEM, f"no lake in {lake}", "give --lake the folder that the server has")
        return
    usage = shutil.disk_usage(lake)
    if usage.free < _FEW_BYTES:
        yield Finding(
            "disk", PROBLEM, f"{usage.free / 1e9:.1f} GB are free", "make room, or keep less: --retention-days"
        )
    else:
        yield Finding("disk", OK, f"{usage.free / 1e9:.0f} GB are free")
    kind = _file_system(lake.resolve(), _mounts())
    if kind in _NETWORK_FILE_SYSTEMS:
        yield Finding("lake", PROBLEM, f"{lake} is on a network ({kind}), where SQLite loses data", "use a local disk")
    else:
        yield Finding("lake", OK, f"{lake} is on a local disk")


def _mounts() -> Mapping[str, str]:
    """File systems by where they are mounted."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {fields[1]: fields[2] for fields in map(str.split, lines) if len(fields) > 2}


def _file_system(path: Path, mounts: Mapping[str, str]) -> str | None:
    for folder in (path, *path.parents):
        if str(folder) in mounts:
            return mounts[str(folder)]
    return None


def _time(client: Client, sql: str, column: str) -> int | None:
    value = client.query(sql)[column][0]
    return value.cast(pa.timestamp("ns")).value if value.is_valid else None


def _ago(moment: int) -> str:
    seconds = max(0, (time.time_ns() - moment) // _SECOND)
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} seconds ago"
