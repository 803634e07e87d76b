"""Posting what may be bad: what every answer must keep to, whatever was sent."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from e2e.answers import records
from e2e.posting import Answer, post_all
from e2e.recordings import Request
from e2e.serving import Service

MIB = 1024 * 1024
MEMORY_LIMIT = 3072 * MIB
"""The most that a server may take, whatever comes."""

LOCAL_PATHS = [str(Path(__file__).resolve().parents[2]), tempfile.gettempdir(), str(Path.home())]
TELLTALES = re.compile(
    "|".join(["traceback", r"\.py\b", r"\.rs\b", "site-packages", "panick", "sqlite", "psycopg", "sqlalchemy"])
    + "|"
    + "|".join(map(re.escape, LOCAL_PATHS)),
    re.IGNORECASE,
)
"""What tells of the inside of the server."""


def post(service: Service, requests: Iterable[Request], connections: int = 1) -> list[Answer]:
    """Post and check what every answer must keep to, good or bad."""
    sent = list(requests)
    answers = post_all(service.http_port, sent, connections)
    for request, answer in zip(sent, answers, strict=True):
        assert answer.status in (200, 400), (request.path, answer)
        assert not TELLTALES.search(answer.text), answer
        assert len(answer.text) < 1000, answer.text[:1000]
        assert (answer.text == "") == (answer.status == 200), answer
    service.assert_running()
    return answers


def accept(service: Service, requests: Iterable[Request], connections: int = 1) -> None:
    statuses = Counter(answer.status for answer in post(service, requests, connections))
    assert set(statuses) <= {200}, statuses


def refuse(service: Service, requests: Iterable[Request]) -> None:
    statuses = Counter(answer.status for answer in post(service, requests))
    assert set(statuses) == {400}, statuses


def listed_errors(service: Service) -> dict[str, dict[str, Any]]:
    return {row["block_id"]: row for row in records(service.query("SELECT * FROM list_block_errors()"))}


def messages(service: Service, process_id: str) -> list[str]:
    sql = f"SELECT msg FROM log_entries WHERE process_id = '{process_id}' ORDER BY time"
    return service.query(sql)["msg"].to_pylist()
