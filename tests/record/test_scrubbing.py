"""Secrets are taken out of log events before they leave the process."""

import base64
import re

import pytest

JWT = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b'{"alg":"HS256"}', b'{"sub":"1"}', b"x" * 32)
)
SECRETS = {
    "password=hunter2secret": "hunter2secret",
    'config {"db_password": "hunter2 secret", "port": 1}': "hunter2 secret",
    "PGPASSWORD=hunter2secret psql": "hunter2secret",
    "Authorization: Bearer hunter2secret": "hunter2secret",
    "Authorization: Basic aHVudGVyMjpzZWNyZXQ=": "aHVudGVyMjpzZWNyZXQ=",
    "curl -H 'bearer aHVudGVyMnNlY3JldA'": "aHVudGVyMnNlY3JldA",
    "id AKIAIOSFODNN7EXAMPLE": "AKIAIOSFODNN7EXAMPLE",
    "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG": "wJalrXUtnFEMI/K7MDENG",
    "postgresql+psycopg://ann:hunter2@db/x?y": "hunter2",
    "amqp://u:p@ss@h": "p@ss",
    "Endpoint=sb://x;SharedAccessKey=aHVudGVyMg==": "aHVudGVyMg==",
    "api-key: 0123456789": "0123456789",
    "token " + JWT: JWT,
    "-----BEGIN PRIVATE KEY-----\nMIIhunter2\n-----END PRIVATE KEY-----": "MIIhunter2",
    "ghp_" + "a1B2" * 9: "a1B2a1B2",
    "xoxb-1234567890-abcdef": "1234567890",
    "cookie: session=hunter2": "session=hunter2",
}
HARMLESS = [
    "tokens=512 max_tokens: 4096",
    "basic authentication is off",
    "the password was wrong",
    "http://host:8080/path@2x.png",
    "a secret garden: roses",
    "ask-me-anything about risk-weighted assets",
    "passed=3 failed=0",
]


@pytest.mark.parametrize(
    "way", ["literal", "template", "value", "pieces", "property", "context", "logging", "exception"]
)
def test_secrets_do_not_leave(run, server, way):
    """Whichever way a text comes in; and it stands nowhere in what is sent, descriptions included."""
    statement = {
        "literal": "mm.log.info(text)",
        "template": "mm.log.info(text.replace('%', '%%') + ' %d', 1)",
        "value": "mm.log.info('got %s', text)",
        "pieces": "head, secret, tail = text.partition(secret); mm.log.info('%s%s%s', head, secret, tail)",
        "property": "mm.log.info('got', what=text)",
        "context": "with mm.context(what=text): mm.log.info('got %d', 1)",
        "logging": "logging.getLogger('x').warning(text)",
        "exception": "mm.log.error('got', exc_info=ValueError(text))",
    }[way]
    run(
        f"""
        import logging
        mm.init(level="trace")
        for text, secret in {SECRETS!r}.items():
            exec({statement!r})
        for text in {HARMLESS!r}:
            secret = "…"
            exec({statement!r})
        """,
        env={"MICROMEGAS_ENCODING": "transit"},
    )
    events = server.captured.events("log")
    assert len(events) == len(SECRETS) + len(HARMLESS)
    for event, secret in zip(events, SECRETS.values(), strict=False):
        assert secret not in repr(event).replace("\\n", "\n")
        assert "[scrubbed]" in repr(event)
    assert not any("[scrubbed]" in repr(event) for event in events[len(SECRETS) :])


def test_values_stay_apart_where_nothing_was_found(run, server):
    """In columns too: an event is told with its values unless a secret had to go."""
    run(
        """
        mm.init()
        for i in range(3):
            mm.log.info("password=%s for %d", "hunter2", i)
            mm.log.info("the token of %s", "ann")
        """
    )
    assert server.captured.messages() == [
        text for i in range(3) for text in (f"password=[scrubbed] for {i}", "the token of ann")
    ]


@pytest.mark.parametrize("encoding", ["transit", "columns"])
def test_secrets_among_many_texts(run, server, encoding):
    """Texts are looked up some at a time, known ones beside new ones: each event keeps its own, and its place."""
    expected = []
    for i in range(5000):
        what = f"password=hunter{i % 3}" if i % 37 == 0 else f"order {i % 400}"
        expected.append(f"user é{i % 90} {what.partition('=')[0]}={i}" if i % 11 else f"{i} {what} {i // 2}")
    run(
        """
        mm.init()
        for i in range(5000):
            what = f"password=hunter{i % 3}" if i % 37 == 0 else f"order {i % 400}"
            if i % 11:
                mm.log.info("user %s %s=%d", f"é{i % 90}", what.partition("=")[0], i)
            else:
                mm.log.info("%s %s %s", str(i), what, str(i // 2))
        """,
        env={"MICROMEGAS_ENCODING": encoding},
    )
    hidden = [re.sub("password=[a-z]*[0-9]+", "password=[scrubbed]", text) for text in expected]
    assert server.captured.messages() == hidden


def test_names_of_properties_tell(run, server):
    run("mm.init()\nmm.log.info('x', password='abc', API_KEY='k', user='ann', token='', auth_token=5)")
    [event] = server.captured.events("log")
    hidden = {"password": "[scrubbed]", "API_KEY": "[scrubbed]", "auth_token": "[scrubbed]"}
    assert dict(event["properties"]) == hidden | {"user": "ann", "token": ""}


def test_off_and_own_patterns(run, server):
    text = "mm.log.info('password=%s card %s', 'abcdef', '4111-1111-1111-1111')"
    run(f"mm.init(scrub=False)\n{text}")
    run(f"mm.init()\n{text}", env={"MICROMEGAS_SCRUB": "off"})
    run(f"mm.init(scrub=[r'\\d{{4}}(-\\d{{4}}){{3}}'])\n{text}")
    assert sorted(server.captured.messages()) == sorted(
        ["password=abcdef card 4111-1111-1111-1111"] * 2 + ["password=[scrubbed] card [scrubbed]"]
    )
    done = run("mm.init(scrub=['('])", returncode=1)
    assert "ValueError: scrub pattern" in done.stderr


def test_hostile_texts_are_quick(run, server):
    run(
        """
        mm.init()
        parts = ["eyJ", "password=", "://", "://a:", "-----BEGIN ", "bearer ", "sk-", "é"]
        parts += ['"password": "', "\\udc80token="]
        for part in parts:
            mm.log.info("%s", part * (900_000 // len(part)))
        assert mm.flush(60)
        """
    )
    assert len(server.captured.messages()) == 10
