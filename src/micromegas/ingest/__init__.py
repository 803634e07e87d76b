"""The ingestion service: takes the requests of native senders and of OpenTelemetry's over HTTP, and acknowledges them
once they are durable.

It must never decode events, and never answer 4xx to a body that may become good later.
"""

from micromegas.ingest.app import IngestApp
from micromegas.ingest.server import IngestServer

__all__ = ["IngestApp", "IngestServer"]
