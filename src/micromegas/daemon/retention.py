"""Which blocks and partitions a site's policies give up, and giving them up in short steps.

It must never delete what a policy keeps: when it can't tell, because a predicate fails, it deletes only what no policy
could keep.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from micromegas.config import DaemonSettings, RawPolicy
from micromegas.daemon.insert_clock import Clock, retention_begin
from micromegas.lake import Lake, ViewSetConditions
from micromegas.views.catalogue import CARRYING_VIEW_SETS

BLOCKS_PER_STEP = 5000
STREAMS_PER_STEP = 500
PARTITIONS_PER_STEP = 1000

DEFAULT = "default"
"""Name of the policy of what no policy speaks of."""

Select = Callable[[str, str], frozenset[str]]
"""The ids of the rows of `processes` or `streams` that a SQL predicate selects. Blocks."""


@dataclass(frozen=True, slots=True)
class StreamClass:
    """Streams whose blocks one policy decides about."""

    policy: str
    days: int
    stream_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class RetentionLine:
    """What one policy gives up now: blocks with the bytes of their payloads, or partitions with those of their files.

    `kept_from` is the insert time (ns) before which it keeps nothing; `streams` is None for partitions.
    """

    kind: str
    policy: str
    days: int
    kept_from: int
    streams: int | None
    expired: int
    expired_bytes: int


class Retention:
    """The policies of `settings` over one lake; `select` is needed only where they have predicates."""

    def __init__(self, lake: Lake, settings: DaemonSettings, clock: Clock, select: Select | None = None) -> None:
        self._lake = lake
        self._days = settings.retention_days
        self._policies = settings.policies
        self._clock = clock
        if select is None and settings.policies.has_predicates:
            raise ValueError("retention policies with predicates need somebody who evaluates them")
        self._select = select
        # Up to which insert time streams are known to have no block. Costs a look at all of them after a restart.
        self._cleared: dict[str, int] = {}

    def delete_old_blocks(self, keep_going: Callable[[], bool]) -> None:
        """Delete the blocks that no policy keeps any more. Raises what `select` raises."""
        longest = self._policies.longest_raw_days(self._days)
        while keep_going() and self._lake.delete_blocks_before(self._kept_from(longest), BLOCKS_PER_STEP):
            pass
        if not self._policies.raw:
            return
        classes = self.stream_classes()
        known = {stream_id for each in classes for stream_id in each.stream_ids}
        self._cleared = {stream_id: until for stream_id, until in self._cleared.items() if stream_id in known}
        for each in classes:
            if each.days != longest:
                self._delete_blocks_of(each.stream_ids, self._kept_from(each.days), keep_going)

    def _delete_blocks_of(self, stream_ids: Sequence[str], kept_from: int, keep_going: Callable[[], bool]) -> None:
        """No block is ever inserted in the past, so streams that were cleared up to a time need not be looked at again
        until the next day; policies are."""
        pending = [stream_id for stream_id in stream_ids if self._cleared.get(stream_id, 0) < kept_from]
        for first in range(0, len(pending), STREAMS_PER_STEP):
            ids = pending[first : first + STREAMS_PER_STEP]
            while keep_going():
                if not self._lake.delete_blocks_of(ids, kept_from, BLOCKS_PER_STEP):
                    self._cleared |= dict.fromkeys(ids, kept_from)
                    break

    def retire_old_partitions(self, keep_going: Callable[[], bool]) -> None:
        """Retire the partitions that are too old for their view set."""
        for _, days, conditions in self._derived():
            while keep_going() and self._lake.metadata.retire_partitions_before(
                self._kept_from(days), PARTITIONS_PER_STEP, conditions
            ):
                pass

    def report(self) -> list[RetentionLine]:
        """What a pass would delete now, by policy; changes nothing."""
        lines = []
        for each in self.stream_classes():
            kept_from = self._kept_from(each.days)
            expired = self._lake.metadata.expired_blocks_of(each.stream_ids, kept_from)
            lines.append(RetentionLine("raw", each.policy, each.days, kept_from, len(each.stream_ids), *expired))
        for name, days, conditions in self._derived():
            kept_from = self._kept_from(days)
            expired = self._lake.metadata.expired_partitions(kept_from, conditions)
            lines.append(RetentionLine("derived", name, days, kept_from, None, *expired))
        return lines

    def stream_classes(self) -> list[StreamClass]:
        """Every known stream in the class of its policy, policies in their order, the default last."""
        metadata = self._lake.metadata
        tagged = functools.cache(metadata.streams_tagged)
        return classified(self._policies.raw, self._days, metadata.stream_owners(), tagged, self._select)

    def _derived(self) -> Iterator[tuple[str, int, ViewSetConditions]]:
        named = dict(self._policies.derived or {})
        # Without what earlier partitions handed on, each look would begin at the oldest block that there is.
        longest = self._policies.longest_raw_days(self._days)
        for carrying in CARRYING_VIEW_SETS:
            if self._policies.derived_days(carrying.name, self._days) < longest:
                named[carrying.name] = longest
        for view_set, days in named.items():
            yield view_set, days, ViewSetConditions(only=frozenset({view_set}))
        yield DEFAULT, self._days, ViewSetConditions(none_of=frozenset(named))

    def _kept_from(self, days: int) -> int:
        return retention_begin(self._clock(), days)


def classified(
    policies: Sequence[RawPolicy],
    default_days: int,
    owners: Mapping[str, str],
    tagged: Callable[[str], Iterable[str]],
    select: Select | None,
) -> list[StreamClass]:
    """Streams (ids and their processes) by the first policy that they meet."""
    left = dict(owners)
    classes = []
    for policy in policies:
        met = left.keys() if policy.tag is None else left.keys() & set(tagged(policy.tag))
        if policy.processes is not None and met:
            processes = _selected(select, "processes", policy.processes)
            met = {stream_id for stream_id in met if left[stream_id] in processes}
        if policy.streams is not None and met:
            met = met & _selected(select, "streams", policy.streams)
        classes.append(StreamClass(policy.name, policy.days, sorted(met)))
        left = {stream_id: process_id for stream_id, process_id in left.items() if stream_id not in met}
    classes.append(StreamClass(DEFAULT, default_days, sorted(left)))
    return classes


def _selected(select: Select | None, table: str, predicate: str) -> frozenset[str]:
    if select is None:
        raise ValueError("nobody evaluates the predicates of retention policies")
    return select(table, predicate)
