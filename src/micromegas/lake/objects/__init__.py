"""The object store of a lake: a folder or an S3 bucket behind one face."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from micromegas.config import LakeSettings
from micromegas.lake.objects.local import LocalObjects
from micromegas.lake.objects.s3 import S3Objects
from micromegas.lake.objects.store import DataFusionStore, ObjectInfo, Objects

__all__ = ["DataFusionStore", "LocalObjects", "ObjectInfo", "Objects", "S3Objects", "open_objects"]


def open_objects(settings: LakeSettings) -> Objects:
    """The object store that the settings name; a folder is created when missing."""
    if settings.object_store is None:
        if settings.lake_dir is None:
            raise ValueError("neither an object store nor a lake folder is given")
        return LocalObjects(settings.lake_dir.absolute() / "objects")
    address = urlsplit(settings.object_store)
    if address.scheme == "file":
        return LocalObjects(Path(unquote(address.path)))
    return S3Objects(address.netloc, address.path.strip("/"), settings.object_store_options)
