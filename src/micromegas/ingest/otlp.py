"""What OTLP's resources become: a process each, with a stream per kind of record and a block per request.

All ids follow from what was sent, so that a repeated request adds nothing, and a restarted collector goes on where it
was. It must never look at a record.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence

from micromegas.wire import OTLP_FORMATS, Batch, Block, Process, Stream, rfc3339_ns
from micromegas.wire.otlp import OtlpResource, Signal

PROCESS_NAMESPACE = uuid.UUID("80a447b8-fcdd-42a6-a613-f6c8719cd5fe")
STREAM_NAMESPACE = uuid.UUID("fe93bacf-e851-4cf6-8526-05f8454b3488")
BLOCK_NAMESPACE = uuid.UUID("5829a6f7-0577-4c8c-862f-cf4fdab445cc")

TAGS: dict[Signal, str] = {"logs": "log", "metrics": "metrics", "traces": "trace"}

NO_LAYOUTS = b"\x80"
NANOSECONDS = 1_000_000_000
SEPARATOR = "\x1f"
RESOURCE_PREFIX = "otel.resource."

OWNER = ("process.owner", "process.user.name", "process.real_user.name", "user.name")
CREATION_TIME = ("process.creation.time", "process.start_time")

# What tells one run of a program from another: the first attribute of each group that says something.
IDENTITY: tuple[tuple[str, ...], ...] = (
    ("host.id",),
    ("host.name",),
    ("process.pid",),
    CREATION_TIME,
    ("service.namespace",),
    ("service.name",),
    ("service.instance.id",),
    OWNER,
    ("os.type",),
    ("os.version",),
    ("os.name",),
    ("os.description",),
    ("os.build_id",),
    ("host.arch",),
    ("host.type",),
    ("host.image.id",),
    ("host.image.name",),
    ("host.image.version",),
    ("host.cpu.model.id",),
    ("host.cpu.model.name",),
    ("host.cpu.family",),
    ("host.cpu.vendor.id",),
    ("host.cpu.stepping",),
    ("host.cpu.cache.l2.size",),
    ("service.version",),
    ("telemetry.sdk.name",),
    ("telemetry.sdk.language",),
    ("telemetry.sdk.version",),
    ("process.runtime.name",),
    ("process.runtime.version",),
    ("process.runtime.description",),
)
AS_SENT = {("process.pid",), CREATION_TIME}

ASCII_LOWER = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def otlp_batch(signal: Signal, resources: Sequence[OtlpResource], arrival: Callable[[], int]) -> Batch:
    """Announcements and blocks of the resources. `arrival` tells the time (ns) for records that don't."""
    processes, streams, blocks = [], [], []
    for resource in resources:
        begin, end = resource.times or (arrival(),) * 2
        process = _process(resource.attributes, begin)
        stream = _stream(signal, process.process_id)
        processes.append(process)
        streams.append(stream)
        blocks.append(
            Block(
                block_id=_id_of(BLOCK_NAMESPACE, resource.message),
                stream_id=stream.stream_id,
                process_id=process.process_id,
                begin_time=begin,
                end_time=end,
                # absolute, where those of recorded blocks count from the start of the process
                begin_ticks=begin,
                end_ticks=end,
                payload=resource.payload,
                object_offset=0,
                nb_objects=resource.nb_objects,
            )
        )
    return Batch(processes, streams, blocks)


def _process(attributes: Mapping[str, str], first_time: int) -> Process:
    namespace, service = attributes.get("service.namespace", ""), attributes.get("service.name", "")
    owner = _first(attributes, OWNER)
    created = _parsed_time(_first(attributes, CREATION_TIME))
    start_time = first_time if created is None else created
    return Process(
        process_id=_process_id(attributes),
        exe=f"{namespace}/{service}" if namespace else service,
        username=owner,
        realname=owner,
        computer=attributes.get("host.name", ""),
        distro=attributes.get("os.description", ""),
        cpu_brand=attributes.get("host.cpu.model.name", ""),
        tsc_frequency=NANOSECONDS,
        start_time=start_time,
        start_ticks=start_time,
        parent_process_id=None,
        properties={RESOURCE_PREFIX + key: value for key, value in attributes.items()},
    )


def _process_id(attributes: Mapping[str, str]) -> str:
    parts = []
    for names in IDENTITY:
        value = _first(attributes, names)
        parts.append(value if names in AS_SENT else _folded(value))
    return _id_of(PROCESS_NAMESPACE, SEPARATOR.join(parts).encode())


def _stream(signal: Signal, process_id: str) -> Stream:
    return Stream(
        process_id=process_id,
        stream_id=_id_of(STREAM_NAMESPACE, f"{process_id}{SEPARATOR}{signal}".encode()),
        dependencies_metadata=NO_LAYOUTS,
        objects_metadata=NO_LAYOUTS,
        tags=[TAGS[signal]],
        properties={},
        format=OTLP_FORMATS[signal],
    )


def _first(attributes: Mapping[str, str], names: Sequence[str]) -> str:
    return next((value for name in names if (value := attributes.get(name))), "")


def _folded(value: str) -> str:
    value = value.strip()
    return value.lower() if value.isascii() else value.translate(ASCII_LOWER)


def _id_of(namespace: uuid.UUID, content: bytes | memoryview) -> str:
    """The UUID of version 5; `uuid.uuid5` takes bytes from Python 3.12 on only."""
    digest = hashlib.sha1(namespace.bytes, usedforsecurity=False)
    digest.update(content)
    return str(uuid.UUID(bytes=digest.digest()[:16], version=5))


def _parsed_time(text: str) -> int | None:
    """A time in ns since the epoch; None for a text that is none."""
    try:
        return rfc3339_ns(text)
    except ValueError:
        return None
