"""Profiles: which server, and as whom."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e.serving import serving

import micromegas
from micromegas.client import SignInRefused
from micromegas.client.profiles import ProfileError, load_profile
from micromegas.config import LakeSettings

Write = Callable[[Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration file; gives the home folder that holds it."""

    def writing(document: Any) -> Path:
        folder = tmp_path / ".micromegas"
        folder.mkdir(exist_ok=True)
        text = document if isinstance(document, str) else json.dumps(document)
        (folder / "config.json").write_text(text, encoding="utf-8")
        return tmp_path

    return writing


FILE = {
    "uri": "grpc://flat:1",
    "api_key_file": "/flat/key",
    "profiles": {
        "prod": {"uri": "grpc+tls://prod:2", "issuers": [{"issuer": "https://i", "audience": "a"}], "client_id": "c"},
        "dev": {"api_key_file": "~/dev.key"},
        "bare": {},
        "both": {"api_key_file": "/k", "issuers": [{"issuer": "https://i"}], "client_id": "c"},
    },
}


def test_without_a_file_the_default_is_asked(tmp_path: Path) -> None:
    profile = load_profile(None, {}, tmp_path)
    assert (profile.uri, profile.static_token(), profile.issuer) == ("grpc://localhost:50051", None, None)


@pytest.mark.parametrize(
    ("name", "environment", "server", "is_signed_in"),
    [
        (None, {}, "grpc://other:1", False),
        (None, {}, "grpc://flat:1", True),
        (None, {}, "http://FLAT:1/", True),
        (None, {}, "grpc://flat:2", False),
        ("bare", {}, "grpc://other:1", True),
        (None, {"MICROMEGAS_PROFILE": "bare"}, "grpc://other:1", False),
        (None, {"MICROMEGAS_API_KEY": "k"}, "grpc://other:1", True),
        (None, {"MICROMEGAS_API_KEY": "k", "MICROMEGAS_ANALYTICS_URI": "grpc://env:3"}, "grpc://other:1", False),
        (None, {"MICROMEGAS_API_KEY": "k", "MICROMEGAS_ANALYTICS_URI": "grpc://env:3"}, "grpc://env:3", True),
    ],
)
def test_another_server_does_not_learn_a_profiles_key(
    *, write: Write, name: str | None, environment: dict[str, str], server: str, is_signed_in: bool
) -> None:
    profile = load_profile(name, environment, write(FILE), server=server)
    assert profile.uri == server
    assert ((profile.api_key or profile.api_key_file) is not None) == is_signed_in


def test_another_server_does_not_learn_a_persons_token(write: Write) -> None:
    home = write({**FILE, "default_profile": "prod"})
    assert load_profile(None, {}, home, server="grpc://other:1").issuer is None
    assert (
        load_profile(None, {"MICROMEGAS_OIDC_ISSUER": "https://e"}, home, server="grpc://other:1").issuer == "https://e"
    )


@pytest.mark.parametrize(
    ("name", "environment", "default", "uri", "issuer", "key_file"),
    [
        (None, {}, None, "grpc://flat:1", None, Path("/flat/key")),
        ("prod", {}, None, "grpc+tls://prod:2", "https://i", None),
        (None, {}, "prod", "grpc+tls://prod:2", "https://i", None),
        (None, {"MICROMEGAS_PROFILE": "dev"}, "prod", "grpc://flat:1", None, Path("~/dev.key").expanduser()),
        ("bare", {"MICROMEGAS_PROFILE": "dev"}, "prod", "grpc://flat:1", None, Path("/flat/key")),
        ("prod", {"MICROMEGAS_ANALYTICS_URI": "grpc://env:3"}, None, "grpc://env:3", "https://i", None),
        ("prod", {"MICROMEGAS_OIDC_ISSUER": "https://e"}, None, "grpc+tls://prod:2", "https://e", None),
    ],
)
def test_what_decides(
    *,
    write: Write,
    name: str | None,
    environment: dict[str, str],
    default: str | None,
    uri: str,
    issuer: str | None,
    key_file: Path | None,
) -> None:
    home = write(FILE if default is None else FILE | {"default_profile": default})
    profile = load_profile(name, environment, home)
    assert (profile.uri, profile.issuer, profile.api_key_file) == (uri, issuer, key_file)


@pytest.mark.parametrize(
    ("document", "name", "text"),
    [
        (FILE, "nope", "nope is not in .*bare, both, dev, prod"),
        (FILE, "../x", "names are made of"),
        (FILE, "both", "both api_key_file and an issuer"),
        ({"uri": 7}, None, "uri must be a text"),
        ({"profiles": []}, "x", "profiles must be an object"),
        ({"issuers": "https://i"}, None, "issuers must be a list"),
        ("[]", None, "must hold an object"),
        ("{", None, "no JSON"),
        ({}, "x", "profiles there: none"),
    ],
)
def test_what_is_wrong_is_named(write: Write, document: Any, name: str | None, text: str) -> None:
    with pytest.raises(ProfileError, match=text):
        load_profile(name, {}, write(document))


def test_key_files(write: Write, tmp_path: Path) -> None:
    key = tmp_path / "key"
    home = write({"api_key_file": str(key)})
    with pytest.raises(ProfileError, match="No such file"):
        load_profile(None, {}, home).static_token()
    key.write_text("two\nlines", encoding="utf-8")
    with pytest.raises(ProfileError, match="no token"):
        load_profile(None, {}, home).static_token()
    key.write_text(" secret-7 \n", encoding="utf-8")
    provider = load_profile(None, {}, home).static_token()
    assert provider is not None
    assert provider.get_token() == "secret-7"
    assert "secret" not in repr(provider) + repr(load_profile(None, {"MICROMEGAS_API_KEY": "secret-8"}, home))


def test_a_profile_signs_in(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("k-1\n", encoding="utf-8")
    environment = {"MICROMEGAS_API_KEYS": json.dumps([{"name": "ann", "key": "k-1"}])}
    lake = LakeSettings(lake_dir=tmp_path / "lake")
    with serving(lake, environment=environment, api_key="k-1") as service:
        address = f"grpc://127.0.0.1:{service.flight_port}"
        profiles = {"good": {"api_key_file": str(tmp_path / "key")}, "none": {}}
        monkeypatch.setenv("HOME", str(write({"uri": address, "profiles": profiles})))
        with micromegas.connect_with_profile("good") as client:
            assert len(client.query("SELECT 1 AS one")) == 1
        with micromegas.connect_with_profile("none") as client, pytest.raises(SignInRefused, match="api key"):
            client.query("SELECT 1")
        with micromegas.connect(address, api_key="k-1") as client:
            assert len(client.query("SELECT $1 AS one", parameters=["x"])) == 1
