"""The face of the ingestion service: statuses, limits, hostile requests, and what is stored after good ones."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
from collections.abc import Iterator

import cbor2
import pytest
from e2e.posting import wait_until
from senders import block_body, new_id, process_body, stream_body
from servers.identity_provider import IdentityProviderServer
from servers.ingest import RunningIngest, post, request, running_ingest

from micromegas.config import ApiKey, IngestSettings, LakeSettings, OidcIssuer, OidcSettings, parse_api_keys
from micromegas.lake import Lake

LIMIT = 300_000


@pytest.fixture
def service(lake: Lake) -> Iterator[RunningIngest]:
    with running_ingest(lake, IngestSettings(port=0, max_body_bytes=LIMIT), lake.check) as server:
        yield server


@pytest.fixture(scope="module")
def folder_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """One lake for all the requests that must leave nothing behind."""
    with Lake.open(LakeSettings(lake_dir=tmp_path_factory.mktemp("lake"))) as lake:
        yield lake


@pytest.fixture(scope="module")
def folder_service(folder_lake: Lake) -> Iterator[RunningIngest]:
    with running_ingest(folder_lake, IngestSettings(port=0, max_body_bytes=LIMIT), folder_lake.check) as server:
        yield server


def exchange(port: int, sent: bytes) -> bytes:
    """Send raw bytes, half-close, and read until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


def test_a_process_a_stream_and_its_block(lake: Lake, service: RunningIngest) -> None:
    process_id, stream_id, block_id = new_id(), new_id(), new_id()
    body = block_body(process_id, stream_id, block_id.upper(), size=5000)
    assert post(service.port, "block", body) == 200
    assert lake.metadata.blocks() == []
    assert post(service.port, "stream", stream_body(process_id, stream_id, properties={"thread-name": "main"})) == 200
    assert request(service.port, "POST", "/ingestion/insert_process", process_body(process_id))[:2] == (200, b"")
    (row,) = lake.metadata.blocks()
    assert (row.block_id, row.begin_ticks, row.end_time - row.begin_time) == (block_id, -5, 1_000_000_001)
    assert cbor2.loads(lake.read_payload(row)) == cbor2.loads(body)["payload"]
    for _ in range(3):
        assert post(service.port, "block", body) == 200
    assert lake.metadata.blocks() == [row]


def test_senders_are_told_which_encodings_they_may_choose(lake: Lake, service: RunningIngest) -> None:
    process_id, stream_ids = new_id(), [new_id(), new_id(), new_id()]
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    for route, body, told in (
        ("process", process_body(process_id), "micromegas-transit, micromegas-columns/1"),
        ("stream", stream_body(process_id, stream_ids[0]), None),
    ):
        connection.request("POST", f"/ingestion/insert_{route}", body)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"")
        assert response.headers["micromegas-stream-formats"] == told
    connection.close()
    # any text is kept: what nobody here can read may come from another server's lake
    for stream_id, stream_format in zip(stream_ids[1:], ("micromegas-columns/1", "otlp/v1/logs"), strict=True):
        body = cbor2.loads(stream_body(process_id, stream_id)) | {"format": stream_format}
        assert post(service.port, "stream", cbor2.dumps(body)) == 200
    body = cbor2.loads(stream_body(process_id, new_id())) | {"format": 1}
    assert post(service.port, "stream", cbor2.dumps(body)) == 400
    rows = lake.metadata.streams(stream_ids)
    formats = [rows[stream_id].format for stream_id in stream_ids]
    assert formats == ["micromegas-transit", "micromegas-columns/1", "otlp/v1/logs"]


def test_both_payload_forms_are_stored_alike(lake: Lake, service: RunningIngest) -> None:
    process_id, stream_id = new_id(), new_id()
    post(service.port, "process", process_body(process_id))
    post(service.port, "stream", stream_body(process_id, stream_id))
    raw = bytes(range(256))
    assert (
        post(
            service.port,
            "block",
            block_body(process_id, stream_id, new_id(), payload={"dependencies": raw, "objects": raw}),
        )
        == 200
    )
    assert (
        post(
            service.port,
            "block",
            block_body(process_id, stream_id, new_id(), payload={"dependencies": list(raw), "objects": list(raw)}),
        )
        == 200
    )
    first, second = lake.read_payloads(lake.metadata.blocks())
    assert first == second == cbor2.dumps({"dependencies": raw, "objects": raw})


def test_senders_cannot_set_the_services_own_properties(lake: Lake, service: RunningIngest) -> None:
    process_id, stream_id = new_id(), new_id()
    properties = {"micromegas.audience": "all", "micromegas": "kept", "version": "1"}
    assert post(service.port, "process", process_body(process_id, properties=properties)) == 200
    assert post(service.port, "stream", stream_body(process_id, stream_id, properties=properties)) == 200
    kept = {"micromegas": "kept", "version": "1"}
    assert lake.metadata.processes([process_id])[process_id].properties == kept
    assert lake.metadata.streams([stream_id])[stream_id].properties == kept


GOOD_IDS = (new_id(), new_id(), new_id())


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param("block", b"", id="empty"),
        pytest.param("process", b"", id="empty process"),
        pytest.param("block", b"\xff" * 1000, id="garbage"),
        pytest.param("block", b'{"block_id": 1}', id="json"),
        pytest.param("block", gzip.compress(block_body(*GOOD_IDS)), id="gzip"),
        pytest.param("block", block_body(*GOOD_IDS)[:-3], id="cut"),
        pytest.param("block", cbor2.dumps([1, 2, 3]), id="array"),
        pytest.param("block", cbor2.dumps({}), id="no fields"),
        pytest.param("block", block_body(*GOOD_IDS, nb_objects=2**31), id="count too great"),
        pytest.param("block", block_body(*GOOD_IDS, begin_ticks=2**63), id="ticks too great"),
        pytest.param("block", block_body(*GOOD_IDS, begin_time="yesterday"), id="no time"),
        pytest.param("block", block_body(*GOOD_IDS, payload={"dependencies": b""}), id="half a payload"),
        pytest.param("block", block_body(*GOOD_IDS, payload={"dependencies": [256], "objects": b""}), id="no byte"),
        pytest.param("block", block_body("../../etc", *GOOD_IDS[1:]), id="path for an id"),
        pytest.param("block", b"\x9b\x00\x00\xff\xff\xff\xff\xff\xff", id="announced length"),
        pytest.param("block", b"\xbf" * 50_000, id="nesting"),
        pytest.param("process", process_body("not-an-id"), id="no id"),
        pytest.param("process", process_body(new_id(), properties={"a": 1}), id="property not a text"),
        pytest.param("process", process_body(new_id(), tsc_frequency=1.5), id="float"),
        pytest.param("stream", stream_body(new_id(), new_id(), tags="log"), id="tags not a list"),
        pytest.param(
            "stream", stream_body(new_id(), new_id(), objects_metadata=[{"name": "x"}]), id="layout incomplete"
        ),
    ],
)
def test_what_can_never_be_good_is_400_and_leaves_nothing(
    folder_lake: Lake, folder_service: RunningIngest, kind: str, body: bytes
) -> None:
    status, text, headers = request(folder_service.port, "POST", f"/ingestion/insert_{kind}", body)
    assert status == 400
    assert 0 < len(text) < 300
    assert b"\n" not in text, "a fault is named, not traced back"
    assert headers["content-type"].startswith("text/plain")
    assert folder_lake.metadata.watermark() == 0
    assert list(folder_lake.objects.list("packs")) == []
    assert request(folder_service.port, "GET", "/ready")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/ingestion/insert_nothing", 404),
        ("POST", "//ingestion/insert_block", 404),
        ("POST", "/ingestion/insert_block/", 404),
        ("GET", "/ingestion/insert_block", 405),
        ("PUT", "/ingestion/insert_block", 405),
        ("DELETE", "/ingestion/insert_process", 405),
        ("POST", "/health", 405),
        ("GET", "/health", 200),
        ("HEAD", "/health", 200),
        ("GET", "/ready", 200),
        ("HEAD", "/ready", 200),
        ("HEAD", "/nothing", 404),
    ],
)
def test_paths_and_methods(folder_service: RunningIngest, method: str, path: str, status: int) -> None:
    answered, _, headers = request(folder_service.port, method, path)
    assert answered == status
    assert ("allow" in headers) == (status == 405)


def test_bodies_over_the_limit_are_413(lake: Lake, service: RunningIngest) -> None:
    ids = (new_id(), new_id(), new_id())
    fits = block_body(*ids, size=LIMIT - 1000)
    assert len(fits) <= LIMIT
    assert post(service.port, "block", fits) == 200
    announced = b"POST /ingestion/insert_block HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(announced)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413"), "refused by its announcement, before its bytes"
    chunked = b"POST /ingestion/insert_block HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(chunked)
        try:
            for _ in range(200):
                connection.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        except OSError:
            pass  # the server may close while we still send
        else:
            assert connection.recv(65536).startswith(b"HTTP/1.1 413")
    assert request(service.port, "GET", "/health")[0] == 200


def test_a_chunked_body_is_good(lake: Lake, service: RunningIngest) -> None:
    process_id = new_id()
    body = process_body(process_id)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)) as connection:
        parts = (body[start : start + 7] for start in range(0, len(body), 7))
        connection.request("POST", "/ingestion/insert_process", parts, encode_chunked=True)
        assert connection.getresponse().status == 200
    assert lake.metadata.processes([process_id])


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00" * 1000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /ingestion/insert_block HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /ingestion/insert_block HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\nab",
        b"POST /ingestion/insert_block HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nshort",
        b"POST /ingestion/insert_block HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"",
    ],
    ids=[
        "zeros",
        "version",
        "negative length",
        "two lengths",
        "short body",
        "bad chunk",
        "long path",
        "tls",
        "nothing",
    ],
)
def test_garbage_instead_of_http(folder_lake: Lake, folder_service: RunningIngest, sent: bytes) -> None:
    try:
        answer = exchange(folder_service.port, sent)
    except OSError:
        answer = b""
    assert b" 200 " not in answer.split(b"\r\n")[0]
    assert b" 500 " not in answer.split(b"\r\n")[0]
    assert request(folder_service.port, "GET", "/ready")[0] == 200
    assert folder_lake.metadata.watermark() == 0


def test_keys() -> None:
    keys = parse_api_keys('[{"name": "ci", "key": "secret one"}, {"name": "x", "key": "two"}]')
    assert "secret" not in repr(keys)
    assert "secret" not in repr(IngestSettings(api_keys=keys))
    for wrong in ("", "{}", "[1]", '[{"name": "a"}]', '[{"name": "a", "key": ""}]', '[{"name": 1, "key": "secret"}]'):
        with pytest.raises(ValueError, match="api keys") as caught:
            parse_api_keys(wrong)
        assert "secret" not in str(caught.value)


def test_authentication(lake: Lake) -> None:
    settings = IngestSettings(port=0, api_keys=(ApiKey("a", "key-one"), ApiKey("b", "key-twö")))
    body = process_body(new_id())
    with running_ingest(lake, settings, lake.check) as service:
        for headers in (
            {},
            {"authorization": "Bearer "},
            {"authorization": "Bearer key"},
            {"authorization": "bearer key-one"},
            {"authorization": "key-one"},
            {"authorization": "Bearer key-one "[:-2]},
            {"authorization": "Basic a2V5LW9uZQ=="},
            {"authorization": "Bearer \xff\xfe"},
        ):
            answer = request(service.port, "POST", "/ingestion/insert_process", body, headers)
            assert answer[:2] == (401, b"Invalid token")
        assert lake.metadata.watermark() == 0
        assert post(service.port, "process", body, authorization="Bearer key-one") == 200
        assert request(service.port, "GET", "/health")[0] == request(service.port, "GET", "/ready")[0] == 200


def test_tokens_of_identity_providers(folder_lake: Lake) -> None:
    provider = IdentityProviderServer()
    oidc = OidcSettings((OidcIssuer(provider.issuer, provider.client_id),))
    try:
        with running_ingest(folder_lake, IngestSettings(port=0, oidc=oidc, api_keys=(ApiKey("a", "key"),))) as service:

            def sent(presented: str | None) -> tuple[int, bytes]:
                headers = {} if presented is None else {"authorization": presented}
                return request(service.port, "POST", "/ingestion/insert_process", process_body(new_id()), headers)[:2]

            provider.is_up = False
            status, text = sent(f"Bearer {provider.id_token()}")
            assert (status, text) == (503, b"Auth provider unavailable")
            assert sent("Bearer key") == (200, b"")
            provider.is_up = True
            wait_until(lambda: sent(f"Bearer {provider.id_token()}") == (200, b""), "the provider answers again")
            good = provider.id_token()
            others = (provider.id_token(aud="another"), provider.id_token(exp=1000), "a.b.c", f"{good}x", "")
            for refused in (None, good, f"Basic {good}", *(f"Bearer {other}" for other in others)):
                assert sent(refused) == (401, b"Invalid token"), refused
    finally:
        provider.close()
