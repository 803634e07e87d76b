"""An identity provider's endpoint for client credentials, which says what a test wants."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable

from servers.json_http import JsonHandler
from servers.threaded_http import ThreadedHttpServer

CLIENT_SECRET = "s3cr3t-that-must-not-show"


class TokenEndpoint(ThreadedHttpServer):
    """Gives tokens `token 1`, `token 2` …, each with the answer of `answer(number, form)`."""

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.answer: Callable[[int, dict[str, str]], tuple[int, object]] = lambda number, form: (
            200,
            {"access_token": f"token-{number}", "expires_in": 3600, "token_type": "Bearer"},
        )
        owner = self

        class Handler(JsonHandler):
            def do_POST(self) -> None:
                form = dict(urllib.parse.parse_qsl(self.body()))
                owner.forms.append(form)
                self.answer(*owner.answer(len(owner.forms), form))

            def do_GET(self) -> None:
                found = self.path == "/realm/.well-known/openid-configuration"
                self.answer(200 if found else 404, {"token_endpoint": f"{owner.url}/token"})

        super().__init__(Handler)
        self.environment = {
            "MICROMEGAS_OIDC_TOKEN_ENDPOINT": f"{self.url}/token",
            "MICROMEGAS_OIDC_CLIENT_ID": "recorder",
            "MICROMEGAS_OIDC_CLIENT_SECRET": CLIENT_SECRET,
        }
