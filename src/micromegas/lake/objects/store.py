"""What every object store of a lake can do; reading, listing and deleting go through obstore for all of them.

It must never return fewer bytes than asked for: a missing or short object is an error that names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, S3Store

from micromegas.lake.errors import LakeCorrupt, LakeError, LakeUnavailable

DELETE_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A listed object: key, bytes, last change in ns since the epoch."""

    path: str
    size: int
    last_modified: int


@dataclass(frozen=True, slots=True)
class DataFusionStore:
    """What the query engine needs to open the same store: scheme `file` or `s3`, bucket, and its own option names.

    Options of `s3`: `region`, `endpoint`, `access_key_id`, `secret_access_key`, `session_token` (each when set) and
    `allow_http` (`true` or `false`).
    """

    scheme: str
    bucket: str | None
    options: dict[str, str] = field(repr=False)


def first_line(error: BaseException) -> str:
    """The first line of an error's text: the rest of a driver's text is its debug dump. Of the system's errors without
    the file that they name: what becomes of it may be told to strangers."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class Objects(ABC):
    """Objects by slash-separated relative keys. Thread-safe; calls block.

    Every method raises `LakeUnavailable` when the store does not answer.
    """

    def __init__(self, store: LocalStore | S3Store) -> None:
        self._store = store

    @property
    @abstractmethod
    def local_root(self) -> Path | None:
        """The folder of the objects; None for a remote store."""

    @property
    @abstractmethod
    def advised_lanes(self) -> int:
        """How many commits in flight at once serve this store best."""

    @abstractmethod
    def url_of(self, path: str) -> str:
        """The address of an object as the query engine spells it."""

    @abstractmethod
    def datafusion_store(self) -> DataFusionStore:
        """How the query engine opens this store."""

    @abstractmethod
    def put(self, path: str, data: bytes) -> None:
        """Write an object whole; it is durable when this returns, and never visible in part."""

    @abstractmethod
    def put_file(self, local_path: Path, path: str) -> int:
        """Write a finished local file as an object, durable like `put`; returns its bytes. The source stays."""

    @abstractmethod
    def check(self) -> None:
        """Ask the store for something small; returns when it answers."""

    @contextmanager
    def _faults(self, path: str) -> Iterator[None]:
        """Turn obstore's errors into ours, naming the object."""
        try:
            yield
        except (NotFoundError, FileNotFoundError) as error:
            raise self._missing(path) from error
        except (BaseError, OSError) as error:
            text = first_line(error)
            if self.local_root is not None:
                text = text.replace(str(self.local_root), "…")
            raise LakeUnavailable(f"object store, {path}: {text}") from error

    def _missing(self, path: str) -> LakeError:
        return LakeCorrupt(f"object {path} is missing")

    def get(self, path: str) -> bytes:
        """A whole object; raises `LakeCorrupt` when it is missing."""
        with self._faults(path):
            return bytes(obstore.get(self._store, path).bytes())

    def get_ranges(self, path: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        """Byte ranges of one object, neighbours fetched together; `LakeCorrupt` when it is missing or too short."""
        try:
            with self._faults(path):
                parts = self._read_ranges(path, starts, lengths)
        except LakeUnavailable:
            # Stores word a range past the end in their own ways; the size tells it apart from real trouble.
            needed = max(start + length for start, length in zip(starts, lengths, strict=True))
            size = self.size(path)
            if size is not None and size < needed:
                raise LakeCorrupt(f"object {path} has {size} bytes where {needed} are needed") from None
            raise
        for start, length, part in zip(starts, lengths, parts, strict=True):
            if len(part) != length:
                raise LakeCorrupt(f"object {path}: {len(part)} bytes at {start} where {length} are needed")
        return parts

    def _read_ranges(self, path: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        return [bytes(part) for part in obstore.get_ranges(self._store, path, starts=starts, lengths=lengths)]

    def size(self, path: str) -> int | None:
        """Bytes of an object, None when there is none."""
        try:
            with self._faults(path):
                return int(obstore.head(self._store, path)["size"])
        except LakeCorrupt:
            return None

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; one that is missing already is fine."""
        if self.local_root is not None:
            for path in paths:
                self._delete_one(path)
            return
        for start in range(0, len(paths), DELETE_CHUNK):
            chunk = list(paths[start : start + DELETE_CHUNK])
            with self._faults(chunk[0]):
                obstore.delete(self._store, chunk)

    def _delete_one(self, path: str) -> None:
        try:
            with self._faults(path):
                obstore.delete(self._store, path)
        except LakeCorrupt:
            return

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects under a folder, in no particular order."""
        with self._faults(prefix):
            for chunk in obstore.list(self._store, prefix or None):
                for entry in chunk:
                    changed = entry["last_modified"]
                    yield ObjectInfo(entry["path"], int(entry["size"]), int(changed.timestamp() * 1_000_000_000))
