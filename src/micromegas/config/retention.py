"""How long what is kept: policies of a site, written in a TOML file. It must never decide about a block: it only says
what was written."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CONDITIONS = frozenset({"tag", "processes", "streams"})
_RAW_KEYS = frozenset({"name", "days"}) | _CONDITIONS
_DERIVED_KEYS = frozenset({"view_set"}) | _RAW_KEYS


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """What belongs to the streams that meet all of its conditions is kept for `days`.

    * `tag`: a tag of the stream.
    * `processes`, `streams`: SQL predicates over the columns of the views `processes` (for the process of the stream)
      and `streams`.
    """

    name: str
    days: int
    tag: str | None = None
    processes: str | None = None
    streams: str | None = None


@dataclass(frozen=True, slots=True)
class InstancePolicy:
    """A policy for the partitions of the instances of a view set: those of a stream that meets it, or of a process that
    has one."""

    view_set: str
    streams: StreamPolicy


@dataclass(frozen=True, slots=True)
class RetentionPolicies:
    """The first of `raw` that a stream meets decides about its blocks; `derived` are days of partitions by view set,
    but for the instances that meet one of `instances`, of which the first decides.

    What none speaks of is kept for the days of the daemon's settings.
    """

    raw: tuple[StreamPolicy, ...] = ()
    derived: Mapping[str, int] | None = None
    instances: tuple[InstancePolicy, ...] = ()

    @property
    def of_streams(self) -> tuple[StreamPolicy, ...]:
        """All policies that have conditions."""
        return (*self.raw, *(each.streams for each in self.instances))

    @property
    def has_predicates(self) -> bool:
        """Whether somebody must answer SQL to tell what is kept."""
        return any(policy.processes is not None or policy.streams is not None for policy in self.of_streams)

    def derived_days(self, view_set: str, default_days: int) -> int:
        """How long partitions of a view set are kept, but for instances with a policy of their own."""
        return (self.derived or {}).get(view_set, default_days)

    def longest_raw_days(self, default_days: int) -> int:
        """After so many days no policy keeps a block."""
        return max([default_days, *(policy.days for policy in self.raw)])


def parse_retention_policies(text: str) -> RetentionPolicies:
    """Read a file of policies; `ValueError` says which entry is wrong and how."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"retention policies: {error}") from None
    _refuse_unknown("retention policies", document, frozenset({"raw", "derived"}))
    raw: list[StreamPolicy] = []
    for number, entry in enumerate(_entries(document, "raw"), 1):
        where = f"retention policies: raw entry {number}"
        _refuse_unknown(where, entry, _RAW_KEYS)
        raw.append(_stream_policy(where, f"raw {number}", entry))
    derived: dict[str, int] = {}
    instances: list[InstancePolicy] = []
    for number, entry in enumerate(_entries(document, "derived"), 1):
        where = f"retention policies: derived entry {number}"
        _refuse_unknown(where, entry, _DERIVED_KEYS)
        view_set = _text(where, entry, "view_set")
        if view_set is None:
            raise ValueError(f"{where}: view_set is missing")
        if entry.keys() & _CONDITIONS:
            instances.append(InstancePolicy(view_set, _stream_policy(where, f"derived {number}", entry)))
            continue
        if view_set in derived:
            raise ValueError(f"{where}: view set {view_set} was spoken of before")
        derived[view_set] = _days(where, entry)
    return RetentionPolicies(tuple(raw), derived, tuple(instances))


def _stream_policy(where: str, name: str, entry: dict[str, Any]) -> StreamPolicy:
    return StreamPolicy(
        _text(where, entry, "name") or name,
        _days(where, entry),
        _text(where, entry, "tag"),
        _text(where, entry, "processes"),
        _text(where, entry, "streams"),
    )


def _entries(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    entries = document.get(kind, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"retention policies: {kind} must be written as [[{kind}]]")
    return entries


def _refuse_unknown(where: str, entry: dict[str, Any], known: frozenset[str]) -> None:
    # A condition that was misspelt would otherwise make a policy hold for everything.
    unknown = sorted(entry.keys() - known)
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")


def _text(where: str, entry: dict[str, Any], key: str) -> str | None:
    value = entry.get(key)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ValueError(f"{where}: {key} must be a text")
    return value


def _days(where: str, entry: dict[str, Any]) -> int:
    days = entry.get("days")
    if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= 36_500:
        raise ValueError(f"{where}: days must be a whole number from 1 to 36500")
    return days
