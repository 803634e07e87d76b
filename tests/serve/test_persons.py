"""Persons, by the tokens of an identity provider: who is let in, as whom, and what lets nobody in."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace

import pytest
from pyarrow import flight
from serve.conftest import RunningApi, StartApi, StartServer, wait_until
from serve.http_calls import Reply, post
from servers.identity_provider import IdentityProviderServer

from micromegas.config import ApiKey, FlightSettings, OidcIssuer, OidcSettings, PostgresSettings, parse_oidc_settings
from micromegas.serve.id_tokens import ProviderUnreachable, TokenRefused, TokenVerifier

QUERY = {"sql": "SELECT 1 AS one"}


@pytest.fixture
def oidc(provider: IdentityProviderServer) -> OidcSettings:
    return OidcSettings((OidcIssuer(provider.issuer, provider.client_id),))


@pytest.fixture
def guarded(start_api: StartApi, oidc: OidcSettings) -> RunningApi:
    return start_api(oidc=oidc, api_keys=(ApiKey("robot", "k-1"),))


def asked(api: RunningApi, token: str, **headers: str) -> Reply:
    return post(api, QUERY, authorization=f"Bearer {token}", **headers)


def test_persons_and_keys_are_let_in(guarded: RunningApi, provider: IdentityProviderServer) -> None:
    assert asked(guarded, provider.id_token()).rows == [{"one": 1}]
    assert guarded.engine.requests[-1].user == "ann@example.com"
    assert asked(guarded, "k-1").status == 200
    assert guarded.engine.requests[-1].user == "robot"
    for header in ("", "Bearer nonsense", "Bearer a.b.c", "Bearer ", "Basic YTpi"):
        assert post(guarded, QUERY, authorization=header).problem == (401, "unauthenticated")
    # a page of another name can't have a token
    assert asked(guarded, provider.id_token(), host="lake.example.com").status == 200


def test_flight_lets_in_alike(start_server: StartServer, provider: IdentityProviderServer, oidc: OidcSettings) -> None:
    server = start_server(oidc=oidc)
    token = provider.id_token()
    with flight.connect(server.uri) as client:
        for headers, error in (
            ([(b"authorization", f"Bearer {token}".encode())], None),
            ([(b"authorization", b"Bearer x.y.z")], flight.FlightUnauthenticatedError),
            ([], flight.FlightUnauthenticatedError),
            (
                [(b"authorization", f"Bearer {token}".encode()), (b"x-user-email", b"eve@example.com")],
                flight.FlightUnauthorizedError,
            ),
        ):
            options = flight.FlightCallOptions(headers=headers)
            if error is None:
                assert len(list(client.list_actions(options))) > 0
            else:
                with pytest.raises(error):
                    list(client.list_actions(options))


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another"},
        {"aud": None},
        {"iss": "https://another"},
        {"iss": None},
        {"exp": 1000},
        {"exp": None},
        {"exp": "9999999999"},
        {"nbf": 99999999999},
        {"sub": ""},
        {"sub": 7},
    ],
    ids=str,
)
def test_what_is_signed_but_not_for_here_is_refused(
    guarded: RunningApi, provider: IdentityProviderServer, claims: dict[str, object]
) -> None:
    reply = asked(guarded, provider.id_token(**claims))
    assert reply.problem == (401, "unauthenticated")


def test_what_its_issuer_did_not_sign_is_refused(guarded: RunningApi, provider: IdentityProviderServer) -> None:
    other = IdentityProviderServer()
    try:
        good = provider.id_token()
        header, claims, signature = good.split(".")
        eve = (
            base64.urlsafe_b64encode(json.dumps({"iss": provider.issuer, "sub": "eve"}).encode()).rstrip(b"=").decode()
        )
        provider.algorithm = "none"
        unsigned = provider.id_token()
        provider.algorithm = "HS256"
        forged = [
            f"{header}.{eve}.{signature}",
            f"{header}.{claims}.",
            f"{header}.{claims}.{signature[:-4]}",
            f"{header}.{claims}.{encoded(bytes(256))}",
            f"{header}.{claims}.{encoded(bytes([255]) * 256)}",
            unsigned,
            f"{unsigned.rpartition('.')[0]}.",
            provider.id_token(),
            other.id_token(iss=provider.issuer),
            f"{good}.{signature}",
            "é.é.é",
            "A" * 20_000,
        ]
    finally:
        other.close()
    for token in forged:
        assert post(guarded, QUERY, authorization=f"Bearer {token}".encode().decode("latin-1")).status == 401, token[
            :80
        ]
    assert guarded.engine.requests == []
    assert asked(guarded, good).status == 200


def test_new_keys_of_an_issuer_are_found(provider: IdentityProviderServer, oidc: OidcSettings) -> None:
    async def checked() -> None:
        verifier = TokenVerifier(oidc)
        assert (await verifier.person_of(provider.id_token())).email == "ann@example.com"
        provider.is_up = False
        # what is known stays good without the issuer
        assert (await verifier.person_of(provider.id_token(name="Anna"))).name == "Anna"
        provider.key_id = "key-2"
        with pytest.raises(TokenRefused, match="signature"):
            await verifier.person_of(provider.id_token())
        late = TokenVerifier(oidc)
        with pytest.raises(ProviderUnreachable, match="can't be had"):
            await late.person_of(provider.id_token())
        provider.is_up = True
        assert (await TokenVerifier(oidc).person_of(provider.id_token())).subject == "u-1"

    asyncio.run(checked())


def test_an_issuer_that_is_away_is_no_refusal(guarded: RunningApi, provider: IdentityProviderServer) -> None:
    provider.is_up = False
    assert asked(guarded, provider.id_token()).problem == (503, "unavailable")
    assert asked(guarded, "k-1").status == 200
    provider.is_up = True
    wait_until(lambda: asked(guarded, provider.id_token()).status == 200)


@pytest.mark.parametrize(
    ("claims", "administers"),
    [
        ({}, True),
        ({"email": "eve@example.com", "sub": "boss"}, True),
        ({"email": "eve@example.com"}, False),
        ({"email_verified": False}, False),
        ({"email": None, "preferred_username": "ann@example.com"}, False),
        ({"email": "eve@example.com", "name": "ann@example.com"}, False),
    ],
)
def test_who_administers(
    start_api: StartApi,
    provider: IdentityProviderServer,
    oidc: OidcSettings,
    claims: dict[str, object],
    *,
    administers: bool,
) -> None:
    api = start_api(oidc=oidc, admins=frozenset({"ann@example.com", "boss"}))
    assert asked(api, provider.id_token(**claims)).status == 200
    assert api.engine.requests[-1].administers == administers


def test_subjects_are_told_apart_by_their_issuers(start_api: StartApi, provider: IdentityProviderServer) -> None:
    other = IdentityProviderServer()
    try:
        issuers = tuple(OidcIssuer(each.issuer, each.client_id) for each in (provider, other))
        nobody = {"email": None}
        named = start_api(oidc=OidcSettings(issuers), admins=frozenset({f"{provider.issuer}#boss"}))
        bare = start_api(oidc=OidcSettings(issuers), admins=frozenset({"boss"}))
        alone = start_api(oidc=OidcSettings(issuers[:1]), admins=frozenset({f"{provider.issuer}#boss"}))
        for api, asks, administers in (
            (named, provider, True),
            (named, other, False),
            (bare, provider, False),
            (bare, other, False),
            (alone, provider, True),
        ):
            assert asked(api, asks.id_token(sub="boss", **nobody)).status == 200
            assert api.engine.requests[-1].administers == administers
        assert alone.engine.requests[-1].user == "boss"
        assert {request.user for request in named.engine.requests} == {
            f"{each.issuer}#boss" for each in (provider, other)
        }
    finally:
        other.close()


def test_rules_know_persons_by_no_name_of_their_choice(guarded: RunningApi, provider: IdentityProviderServer) -> None:
    chosen = {"email": None, "preferred_username": "ann@example.com"}
    for claims, user in (({}, "ann@example.com"), (chosen, "u-1"), (chosen | {"sub": "u-2"}, "u-2")):
        assert asked(guarded, provider.id_token(**claims)).status == 200
        assert guarded.engine.requests[-1].user == user


def test_a_slow_issuer_holds_up_only_whom_it_must(provider: IdentityProviderServer, oidc: OidcSettings) -> None:
    async def checked() -> None:
        verifier = TokenVerifier(replace(oidc, keys_refresh_s=1e-9))
        await verifier.person_of(provider.id_token())
        provider.may_answer.clear()
        waiting = asyncio.create_task(verifier.person_of(provider.id_token(name="Anna")))
        try:
            assert await asyncio.to_thread(provider.is_asked.wait, 30)
            async with asyncio.timeout(5):
                assert (await verifier.person_of(provider.id_token(name="Anne"))).name == "Anne"
            assert not waiting.done()
        finally:
            provider.may_answer.set()
        assert (await waiting).name == "Anna"

    asyncio.run(checked())


def test_a_person_asks_for_themselves_only(guarded: RunningApi, provider: IdentityProviderServer) -> None:
    token = provider.id_token()
    assert asked(guarded, token, x_user_email="ann%40example.com", x_user_id="u-1").status == 200
    for headers in ({"x_user_email": "eve@example.com"}, {"x_user_id": "u-2"}):
        assert asked(guarded, token, **headers).problem == (403, "denied")
    assert asked(guarded, "k-1", x_user_email="eve@example.com").status == 200


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not JSON"),
        ("[]", "no list of issuers"),
        ('{"issuers": []}', "no list of issuers"),
        ('{"issuers": [{"issuer": "x", "audience": "a"}]}', "issuer 0 has no address"),
        ('{"issuers": [{"issuer": "https://i"}]}', "issuer 0 has no audience"),
        ('{"issuers": [{"issuer": "https://i", "audience": "a"}], "jwks_refresh_interval_secs": 0}', "no number"),
    ],
)
def test_settings_that_let_in_anybody_are_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_oidc_settings(text)


def test_settings() -> None:
    text = '{"issuers": [{"issuer": "https://i/", "audience": "a"}], "token_cache_size": 5}'
    oidc = parse_oidc_settings(text)
    assert oidc == OidcSettings((OidcIssuer("https://i", "a"),))
    assert FlightSettings(oidc=oidc, admins=frozenset({"ann"})).admins
    with pytest.raises(ValueError, match="over TLS only"):
        PostgresSettings(oidc=oidc)
