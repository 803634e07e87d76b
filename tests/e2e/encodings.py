"""Recorded traffic with some of its streams in columns, as a sender that knows of them would have sent it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cbor2
from e2e.recordings import Recording, Request

from micromegas import _core

COLUMNS = "micromegas-columns/1"


def partly_in_columns(recording: Recording, remainder: int) -> Recording:
    """Every second stream in columns, so that processes have both."""
    chosen = {stream_id for index, stream_id in enumerate(sorted(recording.streams)) if index % 2 == remainder}
    layouts: dict[str, tuple[bytes, bytes]] = {}
    for request in recording.requests:
        if request.path.endswith("insert_stream"):
            fields = _core.parse_stream(request.body)
            layouts[fields[1]] = fields[2:4]

    def changed(request: Request) -> Request:
        body: dict[str, Any] = cbor2.loads(request.body)
        if body.get("stream_id", "").lower() not in chosen:
            return request
        if request.path.endswith("insert_stream"):
            body["format"] = COLUMNS
        else:
            payload = cbor2.dumps({key: bytes(value) for key, value in body["payload"].items()})
            columns = _core.columns_payload(*layouts[body["stream_id"].lower()], payload)
            body["payload"] = cbor2.loads(columns)
        return Request(request.path, cbor2.dumps(body))

    return replace(
        recording,
        requests=[changed(request) for request in recording.requests],
        streams={
            stream_id: stream | {"format": COLUMNS} if stream_id in chosen else stream
            for stream_id, stream in recording.streams.items()
        },
    )
