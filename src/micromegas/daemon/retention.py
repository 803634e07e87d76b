"""Which blocks and partitions a site's policies give up, and giving them up in short steps.

It must never delete what a policy keeps: when it can't tell, because a predicate fails, it deletes only what no policy
could keep.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from micromegas.config import DaemonSettings, StreamPolicy
from micromegas.daemon.insert_clock import Clock, retention_begin
from micromegas.lake import Lake, ViewSetConditions
from micromegas.views.catalogue import CARRYING_VIEW_SETS

BLOCKS_PER_STEP = 5000
STREAMS_PER_STEP = 500
PARTITIONS_PER_STEP = 1000
_CARRYING = frozenset(view_set.name for view_set in CARRYING_VIEW_SETS)

DEFAULT = "default"
"""Name of the policy of what no policy speaks of."""

Select = Callable[[str, str], frozenset[str]]
"""The ids of the rows of `processes` or `streams` that a SQL predicate selects. Blocks."""


@dataclass(frozen=True, slots=True)
class StreamClass:
    """Streams that one policy decides about."""

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
        self._by_instance = frozenset(each.view_set for each in settings.policies.instances)
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
        """Retire the partitions that no policy keeps any more. Raises what `select` raises."""
        for view_set in sorted(self._by_instance):
            longest = max(self._instance_days(view_set, each.days) for each in self._policies_of(view_set))
            self._retire(max(longest, self._default_days(view_set)), _only(view_set), keep_going)
        for _, days, parts in self._derived():
            for conditions in parts:
                self._retire(days, conditions, keep_going)

    def _retire(self, days: int, conditions: ViewSetConditions, keep_going: Callable[[], bool]) -> None:
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
        for name, days, parts in self._derived():
            kept_from = self._kept_from(days)
            found = [self._lake.metadata.expired_partitions(kept_from, conditions) for conditions in parts]
            count, size = sum(each[0] for each in found), sum(each[1] for each in found)
            lines.append(RetentionLine("derived", name, days, kept_from, None, count, size))
        return lines

    def stream_classes(self) -> list[StreamClass]:
        """Every known stream in the class of its policy, policies in their order, the default last."""
        return self._classified(self._policies.raw, self._days, self._lake.metadata.stream_owners())

    def _classified(self, policies: Sequence[StreamPolicy], days: int, owners: Mapping[str, str]) -> list[StreamClass]:
        tagged = functools.cache(self._lake.metadata.streams_tagged)
        return classified(policies, days, owners, tagged, self._select)

    def _derived(self) -> Iterator[tuple[str, int, Sequence[ViewSetConditions]]]:
        """Name, days and partitions of each policy. Those without predicates come first."""
        named = {view_set: self._default_days(view_set) for view_set in self._policies.derived or ()}
        for carrying in _CARRYING:
            if (days := self._default_days(carrying)) != self._policies.derived_days(carrying, self._days):
                named[carrying] = days
        for view_set, days in named.items():
            if view_set not in self._by_instance:
                yield view_set, days, [_only(view_set)]
        yield DEFAULT, self._days, [ViewSetConditions(none_of=self._by_instance.union(named))]
        owners = self._lake.metadata.stream_owners() if self._by_instance else {}
        for view_set in sorted(self._by_instance):
            yield from self._of_instances(view_set, owners)

    def _of_instances(
        self, view_set: str, owners: Mapping[str, str]
    ) -> Iterator[tuple[str, int, Sequence[ViewSetConditions]]]:
        """The partitions of a view set whose instances have policies of their own."""
        classes = self._classified(self._policies_of(view_set), self._default_days(view_set), owners)
        decided: set[str] = set()
        for each in classes:
            # Of a stream or of a process, whichever the view set has instances of.
            ids = {*each.stream_ids, *(owners[stream_id] for stream_id in each.stream_ids)} - decided
            decided |= ids
            name, days = f"{view_set}: {each.policy}", self._instance_days(view_set, each.days)
            expired = self._lake.metadata.instances_before(view_set, self._kept_from(days))
            # What has no stream any more meets no policy.
            mine = sorted(expired - decided | expired & ids if each is classes[-1] else expired & ids)
            parts = [mine[first : first + STREAMS_PER_STEP] for first in range(0, len(mine), STREAMS_PER_STEP)]
            yield name, days, [ViewSetConditions(frozenset({view_set}), instances=part) for part in parts]

    def _policies_of(self, view_set: str) -> list[StreamPolicy]:
        return [each.streams for each in self._policies.instances if each.view_set == view_set]

    def _default_days(self, view_set: str) -> int:
        return self._instance_days(view_set, self._policies.derived_days(view_set, self._days))

    def _instance_days(self, view_set: str, days: int) -> int:
        """Without what earlier partitions handed on, each look would begin at the oldest block that there is."""
        return max(days, self._policies.longest_raw_days(self._days)) if view_set in _CARRYING else days

    def _kept_from(self, days: int) -> int:
        return retention_begin(self._clock(), days)


def _only(view_set: str) -> ViewSetConditions:
    return ViewSetConditions(frozenset({view_set}))


def classified(
    policies: Sequence[StreamPolicy],
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
