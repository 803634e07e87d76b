"""Starts and ends recording.

Only this file, settings.py, upload.py and what they call read the environment. After `init()` nothing here raises into
the program.
"""

import atexit
import os
import sys
import threading
from collections.abc import Mapping, Sequence

from micromegas import _core
from micromegas.record.after_import import AfterImport
from micromegas.record.levels import DEFAULT_LEVEL, level_number, set_log_levels
from micromegas.record.process_facts import default_properties, encodable, facts
from micromegas.record.settings import (
    buffer_byte_count,
    byte_count,
    check_kinds,
    is_clock_monotonic,
    is_wanted,
    properties_of_environment,
    seconds,
)
from micromegas.record.thread_names import hear_renames, thread_name

TYPE_CHECKING = False  # what type checkers take for true; `typing` is slow to load
if TYPE_CHECKING:
    from typing import Literal

    from micromegas.record.authentication import Auth, Authentication

PARENT_VARIABLE = "MICROMEGAS_TELEMETRY_PARENT_PROCESS"
FORKED_VARIABLE = "MICROMEGAS_TELEMETRY_FORKED_PROCESS"
"""Number and parent's id of a forked process: a program that it becomes by `exec` takes that parent over."""
OIDC_PREFIX = "MICROMEGAS_OIDC_"
RESERVED_PREFIX = "micromegas."
"""Servers keep properties of this prefix for themselves."""

_AT_EXIT_SECONDS = 5.0
"""As at the end of the interpreter (src/recorder/python.rs)."""


class _Hooks:
    """What is registered with the interpreter, once per process, and how recording began."""

    def __init__(self) -> None:
        self.registered = False
        self.parent: str | None = None
        self.settings: dict[str, object] = {}
        """What `init()` was given."""
        self.authentication: Authentication | None = None
        self.logging: AfterImport | None = None
        """Waits for the program to import `logging`."""
        self.is_automatic = False
        """Recording began without the program's `init()`: before its first line, or in a child."""


_hooks = _Hooks()


def init(
    *,
    url: str | None = None,
    process_name: str | None = None,
    properties: Mapping[str, object] | None = None,
    api_key: str | None = None,
    auth: "Auth | None" = None,
    headers: Mapping[str, str] | None = None,
    proxy: str | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    client_certificate: str | os.PathLike[str] | None = None,
    client_key: str | os.PathLike[str] | None = None,
    level: str | None = None,
    flush_period: float | None = None,
    buffer_bytes: int | None = None,
    queue_bytes: int | None = None,
    encoding: "Literal['auto', 'transit', 'columns'] | None" = None,
    spool: bool | None = None,
    spool_dir: str | os.PathLike[str] | None = None,
    spool_bytes: int | None = None,
    hooks: bool = True,
    system_metrics: bool | None = None,
    gauge_period: float = 1.0,
    capture_logging: bool | None = None,
    console: str | None = None,
    scrub: bool | Sequence[str] | None = None,
    span_sampling: "str | float | Mapping[str, float] | None" = None,
) -> str:
    """Begin to record and send; give the id of this process. What is recorded before is dropped (counters count on).

    `url`: the server, `http://host:port` or `https://…`, else MICROMEGAS_TELEMETRY_URL, else `http://127.0.0.1:9000`;
    it need not answer now or ever. `process_name`, else MICROMEGAS_PROCESS_NAME, is the process's `exe` instead of the
    program's path. `properties` describe the process, beside those of MICROMEGAS_PROCESS_PROPERTIES (`k=v,k=v`).

    `api_key`: sent as bearer token, else MICROMEGAS_INGESTION_API_KEY. `auth`: a function that returns a token, or the
    headers to send; it is called in a thread of its own, at first and whenever the server answers 401, and nothing is
    sent before it has returned. Without key and function, the variables MICROMEGAS_OIDC_* ask for OIDC client
    credentials. `headers` are sent with every request.

    `proxy`: `http://user:password@host:port`, `""` for none, else HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY,
    which never apply to a server on this machine. `ca_file`: certificates (PEM) of the authorities to trust instead of
    the system's, else MICROMEGAS_CA_FILE. `client_certificate` and `client_key`: PEM files for a server that wants to
    know us by them, else MICROMEGAS_CLIENT_CERTIFICATE and MICROMEGAS_CLIENT_KEY; one file may hold both.

    `level`: the least severe log level that is recorded (`fatal` … `trace`, `off`), also by target, as in
    `info,myapp.db=debug,noisy.lib=off` (see `set_log_level`); else MICROMEGAS_LOG, else `debug`. `flush_period`:
    seconds between blocks that are not full, else MICROMEGAS_FLUSH_PERIOD, else 1. At most `buffer_bytes` of events
    wait to be read and `queue_bytes` of compressed blocks wait to be sent, else MICROMEGAS_BUFFER_BYTES and
    MICROMEGAS_QUEUE_BYTES, else 64 MiB each; less than 256 KiB of events is a ValueError.

    `spool`, else MICROMEGAS_SPOOL (`off`), else True: events are written to files mapped into memory, and blocks are
    kept in files until the server has them, so that what was recorded survives a SIGKILL or a crash (not a power
    failure) and is sent by the next start with the same url, or by `micromegas spool upload`. The files are in a folder
    of the process below `spool_dir`, else MICROMEGAS_SPOOL_DIR, else `~/.local/state/micromegas/spool`; buffers are in
    `/dev/shm` where that is possible. At most `spool_bytes` of blocks, else MICROMEGAS_SPOOL_BYTES, else 512 MiB, wait
    there, of which up to `queue_bytes` also in memory; beyond, spans are dropped first, then measures, then logs, each
    counted. Where the folder can't be used, everything is kept in memory, which `status()` and the log tell.

    `system_metrics`, else MICROMEGAS_SYSTEM_METRICS, else true: measure the machine (`total_memory`, `used_memory`,
    `free_memory`, `cpu_usage`; each second), this process (`process_resident_bytes` …; each 5 seconds) and the recorder
    (`QueueSize`, `HttpRequestCompletionTime` …; with the events of others). See docs/instrumentation.md.
    `gauge_period`: seconds between two looks at the gauges. `span_sampling`, else MICROMEGAS_SPAN_SAMPLING, else all:
    which spans are sent. A number: that share of the call trees, whole; a mapping: shares by the name of the outermost
    span, `"*"` for all others; `"spikes"`: those around the slow ones of the program's frames (see `frame`).

    `encoding`: how blocks are sent, else MICROMEGAS_ENCODING, else `auto`: as `columns` (the smallest) to servers that
    say that they read them, else as `transit`, which every server reads.

    Children that were forked, or started by `multiprocessing`, record as processes of their own; others find their
    parent's id in MICROMEGAS_TELEMETRY_PARENT_PROCESS. MICROMEGAS_TRACE begins automatic tracing, see `trace_modules`.
    At exit the rest is sent, in 5 seconds at most.

    `hooks`: unhandled exceptions (of threads, tasks and destructors, too) and crashes become log events, and the rest
    is sent before SIGTERM ends the process, where the program does not handle it. Hooks and handlers of the program
    stay in use, and the exit status what it would be.

    `console`: log events of this level and the more severe ones are printed to stderr as well, as
    `<rfc3339> LEVEL [target] message`, else MICROMEGAS_CONSOLE, else none. `scrub`: what looks like a password, key or
    token in messages and properties becomes `[scrubbed]`; a list adds patterns (of Rust's `regex`) of what is secret
    here, False lets everything pass; else MICROMEGAS_SCRUB, else yes.

    `capture_logging`: what the program logs through the standard library's `logging` is recorded too (see
    `install_logging`); else MICROMEGAS_CAPTURE_LOGGING, else yes.

    Where recording began by itself (MICROMEGAS_AUTOSTART, or as a child of a recorded process) this gives the id of the
    process and sets the level; other settings come too late, which a warning in the log tells.

    Errors: ValueError for a url, key, level, period, number or encoding, or a variable of the environment, that can't
    be; TypeError for a setting of another kind; RuntimeError when recording already.
    """
    given = dict(locals())
    check_kinds(given)
    environment = os.environ
    set_log_levels(level if level is not None else environment.get("MICROMEGAS_LOG") or DEFAULT_LEVEL)
    if not 0 < gauge_period < threading.TIMEOUT_MAX:
        raise ValueError(f"gauge period of {gauge_period} s: not above 0")
    _capture_logging(capture_logging)
    if _hooks.is_automatic and (running := _core.recorder_status()) is not None:
        _take_over(given)
        return str(running["process_id"])
    if not _hooks.registered and _hooks.parent is None:
        _hooks.parent = _parent_from(environment)
    from micromegas.record.upload import upload_decisions  # programs that only import us need none of it

    authentication = _authentication(api_key, auth, headers, ca_file, proxy)
    decisions: dict[str, object] = {
        "upload": upload_decisions(
            environment,
            url=url,
            api_key=api_key,
            headers=headers,
            renewed=authentication is not None,
            proxy=proxy,
            ca_file=ca_file,
            client_certificate=client_certificate,
            client_key=client_key,
        ),
        "facts": facts(process_name or environment.get("MICROMEGAS_PROCESS_NAME")),
        "properties": list(_process_properties(properties).items()),
        "parent_process_id": _hooks.parent,
        "flush_period": seconds(flush_period, "MICROMEGAS_FLUSH_PERIOD"),
        "buffer_bytes": buffer_byte_count(buffer_bytes),
        "console_level": level_number(console or environment.get("MICROMEGAS_CONSOLE") or "off"),
        "scrub": is_wanted(None if scrub is None else scrub is not False, "MICROMEGAS_SCRUB"),
        "scrub_patterns": [] if scrub is None or isinstance(scrub, bool) else [str(pattern) for pattern in scrub],
        "encoding": encoding or os.environ.get("MICROMEGAS_ENCODING") or "auto",
        "queue_bytes": byte_count("queue_bytes", queue_bytes),
        "system_metrics": is_wanted(system_metrics, "MICROMEGAS_SYSTEM_METRICS"),
        "spool_folder": _spool_folder(spool, spool_dir),
        "spool_bytes": byte_count("spool_bytes", spool_bytes, 512 << 20),
        "span_sampling": _span_sampling(
            span_sampling if span_sampling is not None else environment.get("MICROMEGAS_SPAN_SAMPLING") or 1.0
        ),
        "monotonic_clock": is_clock_monotonic(),
        "thread_namer": thread_name,
    }
    process_id = _core.recorder_start(decisions)
    hear_renames()
    _trace_as_environment_says(environment.get("MICROMEGAS_TRACE"))
    _authenticate_by(authentication)
    _hooks.settings = given
    _hooks.is_automatic = False
    os.environ[PARENT_VARIABLE] = process_id
    _register_hooks(hooks)
    _tell_watchers("begin")
    return process_id


def _capture_logging(given: bool | None) -> None:
    wanted = is_wanted(given, "MICROMEGAS_CAPTURE_LOGGING")
    if _hooks.logging is not None:
        _hooks.logging.cancel()
        _hooks.logging = None
    if wanted:
        _hooks.logging = AfterImport("logging", _install_logging)
    elif (bridge := sys.modules.get("micromegas.record.stdlib_logging")) is not None:
        bridge.uninstall_logging()


def _install_logging(_: object) -> None:
    from micromegas.record.stdlib_logging import install_logging

    install_logging()


def _spool_folder(wanted: bool | None, folder: str | os.PathLike[str] | None) -> str | None:
    from micromegas.record.spool import spool_folder

    if not is_wanted(wanted, "MICROMEGAS_SPOOL"):
        return None
    return os.path.abspath(folder) if folder is not None else spool_folder(os.environ)


def begin_automatically(settings: Mapping[str, object], parent: str | None = None) -> None:
    """Begin to record unless that has begun, so that an `init()` of the program may still follow."""
    if _core.recorder_status() is None:
        _hooks.parent = parent
        init(**settings)  # type: ignore[arg-type]
        _hooks.is_automatic = True


def _take_over(given: Mapping[str, object]) -> None:
    """The program's own `init()` in a process that is recorded already."""
    _hooks.is_automatic = False
    defaults = init.__kwdefaults__ or {}
    late = [
        name
        for name, value in given.items()
        if name not in ("level", "capture_logging") and value not in (defaults[name], _hooks.settings[name])
    ]
    if late:
        _core.log.warn("init(): recording began before it; not applied: %s", ", ".join(late))


def _authentication(
    api_key: str | None,
    auth: "Auth | None",
    headers: Mapping[str, str] | None,
    ca_file: str | os.PathLike[str] | None,
    proxy: str | None,
) -> "Authentication | None":
    environment = os.environ
    if auth is None:
        has_key = api_key is not None or bool(environment.get("MICROMEGAS_INGESTION_API_KEY"))
        has_header = any(str(name).lower() == "authorization" for name in headers or ())
        if has_key or has_header or not any(name.startswith(OIDC_PREFIX) for name in environment):
            return None
    elif api_key is not None:
        raise ValueError("init(): both api_key and auth: only one can be sent")
    elif not callable(auth):
        raise ValueError("init(): auth is no function; a token that stays as it is goes to api_key")
    # Not every program needs it.
    from micromegas.record.authentication import Authentication, FromFunction, client_credentials_from

    if auth is not None:
        return Authentication(FromFunction(auth))
    trusted = os.fspath(ca_file) if ca_file is not None else environment.get("MICROMEGAS_CA_FILE") or None
    client_credentials = client_credentials_from(environment, trusted, proxy)
    return None if client_credentials is None else Authentication(client_credentials)


def _send_with_credentials() -> None:
    """While Python code can still run to obtain them. What is recorded after this goes with those that there are."""
    _core.begin_exit()
    _core.recorder_flush(0.8 * _AT_EXIT_SECONDS)


def _authenticate_by(authentication: "Authentication | None") -> None:
    if _hooks.authentication is not None:
        _hooks.authentication.end()
    _hooks.authentication = authentication
    if authentication is not None:
        authentication.begin()
        atexit.unregister(_send_with_credentials)
        atexit.register(_send_with_credentials)


def flush(timeout: float = 5.0) -> bool:
    """Send what was recorded before; True when the server has answered for all of it within `timeout` seconds.

    Waiting can be interrupted by signals; `timeout` 0 does not wait.
    """
    return _core.recorder_flush(timeout)


def shutdown(timeout: float = 5.0) -> bool:
    """Stop recording, send the rest, wait at most `timeout` seconds; True when all of the session has arrived.

    Gives up early when no server answers. `init()` may follow. Called by itself at exit.
    """
    _tell_watchers("end")
    if "micromegas.record.endings" in sys.modules:
        from micromegas.record import endings, failures

        endings.leave_signals()
        failures.leave_failures()
    arrived = _core.recorder_stop(timeout)
    _authenticate_by(None)
    return arrived


def status() -> dict[str, object] | None:
    """What became of the events of this session, None when not recording.

    `process_id`, `sent_requests`, `sent_events`, `sent_bytes` (compressed, as they were sent), `waiting_bytes`
    (compressed), `lost_events` and `losses`, the same by reason (`buffers_full`, `queue_full`, `refused` by the server,
    `given_up` after its failures, `at_exit`) and class (`logs`, `measures`, `spans`), `refused_values`,
    `limits_reached` (of what the program makes too many of, mostly names made of data: `log_sites`, `spans`, `metrics`,
    `counters`, `property_sets`, `loggers`), `mended_spans` (spans of threads that we had to balance: ends with
    `no_begin`, left out; begins with `no_end` before that of the span around; those `left_open` when their thread or
    the recording ended), `last_error` (the last failure to send or, while they are missing, to obtain credentials; or
    None), `server_formats` (the encodings of blocks that the server reads; None before it has said), `spool` (the
    folder of this process, None: everything is in memory), `spool_bytes` (of its segments), `spool_error` (what went
    wrong last, or None), `private_buffers` (made that a crash would lose), `recovered_processes` and `recovered_events`
    (sent for processes that had died).
    """
    found = _core.recorder_status()
    authentication = _hooks.authentication
    error = None if authentication is None else authentication.error  # once: another thread may end or mend it
    if found is not None and error is not None:
        found["last_error"] = f"no credentials: {error}"
    return found


def _trace_as_environment_says(value: str | None) -> None:
    if value:
        from micromegas.record.auto_trace import trace_as_environment_says

        try:
            trace_as_environment_says(value)
        except RuntimeError as error:
            _core.log.error("MICROMEGAS_TRACE %r: %s", value, error)


def _span_sampling(given: "str | float | Mapping[str, float]") -> tuple[bool, list[tuple[str, float]]]:
    """Whether only spikes are kept, else shares by name; none: all spans."""
    if given == "spikes":
        return True, []
    shares = given.items() if isinstance(given, Mapping) else [("*", given)]
    try:
        pairs = [(encodable(str(name)), float(share)) for name, share in shares]
    except (TypeError, ValueError):
        raise ValueError(f"span sampling {given!r}: neither 'spikes' nor shares from 0 to 1") from None
    if not all(0.0 <= share <= 1.0 for _, share in pairs):
        raise ValueError(f"span sampling {given!r}: neither 'spikes' nor shares from 0 to 1")
    return False, [] if pairs == [("*", 1.0)] else pairs


def _process_properties(given: Mapping[str, object] | None) -> dict[str, str]:
    properties = default_properties() | properties_of_environment()
    for key, value_object in (given or {}).items():
        properties[str(key)] = str(value_object)
    for name in properties:
        if name.startswith(RESERVED_PREFIX):
            raise ValueError(f"process property {name!r}: names that begin with {RESERVED_PREFIX!r} are the server's")
    return {encodable(name): encodable(value) for name, value in properties.items()}


def _parent_from(environment: Mapping[str, str]) -> str | None:
    forked, _, parent = environment.get(FORKED_VARIABLE, "").partition(" ")
    return parent if forked == str(os.getpid()) else environment.get(PARENT_VARIABLE)


def _register_hooks(hooks: bool) -> None:
    if hooks:
        from micromegas.record import endings, failures

        endings.catch_signals()
        failures.catch_failures()
    if not _hooks.registered:
        _hooks.registered = True
        from micromegas.record import children

        children.register()


def given_settings() -> dict[str, object]:
    """What `init()` was given in this process or, in a forked one, in its parent."""
    return _hooks.settings


def gauge_period() -> float:
    """Seconds between two looks at the gauges."""
    return float(str(_hooks.settings.get("gauge_period", 1.0)))


def _tell_watchers(event: str) -> None:
    """`begin`, `end` or `after_fork` to what runs beside the program, as far as that is loaded."""
    for name in ("micromegas.record.gauges", "micromegas.record.monitors"):
        module = sys.modules.get(name)
        if module is not None:
            getattr(module, event)()


def restart_in_child() -> None:
    """In a forked child of a recorded process: a process of its own."""
    parent = os.environ.get(PARENT_VARIABLE)
    process_id = _core.recorder_after_fork()
    if process_id is not None:
        _hooks.parent = parent
        _hooks.is_automatic = True
        os.environ[FORKED_VARIABLE] = f"{os.getpid()} {parent}"
        os.environ[PARENT_VARIABLE] = process_id
        if "micromegas.record.endings" in sys.modules:
            _core.catch_fatal_signals()  # another thread than the parent's main thread may go on here
        if _hooks.authentication is not None:
            _hooks.authentication.begin()  # whose thread is the parent's alone
        _tell_watchers("after_fork")


def record_failure_of_worker(error: BaseException) -> None:
    """What the function of a worker raised."""
    if _hooks.settings.get("hooks"):
        from micromegas.record import failures

        failures.record_failure("the main function of a worker", error)


def finish_worker() -> None:
    """The end of a worker that leaves without ending the interpreter."""
    if any(not thread.daemon and thread is not threading.current_thread() for thread in threading.enumerate()):
        _core.recorder_flush(_AT_EXIT_SECONDS)  # they are waited for, and may have more to tell
    else:
        _core.recorder_stop(_AT_EXIT_SECONDS)
