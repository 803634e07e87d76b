"""Record what a program does — logs, measures, spans — and send it to a Micromegas server.

Importing this package loads the standard library and the native core only; it never starts a thread and never connects.
Recording begins with `init()` and ends by itself when the process does::

    import micromegas as mm

    mm.init()
    frame_time = mm.metric("frame_time", "ms")
    mm.log.info("frame %s took %.1f ms", 7, 16.6)
    frame_time.record(16.6)
    with mm.span("load"):
        ...

With the extra `micromegas[client]`, `connect()` asks a server in SQL, and is a client of the original by all its names.
"""

from micromegas._core import log, span, span_named
from micromegas.record.context import (
    bind,
    bound_properties,
    clear_context,
    context,
    properties,
    set_global_properties,
    unbind,
)
from micromegas.record.guard import main, telemetry
from micromegas.record.levels import log_enabled, logger, set_log_level
from micromegas.record.metrics import counter, metric
from micromegas.record.otel import install_otel
from micromegas.record.session import flush, init, shutdown, status
from micromegas.record.trace_context import remote_parent, traceparent
from micromegas.record.tracing import trace

__all__ = [
    "AsgiMiddleware",
    "ProfileError",
    "WsgiMiddleware",
    "bind",
    "bound_properties",
    "capture_warnings",
    "clear_context",
    "connect",
    "connect_async",
    "connect_with_profile",
    "context",
    "counter",
    "flush",
    "frame",
    "gauge",
    "init",
    "install_logging",
    "install_otel",
    "log",
    "log_calls",
    "log_enabled",
    "logger",
    "main",
    "metric",
    "monitor_gc",
    "monitor_loop",
    "properties",
    "rebind_logger",
    "remote_parent",
    "restore_logger",
    "set_global_properties",
    "set_log_level",
    "shutdown",
    "span",
    "span_named",
    "status",
    "telemetry",
    "testing",
    "trace",
    "trace_modules",
    "trace_tasks",
    "traceparent",
    "unbind",
    "uninstall_logging",
    "untrace_modules",
]

TYPE_CHECKING = False  # for type checkers, which know the names, without the cost of importing `typing`
if TYPE_CHECKING:
    from micromegas import testing
    from micromegas.client.connecting import connect, connect_async, connect_with_profile
    from micromegas.client.profiles import ProfileError
    from micromegas.record.asgi import AsgiMiddleware
    from micromegas.record.auto_trace import trace_modules, untrace_modules
    from micromegas.record.frames import frame
    from micromegas.record.gauges import gauge
    from micromegas.record.log_calls import log_calls
    from micromegas.record.monitors import monitor_gc, monitor_loop
    from micromegas.record.stdlib_logging import install_logging, rebind_logger, restore_logger, uninstall_logging
    from micromegas.record.task_spans import trace_tasks
    from micromegas.record.warnings_capture import capture_warnings
    from micromegas.record.wsgi import WsgiMiddleware

    __version__: str
else:
    # What programs don't use costs them nothing.
    _WHEN_ASKED_FOR = {
        "AsgiMiddleware": "micromegas.record.asgi",
        "ProfileError": "micromegas.client.profiles",
        "WsgiMiddleware": "micromegas.record.wsgi",
        "admin": "micromegas.admin",
        "auth": "micromegas.auth",
        "capture_warnings": "micromegas.record.warnings_capture",
        "connect": "micromegas.client.connecting",
        "connect_async": "micromegas.client.connecting",
        "connect_with_profile": "micromegas.client.connecting",
        "flightsql": "micromegas.flightsql",
        "frame": "micromegas.record.frames",
        "gauge": "micromegas.record.gauges",
        "install_logging": "micromegas.record.stdlib_logging",
        "load_ipython_extension": "micromegas.notebook",
        "log_calls": "micromegas.record.log_calls",
        "monitor_gc": "micromegas.record.monitors",
        "monitor_loop": "micromegas.record.monitors",
        "oidc_connection": "micromegas.oidc_connection",
        "perfetto": "micromegas.perfetto",
        "rebind_logger": "micromegas.record.stdlib_logging",
        "restore_logger": "micromegas.record.stdlib_logging",
        "testing": "micromegas.testing",
        "time": "micromegas.time",
        "trace_modules": "micromegas.record.auto_trace",
        "trace_tasks": "micromegas.record.task_spans",
        "unload_ipython_extension": "micromegas.notebook",
        "uninstall_logging": "micromegas.record.stdlib_logging",
        "untrace_modules": "micromegas.record.auto_trace",
    }

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            return version("micromegas")
        if name in _WHEN_ASKED_FOR:
            import importlib

            module = importlib.import_module(_WHEN_ASKED_FOR[name])
            found = globals()[name] = getattr(module, name, module)
            return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
