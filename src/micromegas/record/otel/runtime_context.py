"""Keeps OpenTelemetry's idea of the current span and ours the same, so that spans of both kinds nest in each other."""

from contextlib import suppress
from contextvars import Token
from typing import Any

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context.context import Context, _RuntimeContext

from micromegas import _core
from micromegas.record.otel.span import Span


class _Attached:
    """The token of one `attach`."""

    __slots__ = ("native", "token")

    def __init__(self, token: Any, native: "Token[Any] | None") -> None:
        self.token = token
        self.native = native


class RuntimeContext(_RuntimeContext):
    """The API's own runtime context, which also makes the attached span the current one of the recorder."""

    def __init__(self, inner: _RuntimeContext) -> None:
        self.inner = inner

    def get_current(self) -> Context:
        return self.inner.get_current()

    def attach(self, context: Context) -> Any:
        before = trace.get_current_span(self.inner.get_current())
        span = trace.get_current_span(context)
        token = self.inner.attach(context)
        if span is before:  # baggage, a suppression …: our own spans that were opened meanwhile stay current
            return _Attached(token, None)
        return _Attached(token, _core.current_async_span.set(_native_of(span)))

    def detach(self, token: Any) -> None:
        if not isinstance(token, _Attached):  # attached before this was installed
            self.inner.detach(token)
            return
        if token.native is not None:
            with suppress(ValueError):  # another context than it was attached in, which is not ours to change
                _core.current_async_span.reset(token.native)
        self.inner.detach(token.token)


def _native_of(span: trace.Span) -> Any:
    if isinstance(span, Span):
        return span.native
    remote = span.get_span_context()
    if remote.is_valid:
        return _core.remote_span(f"{remote.trace_id:032x}", remote.span_id)
    return None


def install() -> None:
    """Put ours around the runtime context that the API uses; once."""
    inner = getattr(context_api, "_RUNTIME_CONTEXT", None)
    if inner is None:
        raise RuntimeError(
            "install_otel: this version of opentelemetry-api keeps its runtime context elsewhere; "
            "please install one that micromegas[otel] asks for"
        )
    if not isinstance(inner, RuntimeContext):
        context_api._RUNTIME_CONTEXT = RuntimeContext(inner)
