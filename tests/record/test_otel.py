"""The OpenTelemetry API on the recorder: what instrumented code says through it, as the recorder's own events."""

import asyncio
import itertools
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import micromegas as mm
from micromegas.record.stdlib_logging import Handler
from micromegas.testing import capture

pytest.importorskip("opentelemetry", reason="opentelemetry-api is not installed")

from opentelemetry import baggage, metrics, trace
from opentelemetry import context as context_api
from opentelemetry._logs import LogRecord, SeverityNumber, get_logger
from opentelemetry.propagate import extract, inject
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode

TRACE, SPAN = "ab" * 16, "cd" * 8
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture(scope="module", autouse=True)
def _installed():
    mm.install_otel()


@pytest.fixture
def tracer():
    return trace.get_tracer("shop.checkout", "1.2")


def shape(spans):
    return [[span.name, shape(span.children)] for span in spans]


def details(events, name):
    """Properties of the log event that a span leaves at its end."""
    [found] = [log for log in events.logs if log.message == name and "span_id" in log.properties]
    return found


def test_spans_nest_and_carry_their_scope(tracer):
    with capture() as events:
        with tracer.start_as_current_span("outer") as outer:
            with tracer.start_as_current_span("inner") as inner:
                assert trace.get_current_span() is inner
            assert trace.get_current_span() is outer
        assert not trace.get_current_span().is_recording()
        with tracer.start_as_current_span("next"):
            pass
    assert shape(events.async_spans) == [["outer", [["inner", []]]], ["next", []]]
    root, following = events.async_spans
    assert {span.target for span in root.walk()} == {"shop.checkout"}
    assert root.id == outer.get_span_context().span_id
    assert root.children[0].parent_id == root.id
    assert root.begin <= root.children[0].begin <= root.children[0].end <= root.end <= following.begin
    assert inner.get_span_context().trace_id == outer.get_span_context().trace_id
    traces = {log.properties["trace_id"] for log in events.logs}
    assert len(traces) == 2  # one for each root


def test_both_kinds_of_spans_nest_in_each_other(tracer):
    async def inside():
        async with mm.span("ours"):
            with tracer.start_as_current_span("theirs"):
                await asyncio.sleep(0)
                async with mm.span("ours again"):
                    token = context_api.attach(baggage.set_baggage("k", "v"))
                    with tracer.start_as_current_span("below baggage"):
                        pass
                    context_api.detach(token)

    with capture() as events:
        with tracer.start_as_current_span("root"):
            asyncio.run(inside())
        with tracer.start_as_current_span("after"):
            pass
    chain = ["below baggage", []]
    for name in ("ours again", "theirs", "ours", "root"):
        chain = [name, [chain]]
    assert shape(events.async_spans) == [chain, ["after", []]]


def test_tasks_and_threads_have_the_parents_of_their_contexts(tracer):
    async def task(number):
        with tracer.start_as_current_span(f"task {number}"):
            await asyncio.sleep(0)
            with tracer.start_as_current_span(f"step {number}"):
                await asyncio.sleep(0)

    async def main():
        with tracer.start_as_current_span("main"):
            await asyncio.gather(*map(task, range(5)))

    with capture() as events:
        asyncio.run(main())
        thread = threading.Thread(target=lambda: tracer.start_span("alone").end())
        with tracer.start_as_current_span("starter"):
            thread.start()
            thread.join()
    trees = {span.name: shape(span.children) for span in events.async_spans}
    assert trees["main"] == [[f"task {n}", [[f"step {n}", []]]] for n in range(5)]
    assert (trees["alone"], trees["starter"]) == ([], [])


def test_explicit_parents(tracer):
    with capture() as events:
        parent = tracer.start_span("parent")
        with tracer.start_as_current_span("elsewhere"):
            child = tracer.start_span("child", context=trace.set_span_in_context(parent))
            root = tracer.start_span("root", context=context_api.Context())
        parent.end()
        grandchild = tracer.start_span("late", context=trace.set_span_in_context(child))
        for span in (grandchild, child, root):
            span.end()
    assert shape(events.async_spans) == [["parent", [["child", [["late", []]]]]], ["elsewhere", []], ["root", []]]
    assert [span.depth for span in events.async_spans[0].walk()] == [0, 1, 2]
    assert child.parent == parent.get_span_context()


def test_attributes_status_links_and_names_are_in_one_log_event(tracer):
    other = SpanContext(int(TRACE, 16), int(SPAN, 16), True)
    with capture() as events:
        span = tracer.start_span(
            "GET",
            kind=SpanKind.SERVER,
            attributes={"http.route": "/a/{id}", "n": 7},
            links=[Link(other, {"why": "retry"})],
        )
        span.set_attribute("ok", True)
        span.set_attributes({"list": ["a", "é"], "f": 1.5, "none": None, "exc_info": "x", "properties": "y"})
        span.update_name("GET /a/{id}")
        span.set_status(Status(StatusCode.ERROR, "no such thing"))
        span.end()
        span.end()
        span.set_attribute("late", 1)
        span.add_event("late")
        span.record_exception(KeyError("late"))
        assert not span.is_recording()
    [log] = events.logs
    assert (log.level, log.target, log.message) == ("error", "shop.checkout", "GET /a/{id}")
    assert log.properties == {
        "http.route": "/a/{id}",
        "n": "7",
        "ok": "true",
        "list": '["a", "é"]',
        "f": "1.5",
        "exc_info": "x",
        "properties": "y",
        "scope.version": "1.2",
        "span.kind": "server",
        "span.status": "error",
        "span.status_description": "no such thing",
        "link.0": f"{TRACE}-{SPAN}",
        "link.0.why": "retry",
        "span_id": str(events.async_spans[0].id),
        "trace_id": f"{span.get_span_context().trace_id:032x}",
    }
    assert [span.name for span in events.async_spans] == ["GET"]  # told when it began


def test_a_status_that_is_ok_is_final(tracer):
    with capture() as events, tracer.start_as_current_span("fine") as span:
        span.set_status(StatusCode.OK)
        span.set_status(StatusCode.ERROR, "too late")
    log = details(events, "fine")
    assert (log.level, log.properties["span.status"]) == ("debug", "ok")


def test_events_and_exceptions(tracer):
    def fail():
        with tracer.start_as_current_span("fails") as span:
            span.add_event("cache missed", {"key": 1}, timestamp=5)
            raise KeyError("x")

    with capture() as events:
        with pytest.raises(KeyError):
            fail()
        with pytest.raises(ValueError, match="quiet"), tracer.start_span("with statement"):
            raise ValueError("quiet")
    missed, error, end, *_ = events.logs
    assert (missed.level, missed.message, missed.properties["key"]) == ("info", "cache missed", "1")
    assert missed.properties["timestamp"] == "5"
    assert error.level == "error"
    assert error.message.startswith("fails\nTraceback")
    assert "raise KeyError" in error.message
    assert error.properties["exception.type"] == "KeyError"
    assert end.properties["span.status_description"] == "KeyError: 'x'"
    assert {log.properties["span_id"] for log in (missed, error, end)} == {str(events.async_spans[0].id)}
    assert "ValueError: quiet" in details(events, "with statement").properties["span.status_description"]


def test_times_that_the_caller_gives(tracer):
    with capture() as events:
        begin = time.time_ns()
        while time.time_ns() < begin + 2_000_000:
            pass
        span = tracer.start_span("told late", start_time=begin)
        end = time.time_ns()
        while time.time_ns() < end + 2_000_000:
            pass
        span.end(end_time=end)
        tracer.start_span("before all", start_time=1).end()
        tracer.start_span("in the future", start_time=time.time_ns() + 10**12).end()
    spans = {span.name: span for span in events.async_spans}
    told = spans["told late"]
    assert abs(told.begin - begin) < 1_000_000
    assert abs(told.end - end) < 1_000_000
    assert spans["before all"].begin <= told.begin  # clamped to the begin of the recording
    assert spans["before all"].begin > begin - 60_000_000_000
    assert spans["in the future"].begin <= spans["in the future"].end <= time.time_ns() + 50_000_000


def test_traceparent_in_and_out(tracer):
    with capture() as events:
        incoming = extract({"traceparent": TRACEPARENT, "tracestate": "v=1"})
        with tracer.start_as_current_span("served", context=incoming, kind=SpanKind.SERVER) as span:
            outgoing = {}
            inject(outgoing)
        own = span.get_span_context()
        assert outgoing == {"traceparent": f"00-{TRACE}-{own.span_id:016x}-01", "tracestate": "v=1"}
        token = context_api.attach(incoming)
        assert mm.traceparent() == TRACEPARENT
        with tracer.start_as_current_span("below the header"):
            pass
        context_api.detach(token)
        assert mm.traceparent() is None
    assert [(span.name, span.parent_id, span.depth) for span in events.async_spans] == [
        ("served", int(SPAN, 16), 0),
        ("below the header", int(SPAN, 16), 0),
    ]
    assert {log.properties["trace_id"] for log in events.logs} == {TRACE}
    assert details(events, "served").properties["trace_state"] == "v=1"


def test_the_headers_of_a_span_of_our_own(tracer):
    async def main():
        async with mm.span("ours"):
            headers = {}
            with tracer.start_as_current_span("client"):
                inject(headers)
            return headers["traceparent"], mm.traceparent()

    with capture() as events:
        theirs, ours = asyncio.run(main())
    [root] = events.async_spans
    assert ours.split("-")[2] == f"{root.id:016x}"
    assert theirs.split("-")[1] == ours.split("-")[1]
    assert theirs.split("-")[2] == f"{root.children[0].id:016x}"


@pytest.mark.parametrize("follow", [False, True])
def test_a_parent_that_is_not_sampled(follow):
    from micromegas.record.otel.tracer_provider import TracerProvider

    tracer = TracerProvider(follow_sampling=follow).get_tracer("sampling")
    incoming = extract({"traceparent": TRACEPARENT[:-1] + "0"})
    with capture() as events:
        with tracer.start_as_current_span("served", context=incoming) as span:
            headers = {}
            inject(headers)
            with tracer.start_as_current_span("below"):
                pass
        assert span.is_recording() is False
    assert shape(events.async_spans) == ([] if follow else [["served", [["below", []]]]])
    assert headers["traceparent"].startswith(f"00-{TRACE}-")
    assert headers["traceparent"].endswith("-00")
    assert isinstance(span, NonRecordingSpan) is follow


def test_without_recording_traces_are_passed_on(tracer):
    assert mm.status() is None
    with tracer.start_as_current_span("nobody listens", context=extract({"traceparent": TRACEPARENT})) as span:
        span.set_attribute("a", 1)
        assert not span.is_recording()
        headers = {}
        inject(headers)
    assert headers["traceparent"] == TRACEPARENT
    assert not tracer.start_span("root").get_span_context().is_valid


def test_a_span_that_outlives_the_recording(tracer):
    with capture() as events:
        span = tracer.start_span("left open")
        with capture():
            pass
    span.end()
    assert [(span.name, span.end) for span in events.async_spans] == [("left open", None)]
    with capture() as following:
        span.end()
        tracer.start_span("child", context=trace.set_span_in_context(span)).end()
    assert len(following.async_spans) == 1


def test_detaching_in_another_context_is_harmless(tracer):
    with capture() as events:
        span = tracer.start_span("span")
        token = context_api.attach(trace.set_span_in_context(span))

        async def detach():
            context_api.detach(token)

        asyncio.run(detach())
        assert trace.get_current_span() is span
        context_api.detach(token)
        assert not trace.get_current_span().get_span_context().is_valid
        span.end()
        with tracer.start_as_current_span("root"):
            pass
    assert shape(events.async_spans) == [["span", []], ["root", []]]


def test_names_and_attributes_that_are_hostile(tracer):
    class Broken:
        def __str__(self):
            raise RuntimeError("no text")

        __repr__ = __str__

    loop = []
    loop.append(loop)
    with capture() as events:
        span = tracer.start_span("\ud800 \0 %s %d" + "x" * 5000)
        span.set_attribute("broken", Broken())
        span.set_attribute("loop", loop)
        span.set_attribute("\udfff", "\ud800")
        span.set_attribute("long", "y" * 100_000)
        for number in range(200):
            span.set_attribute(f"z{number}", number)
        span.add_event(Broken())
        span.end()
        get_logger("hostile").emit(body=Broken(), attributes={"a": Broken()})
    assert len(events.async_spans) == 1
    assert [log.target for log in events.logs] == ["shop.checkout", "shop.checkout", "hostile", "micromegas.recorder"]
    assert events.logs[1].properties["broken"] == "<unprintable Broken object>"
    assert len(events.logs[1].properties) == 66  # 64, and the two ids; the last event tells how many were refused


def test_counters_and_histograms():
    meter = metrics.get_meter("shop.meter")
    sold = meter.create_counter("sold", unit="items")
    active = meter.create_up_down_counter("active")
    size = meter.create_histogram("size", unit="By")
    level = meter.create_gauge("level")
    with capture() as events:
        sold.add(2, {"where": "a", "how": 1})
        sold.add(3, {"how": 1, "where": "a"})
        sold.add(5)
        sold.add(-1)
        sold.add(-1)
        for amount in (1, 1, -1):
            active.add(amount, {"route": "/"})
        size.record(2.5)
        size.record(7)
        level.set(-3)
    sums = {(m.name, tuple(sorted(m.properties.items()))): m.value for m in events.metrics if m.name == "sold"}
    assert sums == {("sold", (("how", "1"), ("where", "a"))): 5, ("sold", ()): 5}
    assert {m.target for m in events.metrics} == {"shop.meter"}
    values = {name: [m.value for m in events.metrics if m.name == name] for name in ("active", "size", "level")}
    assert values == {"active": [1, 2, 1], "size": [2.5, 7], "level": [-3]}
    assert {m.unit for m in events.metrics if m.name == "size"} == {"By"}
    assert ["negative" in log.message for log in events.logs] == [True]


def test_observable_instruments():
    def generator():
        options = yield
        assert options.timeout_millis > 0
        while True:
            yield [metrics.Observation(11, {"g": 1})]

    def broken(options):
        raise OSError("no sensor")

    totals = itertools.chain([10, 15, 15], itertools.repeat(4))  # the thread of the gauges asks, too
    meter = metrics.get_meter("observed")
    meter.create_observable_counter("requests", [lambda options: [metrics.Observation(next(totals))]])
    meter.create_observable_up_down_counter("queue", [lambda options: [metrics.Observation(-2)]])
    meter.create_observable_gauge("temperature", [lambda options: [metrics.Observation(21.5)], generator()])
    meter.create_observable_gauge("broken", [broken])
    with capture() as events:
        for _ in range(4):
            metrics.get_meter_provider().observe()
    values = {
        name: [m.value for m in events.metrics if m.name == name] for name in ("requests", "queue", "temperature")
    }
    assert values["requests"] == [10, 5, 4]  # what it grew by; less than before is a new beginning
    assert set(values["queue"]) == {-2}
    assert len(values["queue"]) >= 4
    assert sorted(set(values["temperature"])) == [11, 21.5]
    failures = [log for log in events.logs if "callback failed" in log.message]
    assert len(failures) == 1
    assert failures[0].properties["exception.type"] == "OSError"


def test_sets_of_attributes_are_bounded():
    from micromegas.record.otel.series import MOST_SETS

    hits = metrics.get_meter("bounded").create_histogram("hits")
    with capture() as events:
        for number in range(MOST_SETS + 50):
            hits.record(number, {"user": number})
        hits.record(1, {"user": 0})
        hits.record(2, {"user": [1]})
    overflown = [m.value for m in events.metrics if m.properties == {"otel.metric.overflow": "true"}]
    assert overflown == [*range(MOST_SETS, MOST_SETS + 50), 2]
    assert [m.value for m in events.metrics if m.properties == {"user": "0"}] == [0, 1]


def test_attributes_that_are_equal_but_read_differently():
    kinds = metrics.get_meter("kinds").create_histogram("kinds")
    with capture() as events:
        for value in (1, True, 1.0, "1"):
            kinds.record(0, {"v": value})
    assert [m.properties["v"] for m in events.metrics] == ["1", "true", "1.0", "1"]


def test_logs(tracer):
    logger = get_logger("shop.log", "3")
    with capture() as events:
        for severity, level in (
            (SeverityNumber.TRACE, "trace"),
            (SeverityNumber.DEBUG4, "debug"),
            (SeverityNumber.INFO, "info"),
            (SeverityNumber.WARN2, "warn"),
            (SeverityNumber.ERROR, "error"),
            (SeverityNumber.FATAL4, "fatal"),
            (None, "info"),
        ):
            logger.emit(LogRecord(severity_number=severity, body=f"as {level}"))
        with tracer.start_as_current_span("span") as span:
            logger.emit(body={"k": [1]}, attributes={"a": True}, event_name="e", timestamp=9, exception=KeyError("x"))
        mm.set_log_level("warn")
        assert not logger.enabled(severity_number=SeverityNumber.INFO)
        assert logger.enabled(severity_number=SeverityNumber.ERROR)
        logger.emit(body="not recorded")
    plain = [log for log in events.logs if log.message.startswith("as ")]
    assert [f"as {log.level}" for log in plain] == [log.message for log in plain]
    assert len(plain) == 7
    [rich] = [log for log in events.logs if log.message.startswith('{"k": [1]}')]
    assert "KeyError" in rich.message
    assert rich.target == "shop.log"
    assert rich.properties == {
        "a": "true",
        "event_name": "e",
        "timestamp": "9",
        "scope.version": "3",
        "span_id": str(span.get_span_context().span_id),
        "trace_id": f"{span.get_span_context().trace_id:032x}",
        "exception.type": "KeyError",
        "exception.message": "'x'",
    }
    assert not [log for log in events.logs if log.message == "not recorded"]


def test_what_goes_through_logging_names_its_span(tracer):
    """Once, whoever passes it on to OpenTelemetry, too; and the program's handlers see nothing of it."""
    seen = []

    class Forwarding(logging.Handler):
        """As that of opentelemetry-instrumentation-logging, which tests/frameworks runs."""

        def emit(self, record):
            seen.append(sorted(vars(record).keys() & {"span_id", "trace_id", "user"}))
            get_logger(record.name).emit(LogRecord(severity_number=SeverityNumber.WARN, body=record.getMessage()))

    handler = Forwarding()
    log = logging.getLogger("forwarded")
    log.addHandler(handler)
    try:
        with capture() as events:
            mm.install_logging()
            log.warning("outside")
            with tracer.start_as_current_span("span") as span:
                log.warning("inside", extra={"user": "ann"})
                log.warning("its own", extra={"span_id": 7})
                mm.uninstall_logging()
                log.warning("only forwarded")
    finally:
        log.removeHandler(handler)
    context = span.get_span_context()
    ids = {"span_id": str(context.span_id), "trace_id": f"{context.trace_id:032x}"}
    logs = [(event.message, event.properties) for event in events.logs if event.target == "forwarded"]
    assert logs == [
        ("outside", {}),
        ("inside", {"user": "ann"} | ids),
        ("its own", ids | {"span_id": "7"}),
        ("only forwarded", ids),
    ]
    assert seen == [[], ["user"], ["span_id"], []]


def test_what_goes_through_our_handler_names_its_span(tracer):
    """Where the program chooses what is recorded."""
    handler, log = Handler(), logging.getLogger("chosen")
    log.addHandler(handler)
    try:
        with capture() as events:
            mm.uninstall_logging()
            log.warning("outside")
            with tracer.start_as_current_span("span") as span:
                log.warning("inside")
    finally:
        log.removeHandler(handler)
    context = span.get_span_context()
    assert [(event.message, event.properties) for event in events.logs if event.target == "chosen"] == [
        ("outside", {}),
        ("inside", {"span_id": str(context.span_id), "trace_id": f"{context.trace_id:032x}"}),
    ]


def test_installing_twice_is_an_error():
    with pytest.raises(RuntimeError, match="provider already"):
        mm.install_otel()


def test_without_the_api_the_error_names_the_extra(tmp_path):
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("raise ModuleNotFoundError('x', name='opentelemetry')")
    program = "import micromegas as mm\ntry:\n    mm.install_otel()\nexcept ImportError as error:\n    print(error)"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "micromegas[otel]" in done.stdout


def test_a_forked_child_and_its_observer(run, server):
    run(
        textwrap.dedent("""
        import os, time
        from opentelemetry import metrics, trace
        mm.install_otel()
        mm.init(gauge_period=0.02)
        tracer = trace.get_tracer("fork")
        metrics.get_meter("fork").create_observable_gauge("pid", [lambda options: [metrics.Observation(os.getpid())]])
        with tracer.start_as_current_span("parent"):
            child = os.fork()
            with tracer.start_as_current_span("child" if not child else "sibling"):
                time.sleep(0.3)
            if not child:
                assert mm.flush()
                os._exit(0)
            os.waitpid(child, 0)
        """)
    )
    captured = server.captured
    parent, child = captured.processes
    assert child["parent_process_id"] == parent["process_id"]
    pids = {key: set(captured.measures("pid", key)) for key in (parent["process_id"], child["process_id"])}
    assert all(len(seen) == 1 for seen in pids.values())
    assert len(set.union(*pids.values())) == 2
    names = [event.get("name") for event in captured.events("cpu", child["process_id"])]
    assert names == ["child", "child"]
