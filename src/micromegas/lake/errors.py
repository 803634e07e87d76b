"""What can go wrong in a lake, as types that a boundary can turn into its protocol's errors."""

from __future__ import annotations

from typing import Any

from micromegas.wire import SinkUnavailable


class LakeError(Exception):
    """Any fault of the lake; the text names the thing concerned."""


class LakeUnavailable(LakeError, SinkUnavailable):
    """The database or the object store does not answer now; the same call may succeed later."""


class LakeCorrupt(LakeError):
    """A row points to an object that is missing, too short or not what it must be."""


class LakeTooNew(LakeError):
    """The database was migrated by a newer release that older ones must not write to."""


class UnknownPartitions(LakeError):
    """Partitions were named that the lake doesn't have (any more); nothing was changed. `missing` holds their names as
    they were given."""

    def __init__(self, missing: frozenset[Any]) -> None:
        super().__init__(f"{len(missing)} partitions are not in the lake")
        self.missing = missing


class PartitionConflict(LakeError):
    """Somebody else changed the partitions in between: read them again and decide anew."""


class TooManyDenials(LakeError):
    """There are as many rules that refuse queries as there may be."""
