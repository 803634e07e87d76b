"""`micromegas spool`, also as `python -m micromegas spool`: shows what processes left that died, and sends it.

Needs no extra. Never touches the folder of a process that lives.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from micromegas import _core
from micromegas.record.spool import spool_folder
from micromegas.record.upload import upload_decisions


def _folder(chosen: str | None) -> str:
    folder = os.path.abspath(chosen) if chosen else spool_folder(os.environ)
    if folder is None:
        sys.exit("micromegas: no spool folder: there is no home folder; give --dir or MICROMEGAS_SPOOL_DIR")
    return folder


def list_spool(chosen: str | None = None, *, as_json: bool = False) -> None:
    """Print a line per session: process id, `recording` or `left`, url of its server."""
    folder = _folder(chosen)
    try:
        sessions = _core.spool_sessions(folder) if os.path.isdir(folder) else []
    except OSError as error:
        sys.exit(f"micromegas: {error}")
    if as_json:
        print(json.dumps([{"process_id": each, "url": url, "is_left": is_left} for each, url, is_left in sessions]))
        return
    for process_id, url, is_left in sessions:
        print(process_id, "left     " if is_left else "recording", url)


def upload_spool(
    chosen: str | None = None, url: str | None = None, timeout: float = 60.0, *, as_json: bool = False
) -> None:
    """Send what was left: each to the server it was meant for, or all to `url`. Exit code 1 when something remains."""
    folder = _folder(chosen)
    if not os.path.isdir(folder):
        print(json.dumps({"processes": 0, "events": 0}) if as_json else "nothing was left")
        return
    try:
        left = [session_url for _, session_url, is_left in _core.spool_sessions(folder) if is_left]
    except OSError as error:
        sys.exit(f"micromegas: {error}")
    failures = []
    processes = events = 0
    for server in [url] if url else sorted(set(left)):
        try:
            upload = upload_decisions(
                os.environ,
                url=server,
                api_key=None,
                headers=None,
                renewed=False,
                proxy=None,
                ca_file=None,
                client_certificate=None,
                client_key=None,
            )
            report = _core.spool_upload(folder, upload, None if url else server, timeout)
        except ValueError as error:
            failures.append(str(error))
            continue
        processes += report["processes"]
        events += report["events"]
        if not report["complete"] or report["refused_events"] or report["damaged"]:
            refused = f", {report['refused_events']} events refused" if report["refused_events"] else ""
            failures.append(f"{server}: {report['last_error'] or 'not everything was sent'}{refused}")
    sent = {"processes": processes, "events": events}
    print(json.dumps(sent) if as_json else f"{processes} processes, {events} events sent")
    if failures:
        sys.exit("\n".join(f"micromegas: {failure}" for failure in failures))


def run(arguments: Sequence[str]) -> None:
    """The command line behind `spool`."""
    parser = argparse.ArgumentParser(prog="python -m micromegas spool", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in (("list", list_spool), ("upload", upload_spool)):
        command = commands.add_parser(name, help=(function.__doc__ or "").splitlines()[0])
        command.add_argument("--dir", help="the spool; else MICROMEGAS_SPOOL_DIR, else that of the user")
        if name == "upload":
            command.add_argument("--url", help="send everything there, not where it was meant for")
            command.add_argument("--timeout", type=float, default=60.0, help="seconds per server (default: 60)")
        command.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    if given.command == "list":
        list_spool(given.dir, as_json=given.json)
    else:
        upload_spool(given.dir, given.url, given.timeout, as_json=given.json)
