"""Folders whose entries survive a power cut. It must never report an entry as kept before its folder is synced."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, each name synced before anything is put inside."""
    missing = []
    ancestor = folder
    while not ancestor.is_dir():
        missing.append(ancestor)
        ancestor = ancestor.parent
    for created in reversed(missing):
        created.mkdir(exist_ok=True)
        sync_folder(created.parent)
