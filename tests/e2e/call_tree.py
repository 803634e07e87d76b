"""Call trees the slow and plain way, from the specification's words alone: the opponent of the native builder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

MASK = 0xFFFFFFFF
PRIMES = (2654435761, 2246822519, 3266489917, 668265263, 374761393)


class Scope(NamedTuple):
    """What is being executed."""

    name: str
    target: str
    filename: str
    line: int


class ThreadEvent(NamedTuple):
    """Begin or end of a span; `ticks` are absolute, `event_id` counts the events of the stream."""

    is_begin: bool
    ticks: int
    scope: Scope
    event_id: int


@dataclass(frozen=True, slots=True)
class ThreadBlock:
    """A block of a thread; ticks are absolute."""

    begin: int
    end: int
    events: list[ThreadEvent]


class SpanRow(NamedTuple):
    """A row of `thread_spans` before its ticks are made times."""

    id: int
    parent: int
    depth: int
    scope: Scope
    begin: int
    end: int


@dataclass(slots=True)
class _Span:
    id: int
    scope: Scope
    begin: int
    end: int
    children: list[_Span] = field(default_factory=list)


def span_rows(thread_name: str, blocks: Iterable[ThreadBlock]) -> Iterator[SpanRow]:
    """The rows of a thread: a root per chain of blocks, and below it all its spans.

    `ValueError` for an end that closes anything but the innermost open span, and for an event outside of the time of
    its blocks: what to do then is not specified.
    """
    chain: list[ThreadBlock] = []
    for block in sorted(blocks, key=lambda each: (each.begin, each.end)):
        if chain and block.begin > max(each.end for each in chain):
            yield from _chain_rows(thread_name, chain)
            chain = []
        chain.append(block)
    if chain:
        yield from _chain_rows(thread_name, chain)


def _chain_rows(thread_name: str, chain: list[ThreadBlock]) -> Iterator[SpanRow]:
    begin, end = chain[0].begin, max(block.end for block in chain)
    root = _Span(-1, Scope(thread_name, "", "", 0), begin, end)
    path = [root]
    seen = False
    for block in chain:
        for event in block.events:
            if not begin <= event.ticks <= end:
                raise ValueError(f"event {event.event_id} lies outside of its blocks: what to do is not specified")
            seen = True
            if event.is_begin:
                span = _Span(event.event_id, event.scope, event.ticks, end)
                path[-1].children.append(span)
                path.append(span)
            elif len(path) == 1:
                # Its begin is missing: it began before all that is known, and encloses it.
                root.children = [_Span(event.event_id, event.scope, begin, event.ticks, root.children)]
            elif path[-1].scope == event.scope:
                path.pop().end = event.ticks
            else:
                raise ValueError(f"event {event.event_id} ends {event.scope.name}, open is {path[-1].scope.name}")
    if seen:
        yield from _preorder(root, 0, 0)


def _preorder(root: _Span, parent: int, depth: int) -> Iterator[SpanRow]:
    waiting = [(root, parent, depth)]
    while waiting:
        span, above, level = waiting.pop()
        yield SpanRow(span.id, above, level, span.scope, span.begin, span.end)
        waiting.extend((child, span.id, level + 1) for child in reversed(span.children))


@cache
def scope_hash(scope: Scope) -> int:
    """The `hash` column: xxh32 over the four parts, each seeded with the one before."""
    value = xxh32(scope.name.encode(), 0)
    value = xxh32(scope.filename.encode(), value)
    value = xxh32(scope.target.encode(), value)
    return xxh32(scope.line.to_bytes(4, "little"), value)


def _rotated(value: int, bits: int) -> int:
    value &= MASK
    return ((value << bits) | (value >> (32 - bits))) & MASK


def xxh32(data: bytes, seed: int) -> int:
    """The 32-bit xxHash."""
    p1, p2, p3, p4, p5 = PRIMES
    at = 0
    if len(data) >= 16:
        lanes = [seed + p1 + p2, seed + p2, seed, seed - p1]
        while at + 16 <= len(data):
            for lane in range(4):
                word = int.from_bytes(data[at + 4 * lane : at + 4 * lane + 4], "little")
                lanes[lane] = _rotated(lanes[lane] + word * p2, 13) * p1 & MASK
            at += 16
        value = sum(_rotated(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True))
    else:
        value = seed + p5
    value += len(data)
    while at + 4 <= len(data):
        value = _rotated(value + int.from_bytes(data[at : at + 4], "little") * p3, 17) * p4
        at += 4
    for byte in data[at:]:
        value = _rotated(value + byte * p5, 11) * p1
    value &= MASK
    value = (value ^ (value >> 15)) * p2 & MASK
    value = (value ^ (value >> 13)) * p3 & MASK
    return value ^ (value >> 16)
