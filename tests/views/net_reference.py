"""The rows of `net_spans` from the events of one stream, in plain Python; it must never import the product.

Two passes over a tree, unlike the product's one pass over a stack: first everything finds its parent and its end, then
positions are added up among siblings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

KINDS = {"Connection": "connection", "Object": "object", "RPC": "rpc"}
NAMES = ("connection_name", "object_name", "function_name", "property_name")


@dataclass
class Node:
    """A span or property; `end` and `bit_size` are None as long as it did not end."""

    span_id: int
    kind: str
    name: str
    is_outgoing: bool
    parent: Node | None
    begin: int
    end: int | None = None
    bit_size: int | None = None
    ended: int = -1
    """How many had ended before it."""

    @property
    def ancestors(self) -> list[Node]:
        """Itself first, the outermost last."""
        found = [self]
        while found[-1].parent is not None:
            found.append(found[-1].parent)
        return found


@dataclass(frozen=True)
class NetSpan:
    """A row but for its process and stream; times in ticks."""

    span_id: int
    parent_span_id: int
    depth: int
    kind: str
    name: str
    connection_name: str
    is_outgoing: bool
    begin_bits: int
    end_bits: int
    bit_size: int
    begin: int
    end: int


def net_spans(events: Iterable[tuple[int, dict[str, Any]]]) -> list[NetSpan]:
    """Rows in the order in which spans end, from (index in the stream, event) in order of the stream."""
    nodes: list[Node] = []
    innermost: Node | None = None
    ended = 0
    for span_id, event in events:
        what = event["$type"].removeprefix("Net").removesuffix("Event")
        name = next((event[key] for key in NAMES if key in event), "")
        if what == "Property":
            node = Node(span_id, "property", name, False, innermost, event["time"], event["time"], event["bit_size"])
            node.ended, ended = ended, ended + 1
            nodes.append(node)
        elif what.endswith("Begin"):
            outgoing = bool(event.get("is_outgoing", 0))
            innermost = Node(span_id, KINDS[what.removesuffix("Begin")], name, outgoing, innermost, event["time"])
            nodes.append(innermost)
        elif innermost is not None and innermost.kind == KINDS[what.removesuffix("End")]:
            innermost.end, innermost.bit_size = event["time"], event["bit_size"]
            innermost.ended, ended = ended, ended + 1
            innermost = innermost.parent
    done = sorted((node for node in nodes if node.end is not None), key=lambda node: node.ended)
    return [_row(node, done) for node in done]


def _row(node: Node, done: list[Node]) -> NetSpan:
    before = [] if node.parent is None else [each for each in done if each.parent is node.parent]
    begin_bits = sum(each.bit_size or 0 for each in before if each.ended < node.ended)
    outermost = node.ancestors[-1]
    is_connected = outermost.kind == "connection"
    assert node.end is not None
    assert node.bit_size is not None
    return NetSpan(
        node.span_id,
        -1 if node.parent is None else node.parent.span_id,
        len(node.ancestors) - 1,
        node.kind,
        node.name,
        outermost.name if is_connected else "",
        is_connected and outermost.is_outgoing,
        begin_bits,
        begin_bits + node.bit_size,
        node.bit_size,
        node.begin,
        node.end,
    )
