"""Queries and traces over HTTP, of the real server on both back ends."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from e2e.posting import assert_all_accepted, post_all
from e2e.recordings import recording
from e2e.serving import Service, serving
from traces.processor import loaded

from micromegas.config import LakeSettings

ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture
def service(lake_backend: LakeSettings) -> Iterator[Service]:
    with serving(lake_backend) as running:
        for name in ("logs", "async"):
            requests = recording(name).requests
            assert_all_accepted(requests, post_all(running.http_port, requests))
        yield running


def asked(service: Service, document: dict[str, Any], accept: str = "application/json") -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{service.api_port}/api/query",
        json.dumps(document).encode(),
        {"content-type": "application/json", "accept": accept},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        body: bytes = reply.read()
        return body


def test_the_rows_are_those_of_flight_sql(service: Service) -> None:
    sql = "SELECT * FROM log_entries ORDER BY process_id, time, msg"
    table = service.query(sql)
    assert table.num_rows > 10
    with pa.ipc.open_stream(asked(service, {"sql": sql}, ARROW)) as reader:
        assert reader.read_all().equals(table)
    rows = json.loads(asked(service, {"sql": sql}))
    assert [row["msg"] for row in rows] == table["msg"].to_pylist()
    assert list(rows[0]) == table.schema.names
    times = table["time"].cast(pa.int64()).to_pylist()
    middle = {"sql": "SELECT count(*) AS n FROM log_entries", "begin": times[3], "end": times[-2]}
    assert json.loads(asked(service, middle)) == [{"n": sum(times[3] <= time <= times[-2] for time in times)}]
    bound = {"sql": "SELECT count(*) AS n FROM log_entries WHERE level <= $most", "parameters": {"most": 4}}
    assert json.loads(asked(service, bound)) == [{"n": sum(level <= 4 for level in table["level"].to_pylist())}]
    with pytest.raises(urllib.error.HTTPError) as refused:
        asked(service, {"sql": "SELECT nothing FROM log_entries"})
    assert refused.value.code == 400
    assert "nothing" in json.load(refused.value)["message"]


def test_a_trace_is_downloaded(service: Service) -> None:
    (process_id,) = recording("async").processes
    url = f"http://127.0.0.1:{service.api_port}/api/perfetto/{process_id}"
    with urllib.request.urlopen(f"{url}?types=async", timeout=60) as reply:
        assert f"{process_id}.perfetto-trace" in reply.headers["content-disposition"]
        trace = reply.read()
    sql = f"SELECT count(*) AS n FROM process_spans('{process_id}', 'async')"
    spans = service.query(sql, ranged=True)["n"][0].as_py()
    with loaded(trace) as opened:
        assert opened.rows("SELECT count(*) AS n FROM slice") == [(spans,)]
    with urllib.request.urlopen(f"{url}?begin=2001-01-01&end=2001-01-02", timeout=60) as reply:
        assert len(reply.read()) < len(trace)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url.replace(process_id, "0" * 32), timeout=60)
    assert refused.value.code == 400
    assert "unknown process" in json.load(io.BytesIO(refused.value.read()))["message"]
