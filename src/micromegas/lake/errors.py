"""What can go wrong in a lake, as types that a boundary can turn into its protocol's errors."""

from __future__ import annotations

from micromegas.wire import SinkUnavailable


class LakeError(Exception):
    """Any fault of the lake; the text names the thing concerned."""


class LakeUnavailable(LakeError, SinkUnavailable):
    """The database or the object store does not answer now; the same call may succeed later."""


class LakeCorrupt(LakeError):
    """A row points to an object that is missing, too short or not what it must be."""


class LakeTooNew(LakeError):
    """The database was migrated by a newer release that older ones must not write to."""


class PartitionConflict(LakeError):
    """Somebody else changed the partitions in between: read them again and decide anew."""
