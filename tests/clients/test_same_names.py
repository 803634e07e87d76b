"""Programs written for the published client find all of its names in ours, with the same arguments."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import pytest
from clients.published import PublishedPackage

NAMES = {
    "micromegas": ["connect", "connect_with_profile", "ProfileError"],
    "micromegas.flightsql.client": ["FlightSQLClient", "PreparedStatement"],
    "micromegas.time": ["format_datetime", "parse_datetime", "parse_time_delta"],
    "micromegas.auth": ["OidcAuthProvider", "OidcClientCredentialsProvider", "StaticTokenAuthProvider"],
    "micromegas.oidc_connection": ["connect", "load_or_login"],
    "micromegas.perfetto": ["write_process_trace", "write_process_trace_from_chunks"],
    "micromegas.admin": ["list_incompatible_partitions", "retire_incompatible_partitions"],
}
"""By module. Left out: what makes or reads the messages of the protocol inside, and the client of the web server."""

# Runs in both environments.
SIGNATURES = """
def signatures(names):
    found = {}
    def add(name, value):
        parameters = inspect.signature(value).parameters.values()
        found[name] = [
            [each.name, None if each.default is each.empty else repr(each.default), each.kind.name]
            for each in parameters
        ]
    for module_name, members in names.items():
        module = importlib.import_module(module_name)
        for member in members:
            value = getattr(module, member)
            if inspect.isclass(value):
                for name in dir(value):
                    method = getattr(value, name)
                    if (not name.startswith("_") or name == "__init__") and callable(method):
                        if not issubclass(value, Exception):
                            add(f"{module_name}.{member}.{name}", method)
            else:
                add(f"{module_name}.{member}", value)
    return found
"""
# What a person gets from a server, and never makes.
NOT_MADE_BY_HAND = {"micromegas.flightsql.client.PreparedStatement.__init__"}
# By default the same server: theirs is written in `connect` only.
OTHER_DEFAULTS = {("micromegas.flightsql.client.FlightSQLClient.__init__", "uri")}


@pytest.fixture(scope="module")
def theirs(published: PublishedPackage) -> Mapping[str, list[list[Any]]]:
    script = f"import importlib, inspect, json\n{SIGNATURES}\nprint(json.dumps(signatures({NAMES!r})))"
    answer: dict[str, list[list[Any]]] = json.loads(published.run(script))
    return answer


def test_every_call_takes_what_theirs_takes(theirs: Mapping[str, list[list[Any]]]) -> None:
    scope: dict[str, Any] = {"importlib": importlib, "inspect": inspect}
    exec(SIGNATURES, scope)
    ours = scope["signatures"](NAMES)
    assert len(theirs) > 15
    for name, parameters in theirs.items():
        if name in NOT_MADE_BY_HAND:
            continue
        mine = ours[name]
        for position, (parameter, default, kind) in enumerate(parameters):
            assert mine[position][0] == parameter, f"{name}: {parameter}"
            if (name, parameter) not in OTHER_DEFAULTS:
                assert mine[position][1:] == [default, kind], f"{name}: {parameter}"
        more = [each for each in mine[len(parameters) :] if each[1] is None and each[2] != "VAR_KEYWORD"]
        assert not more, f"{name} wants more than theirs: {more}"


def test_the_package_gives_them_without_further_imports() -> None:
    import micromegas

    assert micromegas.flightsql.client.FlightSQLClient.__name__ == "FlightSQLClient"  # type: ignore[attr-defined]
    assert micromegas.time.parse_time_delta("90m").total_seconds() == 5400  # type: ignore[attr-defined]
    assert micromegas.time.format_datetime(None) is None  # type: ignore[attr-defined]
    assert issubclass(micromegas.ProfileError, ValueError)
    assert micromegas.__version__.count(".") == 2
