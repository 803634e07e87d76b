"""An S3 emulator (moto) as a process of its own. Fit for correctness, not for speed."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from servers.ports import free_port

START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class S3Bucket:
    """A bucket: its address and the options that open it, ready for `LakeSettings`."""

    url: str
    options: dict[str, str] = field(repr=False)


class S3Server:
    """A running emulator; `create_bucket()` gives a fresh bucket each time."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def create_bucket(self, *, endpoint: str | None = None) -> S3Bucket:
        """A fresh bucket, reached at `endpoint` (the server's own unless a proxy stands before it)."""
        name = f"lake-{uuid.uuid4().hex}"
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT"), timeout=10).close()
        return S3Bucket(
            f"s3://{name}/some/prefix",
            {
                "aws_endpoint_url": endpoint or self.endpoint,
                "aws_access_key_id": "test-key",
                "aws_secret_access_key": "test-secret",
                "aws_region": "us-east-1",
            },
        )


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """Run an emulator on a free port and end it."""
    server = S3Server(free_port())
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(server.port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                urllib.request.urlopen(server.endpoint, timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError) as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the s3 emulator did not start") from error
                time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait()
