"""Requests through a proxy of our own: plain, tunnelled, refused, and told of by the environment."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from record.upload_programs import FAIL, RECORD, SECRET, with_init
from servers.http_proxy import HttpProxy


@pytest.fixture
def proxy() -> Iterator[HttpProxy]:
    running = HttpProxy()
    yield running
    running.close()


def test_a_plain_request_through_a_proxy(run, server, proxy):
    done = run(with_init(f"proxy='http://user:p%40{SECRET}@{proxy.place}'"))
    assert json.loads(done.stdout) == [True, None]
    assert server.captured.measures("m") == [1]
    authorization = "Basic " + base64.b64encode(f"user:p@{SECRET}".encode()).decode()
    assert {(method, authorization_) for method, _, authorization_ in proxy.asked} == {("POST", authorization)}
    assert all(url.startswith(server.url + "/ingestion/") for _, url, _ in proxy.asked)


def test_an_encrypted_request_through_a_proxy(run, server, authority, proxy):
    url = server.encrypt(authority.issue("127.0.0.1"))
    environment = {"MICROMEGAS_TELEMETRY_URL": url, "MICROMEGAS_CA_FILE": authority.file}
    done = run(with_init(f"proxy='{proxy.place}'"), env=environment)
    assert json.loads(done.stdout) == [True, None]
    assert server.captured.measures("m") == [1]
    assert {(method, path) for method, path, _ in proxy.asked} == {("CONNECT", url.removeprefix("https://"))}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_other_credentials(run, server, authority, proxy, scheme):
    proxy.refuses = True
    url = server.url.replace("http:", f"{scheme}:")
    environment = {"MICROMEGAS_TELEMETRY_URL": url, "MICROMEGAS_CA_FILE": authority.file}
    done = run(with_init(f"proxy='http://user:{SECRET}@{proxy.place}'", FAIL), env=environment)
    arrived, error = json.loads(done.stdout)
    assert not arrived
    assert "407" in error
    assert SECRET not in done.stdout + done.stderr
    assert server.captured.requests == []


@pytest.mark.parametrize(
    ("variables", "through"),
    [
        ({"HTTP_PROXY": "http://{}"}, True),
        ({"http_proxy": "{}", "HTTP_PROXY": "http://127.0.0.1:1"}, True),
        ({"ALL_PROXY": "http://{}"}, True),
        ({"HTTPS_PROXY": "http://{}"}, False),
        ({"HTTP_PROXY": "http://{}", "REQUEST_METHOD": "GET"}, False),
        ({"HTTP_PROXY": "http://{}", "NO_PROXY": "other.example, .Example"}, False),
        ({"HTTP_PROXY": "http://{}", "no_proxy": "other.example"}, True),
    ],
)
def test_proxies_of_the_environment(run, server, proxy, variables, through):
    """The server has a name that only the proxy could find; asked directly, nobody is there."""
    environment = {name: value.format(proxy.place) for name, value in variables.items()}
    proxy.refuses = True
    run(FAIL, env=environment | {"MICROMEGAS_TELEMETRY_URL": "http://server.example:9000"})
    assert bool(proxy.asked) == through
    if through:
        assert proxy.asked[0][:2] == ("POST", "http://server.example:9000/ingestion/insert_process")


def test_a_server_on_this_machine_is_not_reached_through_a_proxy_of_the_environment(run, server, proxy):
    environment = {"HTTP_PROXY": f"http://{proxy.place}", "ALL_PROXY": f"http://{proxy.place}"}
    done = run(RECORD, env=environment)
    assert json.loads(done.stdout) == [True, None]
    assert proxy.asked == []
