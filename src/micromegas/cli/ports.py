"""What answers on the ports of a deployment beside that of Flight SQL, as senders and clients see it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from micromegas.cli.findings import OK, PROBLEM, WARNING, Finding
from micromegas.client import AuthProvider, StaticTokenAuthProvider

_TIMEOUT_S = 10.0
_API_PORT = 3000
_PG_PORT = 5432
_ONE = json.dumps({"sql": "SELECT 1 AS one"}).encode()
# the message by which a client of PostgreSQL asks for TLS, which every server answers
_TLS_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)


def ingestion(url: str, key: str | None) -> Iterator[Finding]:
    """Ingestion, and the key of senders."""
    try:
        provider = None if key is None else StaticTokenAuthProvider(key)
        # an empty body is refused as one, but only to who may send
        (ready, text), (status, _) = _ask(url, "/ready"), _ask(url, "/ingestion/insert_process", provider, b"")
    except (OSError, http.client.HTTPException) as error:
        step = "start  micromegas serve  there, or give --url"
        yield Finding("ingestion", PROBLEM, f"no answer from {url}: {error}", step)
        return
    except ValueError as error:
        step = "give --url http://host:9000, and a key as  micromegas keys add  told it"
        yield Finding("ingestion", PROBLEM, f"{url} can't be asked: {error}", step)
        return
    if ready == 200:
        yield Finding("ingestion", OK, f"{url} takes telemetry: database and object store answer")
    else:
        yield Finding("ingestion", PROBLEM, f"{url} is not ready: {text}", "see its log and its stores")
    if status == 401:
        yield Finding("ingestion key", PROBLEM, "the key is refused", "set MICROMEGAS_INGESTION_API_KEY")
    elif status == 404:
        yield Finding("ingestion key", PROBLEM, f"{url} is not ingestion", "give --url the address of ingestion")


def http_queries(url: str | None, server: str, provider: AuthProvider | None, usual_port: int = _API_PORT) -> Finding:
    """Queries over HTTP; at the usual port of the host of `server` where no address is given, and may be missing
    there."""
    asked = url or _beside(server, usual_port)
    try:
        # at a guessed address anybody may listen, who must not learn the key
        status, text = _ask(asked, "/api/query", None if url is None else provider, _ONE)
        if url is None and provider is not None and status == 401 and '"unauthenticated"' in text:
            status, text = _ask(asked, "/api/query", provider, _ONE)
    except (OSError, http.client.HTTPException) as error:
        if url is None:
            return Finding("http", OK, f"nothing is served at {asked}", "give --api-url where queries over HTTP are")
        step = "start  micromegas serve  with --api-port there, or give --api-url"
        return Finding("http", PROBLEM, f"no answer from {asked}: {error}", step)
    except ValueError as error:
        return Finding("http", PROBLEM, f"{asked} can't be asked: {error}", "give --api-url http://host:3000")
    if status == 200:
        return Finding("http", OK, f"{asked} answers queries")
    if status == 401:
        return Finding("http", PROBLEM, f"{asked} refuses the key", "set --api-key or MICROMEGAS_API_KEY")
    if status == 421:
        return Finding("http", WARNING, f"{asked} does not know itself by this name", "start it with --allow-host")
    if url is None:
        return Finding("http", OK, f"{asked} is something else's", "give --api-url where queries over HTTP are")
    return Finding("http", PROBLEM, f"{asked} answered {status}: {text[:200]}", "give --api-url its address")


def postgresql(address: str) -> Finding:
    """The PostgreSQL gateway at `host:port`, or as `serve` tells it with a scheme: whether it is there, and offers
    TLS."""
    try:
        parts = urlsplit(f"//{address.removeprefix('postgresql://').removeprefix('postgres://')}")
        place = (parts.hostname or "", parts.port or _PG_PORT)
        with socket.create_connection(place, timeout=_TIMEOUT_S) as connection:
            connection.sendall(_TLS_REQUEST)
            answer = connection.recv(1)
    except (OSError, ValueError) as error:
        step = "start  micromegas pg-gateway  there, or give --pg host:port"
        return Finding("postgresql", PROBLEM, f"no answer from {address}: {error}", step)
    if answer not in (b"S", b"N"):
        return Finding("postgresql", PROBLEM, f"{address} speaks another protocol", "give --pg its address")
    return Finding("postgresql", OK, f"{address} answers, {'with' if answer == b'S' else 'without'} TLS")


def _beside(server: str, port: int) -> str:
    """The usual address of queries over HTTP on the host of a server."""
    scheme, _, rest = server.rpartition("://")
    host = urlsplit(f"//{rest}").hostname or "localhost"
    bracketed = f"[{host}]" if ":" in host else host
    return f"{'https' if scheme in ('grpc+tls', 'https') else 'http'}://{bracketed}:{port}"


def _ask(url: str, path: str, provider: AuthProvider | None = None, body: bytes | None = None) -> tuple[int, str]:
    """Status and text of the answer; `ValueError` for what is no address and no key."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is no address of HTTP")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=_TIMEOUT_S)
    try:
        headers = {} if provider is None else {"authorization": f"Bearer {provider.get_token()}"}
        if body:
            headers["content-type"] = "application/json"
        connection.request("GET" if body is None else "POST", parts.path.rstrip("/") + path, body, headers)
        response = connection.getresponse()
        return response.status, " ".join(response.read(1000).decode("utf-8", "replace").split())
    finally:
        connection.close()
