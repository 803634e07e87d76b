"""W3C trace context in and out."""

import pytest
from record.test_spans import async_spans

from micromegas.record.trace_context import parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}g-01",
        f"00-{TRACE}-+{SPAN[1:]}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"0-{TRACE}-{SPAN}-01",
        b"\xff\xfe",
        17,
    ],
)
def test_malformed_headers_are_none(header):
    assert parse(header) is None


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-00 ",
        f"cc-{TRACE}-{SPAN}-01-later",
        f"00-{TRACE}-{SPAN}-01".encode(),
    ],
)
def test_headers(header):
    assert parse(header) == (TRACE, int(SPAN, 16))


def test_out_and_in(run, server):
    run(
        f"""
        import asyncio
        process_id = mm.init()
        assert mm.traceparent() is None
        async def out():
            assert mm.traceparent() is None
            with mm.span("outer"):
                header = mm.traceparent()
                version, trace, span, flags = header.split("-")
                assert (version, trace, flags) == ("00", process_id.replace("-", ""), "01")
                async with mm.span("inner"):
                    inner = mm.traceparent()
                    assert inner != header and inner[:36] == header[:36]
                    assert await asyncio.create_task(later()) == inner
                assert mm.traceparent() == header
            return header
        async def later():
            return mm.traceparent()
        header = asyncio.run(out())
        print(header)
        def sync_handler(header):
            with mm.remote_parent(header):
                return mm.traceparent()
        got = sync_handler("00-{TRACE}-{SPAN}-00")
        assert got.startswith("00-{TRACE}-") and got[36:52] != "{SPAN}"
        assert sync_handler(header)[:36] == header[:36]
        assert sync_handler("nonsense") is None and sync_handler(None) is None
        async def handler(header):
            with mm.remote_parent(header):
                await asyncio.sleep(0.001)
                with mm.span("handle"):
                    await asyncio.sleep(0.001)
                    return await asyncio.create_task(later())
        async def both():
            a, b = await asyncio.gather(handler("00-{TRACE}-{SPAN}-01"), handler("00-{TRACE[::-1]}-{SPAN[::-1]}-01"))
            assert a.startswith("00-{TRACE}-") and b.startswith("00-{TRACE[::-1]}-")
        asyncio.run(both())
        """
    )
    spans = async_spans(server.captured.events("cpu"))
    adopted = {span["name"]: span["parent"] for span in spans.values() if len(span["name"]) == 32}
    assert adopted[TRACE] == int(SPAN, 16)
    assert adopted[TRACE[::-1]] == int(SPAN[::-1], 16)
    handles = [spans[span["parent"]]["name"] for span in spans.values() if span["name"] == "handle"]
    assert sorted(handles) == sorted([TRACE, TRACE[::-1]])
    [outer] = [span_id for span_id, span in spans.items() if span["name"] == "outer"]
    assert any(span["parent"] == outer and len(span["name"]) == 32 for span in spans.values())
    targets = {event["span_location"]["target"] for event in server.captured.events("cpu") if "span_location" in event}
    assert targets == {"micromegas.traceparent"}
