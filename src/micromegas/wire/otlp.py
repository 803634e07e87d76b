"""A request of OpenTelemetry's protocol as Python values: its resources, each with what its block has to say.

Apart from the other nouns of the wire because it needs the native engine, which senders and clients don't have. It must
never look into a record further than its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from micromegas._core import WireError
from micromegas._engine import otlp_resources

Signal = Literal["logs", "metrics", "traces"]


@dataclass(frozen=True, slots=True)
class OtlpResource:
    """The records of one resource in one request.

    `times` are those of the earliest and latest record (ns since the epoch), None when no record tells one. `payload`
    is what a block stores; `message` is the part of it that was sent, in protobuf. `nb_objects` counts the records, a
    summary point as four.
    """

    attributes: Mapping[str, str]
    times: tuple[int, int] | None
    nb_objects: int
    payload: bytes
    message: memoryview


def decode_otlp(signal: Signal, body: bytes, *, is_json: bool, max_bytes: int) -> list[OtlpResource]:
    """The resources of an export request that have records; raises `WireError` naming the fault.

    `max_bytes` bounds what JSON may become.
    """
    try:
        resources = otlp_resources(signal, body, is_json, max_bytes)
    except ValueError as error:
        raise WireError(str(error)) from None
    return [
        OtlpResource(dict(attributes), times, nb_objects, payload, memoryview(payload)[message_at:])
        for attributes, times, nb_objects, payload, message_at in resources
    ]
