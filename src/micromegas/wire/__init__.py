"""The protocol's nouns as Python values: what a sender's request says, decoded strictly, and the batch it goes into.

A leaf: may be imported by every folder that handles telemetry. It must never touch storage or the network.
"""

from micromegas._core import WireError
from micromegas.wire.batch import Batch, BatchSink, SinkUnavailable
from micromegas.wire.block import Block
from micromegas.wire.process import Process
from micromegas.wire.stream import (
    COLUMNS_FORMAT,
    NATIVE_FORMATS,
    OTLP_FORMATS,
    READABLE_FORMATS,
    TRANSIT_FORMAT,
    Stream,
)
from micromegas.wire.times import datetime_ns, rfc3339_ns, rfc3339_text, typed_time_ns

__all__ = [
    "COLUMNS_FORMAT",
    "NATIVE_FORMATS",
    "OTLP_FORMATS",
    "READABLE_FORMATS",
    "TRANSIT_FORMAT",
    "Batch",
    "BatchSink",
    "Block",
    "Process",
    "SinkUnavailable",
    "Stream",
    "WireError",
    "datetime_ns",
    "rfc3339_ns",
    "rfc3339_text",
    "typed_time_ns",
]
