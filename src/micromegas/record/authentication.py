"""Credentials that have to be obtained and renewed: by a function of the program, or as OIDC client credentials.

One daemon thread per process that needs it obtains them and hands them to the native uploader, which holds everything
back until the first have come. Secrets stay in here: what went wrong is told without them.
"""

import threading
import time
from collections.abc import Callable, Mapping

from micromegas import _core

TYPE_CHECKING = False  # what type checkers take for true; `typing` is slow to load
if TYPE_CHECKING:
    from typing import TypeAlias
    from urllib.error import HTTPError

    Auth: TypeAlias = Callable[[], "str | Mapping[str, str]"]

CHECK_SECONDS = 0.2
"""How often the thread looks whether the server refused what it handed over."""
LONGEST_RETRY_SECONDS = 60.0
REQUEST_SECONDS = 10.0
LARGEST_ANSWER = 1 << 20


class Credentials:
    """Headers to be let in with, and when to obtain others (seconds from now; None: when refused)."""

    def __init__(self, headers: Mapping[str, str], good_for: float | None) -> None:
        self.headers = dict(headers)
        self.good_for = good_for

    def __repr__(self) -> str:
        return f"<credentials: {', '.join(self.headers)}>"


class Refusal(Exception):
    """Nothing was obtained. The text has no secret in it."""


class FromFunction:
    """Asks a function of the program: it returns a token, or headers. Asked again when these are refused."""

    def __init__(self, function: "Auth") -> None:
        self.function = function

    def __call__(self) -> Credentials:
        try:
            headers = _headers_of(self.function())
        except Refusal:
            raise
        except BaseException as error:  # the program's own, whatever it is; its text may hold what is secret
            raise Refusal(f"auth function: {type(error).__name__}") from None
        return Credentials(headers, None)


def _headers_of(answer: object) -> dict[str, str]:
    if isinstance(answer, str):
        if not answer.strip():
            raise Refusal("auth function: an empty token")
        return {"authorization": f"Bearer {answer.strip()}"}
    if isinstance(answer, Mapping) and answer:
        return {str(name): str(value) for name, value in answer.items()}
    raise Refusal(f"auth function: {type(answer).__name__} is neither a token nor headers")


def _seconds(lifetime: object) -> float | None:
    """What a token endpoint says of how long its token lives; None when that is no length of time."""
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float | str):
        return None
    try:
        seconds = float(lifetime)
    except (ValueError, OverflowError):
        return None
    return seconds if seconds >= 0.0 else None  # nor nan, which some write into JSON


class ClientCredentials:
    """Fetches tokens by the OAuth 2.0 client credentials grant (RFC 6749 §4.4)."""

    def __init__(
        self,
        *,
        token_endpoint: str | None,
        issuer: str | None,
        client_id: str,
        client_secret: str,
        scope: str | None,
        audience: str | None,
        margin: float,
        ca_file: str | None,
        proxy: str | None,
    ) -> None:
        self.token_endpoint = token_endpoint
        self.issuer = issuer
        self.client_id = client_id
        self.client_secret = client_secret
        self.scope = scope
        self.audience = audience
        self.margin = margin
        """A token is renewed that many seconds before it expires."""
        self.ca_file = ca_file
        self.proxy = proxy

    def __repr__(self) -> str:
        return f"<client credentials of {self.client_id} at {self.token_endpoint or self.issuer}>"

    def __call__(self) -> Credentials:
        if self.token_endpoint is None:
            discovered = self._ask(f"{str(self.issuer).rstrip('/')}/.well-known/openid-configuration", None)
            endpoint = discovered.get("token_endpoint")
            if not isinstance(endpoint, str):
                raise Refusal("the issuer names no token_endpoint")
            self.token_endpoint = endpoint
        form = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "scope": self.scope,
            "audience": self.audience,
        }
        answer = self._ask(self.token_endpoint, {name: value for name, value in form.items() if value})
        token = answer.get("access_token")
        if not isinstance(token, str) or not token:
            raise Refusal("token endpoint: no access_token in its answer")
        seconds = _seconds(answer.get("expires_in"))
        # a token that lives no longer than the margin is renewed after half its life
        good_for = None if seconds is None else max(seconds - self.margin, seconds / 2, 1.0)
        return Credentials({"authorization": f"Bearer {token}"}, good_for)

    def _ask(self, url: str, form: Mapping[str, str] | None) -> dict[str, object]:
        # This thread's own business, and slow to load.
        import http.client
        import json
        import ssl
        import urllib.error
        import urllib.parse
        import urllib.request

        class NoRedirects(urllib.request.HTTPRedirectHandler):
            """Credentials go where they were meant to go, and nowhere else."""

            def redirect_request(self, *_: object, **__: object) -> None:
                return None

        place = urllib.parse.urlsplit(url).hostname or "?"
        handlers: list[urllib.request.BaseHandler] = [NoRedirects()]
        if self.proxy is not None:
            proxies = {"http": self.proxy, "https": self.proxy} if self.proxy else {}
            handlers.append(urllib.request.ProxyHandler(proxies))
        if url.lower().startswith("https:"):
            context = ssl.create_default_context(cafile=self.ca_file)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        data = None if form is None else urllib.parse.urlencode(form).encode()
        request = urllib.request.Request(url, data, {"accept": "application/json", "user-agent": "micromegas-python"})
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=REQUEST_SECONDS) as response:
                body = response.read(LARGEST_ANSWER)
        except urllib.error.HTTPError as error:
            raise Refusal(f"{place}: status {error.code}{_oauth_error(error)}") from None
        except urllib.error.URLError as error:
            raise Refusal(f"{place}: {_reason(error.reason)}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Refusal(f"{place}: {_reason(error)}") from None
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise Refusal(f"{place}: its answer is no JSON object")
        return answer


def _reason(reason: object) -> str:
    """The kind of a failure, and its words where these are the system's."""
    import ssl

    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({reason.verify_message})"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return type(reason).__name__


def _oauth_error(answer: "HTTPError") -> str:
    """The error code of RFC 6749 §5.2, which is one of a few words; other texts may repeat what we sent."""
    import json

    try:
        code = json.loads(answer.read(LARGEST_ANSWER))["error"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    known = {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "access_denied",
        "server_error",
        "temporarily_unavailable",
    }
    return f" ({code})" if code in known else ""


def client_credentials_from(
    environment: Mapping[str, str], ca_file: str | None, proxy: str | None
) -> "ClientCredentials | None":
    """Client credentials, when the variables of the original are set (and two more: issuer, scope)."""

    def variable(name: str) -> str | None:
        return environment.get(f"MICROMEGAS_OIDC_{name}") or None

    client_id, client_secret = variable("CLIENT_ID"), variable("CLIENT_SECRET")
    token_endpoint, issuer = variable("TOKEN_ENDPOINT"), variable("ISSUER")
    if client_id is None and client_secret is None and token_endpoint is None:
        return None
    missing = [name for name, value in (("CLIENT_ID", client_id), ("CLIENT_SECRET", client_secret)) if value is None]
    if token_endpoint is None and issuer is None:
        missing.append("TOKEN_ENDPOINT (or _ISSUER)")
    if missing:
        raise ValueError(f"client credentials: not set: {', '.join(f'MICROMEGAS_OIDC_{name}' for name in missing)}")
    text = variable("TOKEN_BUFFER_SECONDS") or "180"
    try:
        margin = float(text)
    except ValueError:
        margin = -1.0
    if not 0.0 <= margin <= threading.TIMEOUT_MAX:
        raise ValueError(f"MICROMEGAS_OIDC_TOKEN_BUFFER_SECONDS {text!r}: not a number of seconds")
    return ClientCredentials(
        token_endpoint=token_endpoint,
        issuer=issuer,
        client_id=str(client_id),
        client_secret=str(client_secret),
        scope=variable("SCOPE"),
        audience=variable("AUDIENCE"),
        margin=margin,
        ca_file=ca_file,
        proxy=proxy,
    )


class Authentication:
    """Keeps the uploader supplied with credentials, from a thread of its own."""

    def __init__(self, obtain: Callable[[], Credentials]) -> None:
        self.obtain = obtain
        self.error: str | None = None
        """Why there are no credentials that would be let in, while that is so."""
        self.told = False
        self.current: Credentials | None = None
        self.renew_at: float | None = None
        self.ending = threading.Event()
        self.handing_over = threading.RLock()
        """Held while an ending is heeded: no session gets the credentials of an earlier one."""

    def begin(self) -> None:
        """Start the thread; in a forked child what the parent had obtained is handed over at once."""
        self.ending = threading.Event()
        self.handing_over = threading.RLock()  # a forked child's may be held for ever
        if self.current is not None:
            self._hand_over(self.current)
        threading.Thread(target=self._run, args=(self.ending,), name="micromegas-auth", daemon=True).start()

    def end(self) -> None:
        with self.handing_over:
            self.ending.set()

    def _hand_over(self, credentials: Credentials) -> None:
        _core.recorder_set_headers(list(credentials.headers.items()))

    def _run(self, ending: threading.Event) -> None:
        failures_in_a_row = 0
        refusals_in_a_row = 0
        last_refusal = float("-inf")
        wait = 0.0
        while not ending.wait(wait):
            wait = CHECK_SECONDS
            refused = _core.recorder_headers_refused()
            if not refused and not self._is_due():
                continue
            if refused:
                recently = time.monotonic() - last_refusal < LONGEST_RETRY_SECONDS
                refusals_in_a_row = refusals_in_a_row + 1 if recently else 0
                if refusals_in_a_row > 0 and ending.wait(_delay(refusals_in_a_row)):
                    return
                last_refusal = time.monotonic()
            try:
                credentials = self.obtain()
                with self.handing_over:
                    if ending.is_set():
                        return
                    self._hand_over(credentials)
            except (Refusal, ValueError) as error:
                failures_in_a_row += 1
                self._failed(str(error))
                wait = _delay(failures_in_a_row)
                continue
            failures_in_a_row = 0
            self.error = None
            self.current = credentials
            self.renew_at = None if credentials.good_for is None else time.monotonic() + credentials.good_for

    def _is_due(self) -> bool:
        return self.current is None or (self.renew_at is not None and time.monotonic() >= self.renew_at)

    def _failed(self, error: str) -> None:
        self.error = error
        if not self.told:
            self.told = True
            _core.log.warn("no credentials for the telemetry server: %s", error)


def _delay(times: int) -> float:
    return min(0.5 * 2.0 ** min(times - 1, 10), LONGEST_RETRY_SECONDS)
