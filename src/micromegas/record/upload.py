"""How to reach the server, as the program and the environment say: where, through what, trusting whom, known as whom.

Gathers; the native half checks each of it and starts nothing that can't be.
"""

import os
from collections.abc import Mapping

DEFAULT_URL = "http://127.0.0.1:9000"


def upload_decisions(
    environment: Mapping[str, str],
    *,
    url: str | None,
    api_key: str | None,
    headers: Mapping[str, str] | None,
    renewed: bool,
    proxy: str | None,
    ca_file: str | os.PathLike[str] | None,
    client_certificate: str | os.PathLike[str] | None,
    client_key: str | os.PathLike[str] | None,
) -> dict[str, object]:
    """The mapping that `_core.recorder_start` takes as `upload`; `renewed`: credentials will be handed over later."""
    server = url if url is not None else environment.get("MICROMEGAS_TELEMETRY_URL") or DEFAULT_URL
    given = {str(name): str(value) for name, value in (headers or {}).items()}
    if api_key is None and not renewed and not any(name.lower() == "authorization" for name in given):
        api_key = environment.get("MICROMEGAS_INGESTION_API_KEY")
    certificate = _path(client_certificate, environment, "MICROMEGAS_CLIENT_CERTIFICATE")
    key = _path(client_key, environment, "MICROMEGAS_CLIENT_KEY")
    if key is not None and certificate is None:
        raise ValueError("client_key: of no client_certificate; name that, too")
    return {
        "url": server,
        "api_key": api_key,
        "headers": list(given.items()),
        "credentials_renewed": renewed,
        "proxy": proxy,
        "environment_proxy": _environment_proxy(environment, server),
        "no_proxy": _either_case(environment, "no_proxy") or "",
        "ca_file": _path(ca_file, environment, "MICROMEGAS_CA_FILE"),
        "ssl_cert_file": environment.get("SSL_CERT_FILE") or None,
        "ssl_cert_dir": environment.get("SSL_CERT_DIR") or None,
        "client_certificate": certificate,
        "client_key": key,
    }


def _path(given: str | os.PathLike[str] | None, environment: Mapping[str, str], variable: str) -> str | None:
    if given is not None:
        return os.fspath(given)
    return environment.get(variable) or None


def _either_case(environment: Mapping[str, str], name: str) -> str | None:
    return environment.get(name) or environment.get(name.upper())


def _environment_proxy(environment: Mapping[str, str], server: str) -> str | None:
    if server.lstrip()[:6].lower() == "https:":
        proxy = _either_case(environment, "https_proxy")
    elif "REQUEST_METHOD" in environment:
        # A CGI script's HTTP_PROXY is a header that anybody may have sent.
        proxy = environment.get("http_proxy")
    else:
        proxy = _either_case(environment, "http_proxy")
    return proxy or _either_case(environment, "all_proxy")
