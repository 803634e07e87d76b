"""Where a lake lives: folder, database, object store. It must never print the secrets that it carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeSettings:
    """The stores of a lake.

    * `lake_dir`: folder of the embedded parts (`metadata.db`, `objects/`); may be None when both others are given.
    * `database_url`: `postgresql://user:password@host:port/database`; None = SQLite inside `lake_dir`.
    * `object_store`: `s3://bucket/prefix` or `file:///folder`; None = `lake_dir/objects`.
    * `object_store_options`: S3 options by their usual names in lower case (`aws_access_key_id`,
      `aws_secret_access_key`, `aws_session_token`, `aws_region`, `aws_endpoint_url`); ignored by folders.
    * `retired_grace_s`: how long a replaced partition file outlives its row, for the queries that still read it.
    """

    lake_dir: Path | None = None
    database_url: str | None = field(default=None, repr=False)
    object_store: str | None = None
    object_store_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    retired_grace_s: float = 3600.0
    database_pool_size: int = 8

    def __post_init__(self) -> None:
        if self.lake_dir is None and (self.database_url is None or self.object_store is None):
            raise ValueError("a lake needs a folder unless both a database and an object store are given")
        if self.database_url is not None and not self.database_url.startswith(("postgresql://", "postgres://")):
            raise ValueError("the database address must start with postgresql://")
        if self.object_store is not None and not self.object_store.startswith(("s3://", "file://")):
            raise ValueError(f"object store {self.object_store}: only s3:// and file:// are known")
