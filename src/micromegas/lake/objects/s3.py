"""An S3 bucket (or anything that speaks S3) as object store. It must never print credentials."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from micromegas.lake.errors import LakeCorrupt, LakeUnavailable
from micromegas.lake.objects.store import DataFusionStore, Objects, first_line

MULTIPART_FROM_BYTES = 16 * 1024 * 1024
ENGINE_OPTION_NAMES = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "aws_region": "region",
    "aws_default_region": "region",
    "aws_endpoint": "endpoint",
    "aws_endpoint_url": "endpoint",
    "aws_endpoint_url_s3": "endpoint",
}
"""Our settings' names for S3 options and what the query engine calls them; the last one given wins."""


def engine_options(options: Mapping[str, str]) -> dict[str, str]:
    """S3 options under the names that both obstore and the query engine know; raises `ValueError` on an unknown one."""
    known: dict[str, str] = {}
    for name, value in options.items():
        engine_name = ENGINE_OPTION_NAMES.get(name.lower())
        if engine_name is None:
            raise ValueError(f"object store option {name} is unknown")
        known[engine_name] = value
    known.setdefault("region", "us-east-1")
    return known


class S3Objects(Objects):
    """Objects under `prefix` of a bucket; clear-text HTTP is used only when the endpoint itself says `http://`."""

    def __init__(self, bucket: str, prefix: str, options: Mapping[str, str]) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._options = engine_options(options)
        self._allow_http = self._options.get("endpoint", "").startswith("http://")
        config: dict[str, Any] = dict(self._options)
        super().__init__(
            S3Store(
                bucket,
                prefix=prefix or None,
                config=config,  # type: ignore[arg-type]
                client_options={
                    "allow_http": self._allow_http,
                    "connect_timeout": "5 seconds",
                    "timeout": "60 seconds",
                },
                # Senders repeat on 503: better a quick refusal than a queue that fills up behind long retries.
                retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
            )
        )

    @property
    def local_root(self) -> None:
        return None

    @property
    def advised_lanes(self) -> int:
        return 4

    def url_of(self, path: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}/{path}" if self._prefix else f"s3://{self._bucket}/{path}"

    def datafusion_store(self) -> DataFusionStore:
        return DataFusionStore(
            "s3", self._bucket, {**self._options, "allow_http": "true" if self._allow_http else "false"}
        )

    def put(self, path: str, data: bytes) -> None:
        self._put(path, data, len(data) > MULTIPART_FROM_BYTES)

    def put_file(self, local_path: Path, path: str) -> int:
        size = local_path.stat().st_size
        self._put(path, local_path, size > MULTIPART_FROM_BYTES)
        return size

    def check(self) -> None:
        # Listing a folder that is never written to: unlike a look-up of a key, it fails when the bucket is missing.
        try:
            next(self.list("readiness-probe"), None)
        except LakeCorrupt as error:
            raise LakeUnavailable(f"bucket {self._bucket} is missing") from error

    def _put(self, path: str, content: bytes | Path, use_multipart: bool) -> None:
        try:
            obstore.put(self._store, path, content, use_multipart=use_multipart)
        except (BaseError, OSError) as error:
            raise LakeUnavailable(f"object store, {path}: {first_line(error)}") from error
