"""Keys, functions that give tokens, client credentials: what is sent with each request, renewed, and never shown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest
from record.upload_programs import FAIL, RECORD, SECRET, with_init
from servers.token_endpoint import CLIENT_SECRET, TokenEndpoint


@pytest.fixture
def tokens() -> Iterator[TokenEndpoint]:
    running = TokenEndpoint()
    yield running
    running.close()


def authorizations(server) -> list[str | None]:
    return [request.authorization for request in server.captured.requests]


def test_a_function_that_gives_a_token(run, server):
    done = run(with_init("auth=lambda: 'abc'"))
    assert json.loads(done.stdout) == [True, None]
    assert set(authorizations(server)) == {"Bearer abc"}
    assert server.captured.measures("m") == [1]


def test_a_function_that_gives_headers_beside_those_of_init(run, server):
    run(with_init("auth=lambda: {'Authorization': 'Custom abc'}, headers={'X-Tenant': 'blue'}"))
    assert set(authorizations(server)) == {"Custom abc"}
    seen = [request.headers for request in server.captured.requests]
    assert {headers["x-tenant"] for headers in seen} == {"blue"}
    assert all(headers["user-agent"].startswith("micromegas-python/") for headers in seen)
    assert {headers["content-type"] for headers in seen} == {"application/cbor"}


def test_nothing_is_sent_before_the_first_token_and_nothing_is_lost(run, server):
    done = run(
        """
        import threading
        ready = threading.Event()
        def token():
            ready.wait(20)
            return "abc"
        mm.init(flush_period=0.01, auth=token)
        for i in range(50): mm.log.info("x %d", i)
        print(mm.flush(0.3), mm.status()["sent_requests"], mm.status()["waiting_bytes"] > 0)
        ready.set()
        print(mm.flush(20), mm.status()["lost_events"])
        """
    )
    assert done.stdout == "False 0 True\nTrue 0\n"
    assert server.captured.messages() == [f"x {i}" for i in range(50)]
    assert set(authorizations(server)) == {"Bearer abc"}


def test_a_token_that_is_refused_is_renewed_and_nothing_is_lost(run, server):
    good = ["Bearer 1"]

    def answers(route: str, headers: dict[str, str], body: bytes) -> int:
        """The key is changed once the first block has come."""
        if headers["authorization"] != good[0]:
            return 401
        if route == "insert_block":
            good[0] = "Bearer 2"
        return 200

    server.answer_request = answers
    done = run(
        """
        import itertools
        numbers = itertools.count(1)
        mm.init(flush_period=30, auth=lambda: str(next(numbers)))
        mm.log.info("first")
        assert mm.flush(20)
        for i in range(5):
            mm.log.info("x %d", i)
            with mm.span("s"): pass
        print(mm.flush(20), mm.status()["lost_events"], next(numbers))
        """
    )
    assert done.stdout == "True 0 3\n"
    assert [text for text in server.captured.messages() if not text.startswith("upload")] == [
        "first",
        *(f"x {i}" for i in range(5)),
    ]


def test_a_key_that_is_refused_is_final(run, server):
    server.answer = lambda route, number: 401
    done = run(with_init(f"api_key={SECRET!r}", FAIL))
    assert json.loads(done.stdout) == [True, "insert_process: status 401: "]
    assert SECRET not in done.stdout + done.stderr
    assert len(server.captured.requests) == 1


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (f"lambda: exec('raise RuntimeError(\"{SECRET}\")')", "auth function: RuntimeError"),
        ("lambda: 5", "int is neither a token nor headers"),
        ("lambda: {}", "dict is neither a token nor headers"),
        ("lambda: ' '", "an empty token"),
        (f"lambda: (_ for _ in ()).throw(SystemExit('{SECRET}'))", "auth function: SystemExit"),
        (f"lambda: {{'x': type('Odd', (), {{'__str__': lambda _: open('/{SECRET}')}})()}}", "FileNotFoundError"),
        (
            f"lambda: chr(10).join(['{SECRET}', 'x'])",
            "the value of header authorization holds more than printable ascii",
        ),
        (f"lambda: {{'host': '{SECRET}'}}", "header host: the recorder's own to say"),
    ],
)
def test_a_function_that_fails_is_told_without_its_secret(run, server, function, told):
    """And asked again: the second time it gives a token, and what was told arrives as a log event."""
    done = run(
        f"""
        import itertools
        calls = itertools.count()
        fails = {function}
        mm.init(flush_period=30, auth=lambda: fails() if next(calls) == 0 else "abc")
        mm.log.info("x")
        print(mm.flush(20))
        mm.flush(20)
        print(mm.status())
        """
    )
    assert done.stdout.startswith("True\n")
    messages = server.captured.messages()
    assert "x" in messages
    assert any(told in text for text in messages)
    assert SECRET not in done.stdout + done.stderr + "".join(messages)


def test_client_credentials(run, server, tokens):
    environment = tokens.environment | {"MICROMEGAS_OIDC_SCOPE": "a b", "MICROMEGAS_OIDC_AUDIENCE": "lake"}
    done = run(RECORD, env=environment)
    assert json.loads(done.stdout) == [True, None]
    assert tokens.forms == [
        {
            "grant_type": "client_credentials",
            "client_id": "recorder",
            "client_secret": CLIENT_SECRET,
            "scope": "a b",
            "audience": "lake",
        }
    ]
    assert set(authorizations(server)) == {"Bearer token-1"}
    assert server.captured.measures("m") == [1]


def test_the_token_endpoint_is_found_at_the_issuer(run, server, tokens):
    environment = dict(tokens.environment, MICROMEGAS_OIDC_ISSUER=f"{tokens.url}/realm/")
    del environment["MICROMEGAS_OIDC_TOKEN_ENDPOINT"]
    done = run(RECORD, env=environment)
    assert json.loads(done.stdout) == [True, None]
    assert set(authorizations(server)) == {"Bearer token-1"}


def test_a_token_is_renewed_before_it_expires(run, server, tokens):
    tokens.answer = lambda number, form: (200, {"access_token": f"token-{number}", "expires_in": 2})
    run(
        """
        import time
        mm.init(flush_period=0.02)
        for i in range(400):
            mm.log.info("x")
            time.sleep(0.02)
            if i % 20 == 0 and mm.flush(10) and mm.status()["sent_events"] and i > 120: break
        """,
        env=tokens.environment,
    )
    assert set(authorizations(server)) >= {"Bearer token-1", "Bearer token-2"}
    assert all(request.status == 200 for request in server.captured.requests)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ((401, {"error": "invalid_client", "error_description": SECRET}), "127.0.0.1: status 401 (invalid_client)"),
        ((500, SECRET.encode()), "127.0.0.1: status 500"),
        ((200, b"<html>"), "its answer is no JSON object"),
        ((200, []), "its answer is no JSON object"),
        ((200, {"token": SECRET}), "no access_token"),
        ((302, {}), "status 302"),
    ],
)
def test_a_token_endpoint_that_fails_first(run, server, tokens, failure, told):
    good = tokens.answer
    tokens.answer = lambda number, form: failure if number == 1 else good(number, form)
    done = run(
        """
        mm.init(flush_period=30)
        mm.log.info("x")
        assert mm.flush(20)
        mm.flush(20)
        print(mm.status())
        """,
        env=tokens.environment,
    )
    messages = server.captured.messages()
    assert "x" in messages
    assert any(told in text for text in messages)
    assert SECRET not in done.stdout + done.stderr + "".join(messages)


@pytest.mark.parametrize(
    "lifetime", [10**400, math.nan, -math.inf, True, [], "soon", "9" * 5000], ids=lambda value: str(value)[:9]
)
def test_a_lifetime_that_is_none(run, server, tokens, lifetime):
    """The token is used, whatever is said of it."""
    tokens.answer = lambda number, form: (200, {"access_token": "abc", "expires_in": lifetime})
    run("mm.init(flush_period=30)\nmm.log.info('x')\nassert mm.flush(20)", env=tokens.environment)
    assert set(authorizations(server)) == {"Bearer abc"}


def test_why_nothing_is_sent_stands_in_the_status(run, server):
    """The log that tells it can't be sent, either."""
    done = run(
        """
        import threading, time
        may_be_let_in = threading.Event()
        mm.init(auth=lambda: "abc" if may_be_let_in.is_set() else None)
        while (error := mm.status()["last_error"]) is None:
            time.sleep(0.01)
        print(error)
        may_be_let_in.set()
        assert mm.flush(20)
        print(mm.status()["last_error"])
        """
    )
    assert done.stdout == "no credentials: auth function: NoneType is neither a token nor headers\nNone\n"


def test_late_credentials_of_an_earlier_session(run, server):
    """They may belong to another server, and are sent to none any more."""
    run(
        """
        import threading
        asked, may_answer = threading.Event(), threading.Event()

        def late():
            asked.set()
            may_answer.wait()
            return "of the first"

        mm.init(auth=late)
        asked.wait()
        [thread] = [thread for thread in threading.enumerate() if thread.name == "micromegas-auth"]
        mm.shutdown(0)
        mm.init(auth=lambda: "of the second")
        mm.log.info("x")
        assert mm.flush(20)
        may_answer.set()
        thread.join(20)
        assert not thread.is_alive()
        mm.log.info("y")
        assert mm.flush(20)
        """
    )
    assert set(authorizations(server)) == {"Bearer of the second"}


def test_client_credentials_that_are_not_complete(run, server):
    done = run(
        """
        try: mm.init()
        except ValueError as error: print(error)
        """,
        env={"MICROMEGAS_OIDC_CLIENT_ID": "x"},
    )
    assert "not set: MICROMEGAS_OIDC_CLIENT_SECRET, MICROMEGAS_OIDC_TOKEN_ENDPOINT (or _ISSUER)" in done.stdout


@pytest.mark.parametrize("margin", ["soon", "nan", "inf", "-1"])
def test_a_margin_that_is_none(run, server, tokens, margin):
    done = run(
        """
        try: mm.init()
        except ValueError as error: print(error)
        """,
        env=tokens.environment | {"MICROMEGAS_OIDC_TOKEN_BUFFER_SECONDS": margin},
    )
    assert done.stdout == f"MICROMEGAS_OIDC_TOKEN_BUFFER_SECONDS '{margin}': not a number of seconds\n"


def test_forked_and_spawned_children_let_themselves_in(run, server, tokens):
    done = run(
        """
        import multiprocessing, os
        def child(way):
            if mm.status() is None: mm.init()
            mm.log.info(way)
            os._exit(0 if mm.flush(20) else 1)
        if __name__ == "__main__":
            mm.init(flush_period=0.02)
            mm.log.info("parent")
            assert mm.flush(20)
            for way in ("fork", "spawn"):
                process = multiprocessing.get_context(way).Process(target=child, args=(way,))
                process.start()
                process.join()
                print(process.exitcode)
        """,
        # Children that leave by os._exit would be told of by the next session, which finds what they left.
        env=tokens.environment | {"MICROMEGAS_SPOOL": "off"},
    )
    assert done.stdout == "0\n0\n"
    assert sorted(server.captured.messages()) == ["fork", "parent", "spawn"]
    assert all((authorization or "").startswith("Bearer token-") for authorization in authorizations(server))


def test_a_function_that_never_returns_does_not_keep_the_program(run, server):
    done = run(
        """
        import time
        mm.init(auth=lambda: time.sleep(1000))
        mm.log.info("x")
        print(mm.shutdown(0.2))
        """
    )
    assert done.stdout == "False\n"
    assert server.captured.requests == []
