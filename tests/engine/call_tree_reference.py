"""The thread call tree by the book (lakehouse §6.2, §6.3, with the mending of §10), as a tree of objects."""

from __future__ import annotations

from dataclasses import dataclass, field

THREAD = ("thread", "", "", 0)

Scope = tuple[str, str, str, int]
Event = tuple[str, int, Scope, int]
"""kind (`begin` or `end`), ticks, scope, event id"""
Block = tuple[int, int, list[Event]]
"""begin ticks, end ticks, events"""


@dataclass
class Node:
    id: int
    scope: Scope
    begin: int
    end: int
    children: list[Node] = field(default_factory=list)


def chains(blocks: list[Block]) -> list[list[Block]]:
    split: list[list[Block]] = []
    latest_end = None
    for block in blocks:
        begin, end, _ = block
        if latest_end is None or begin > latest_end:
            split.append([])
            latest_end = end
        split[-1].append(block)
        latest_end = max(latest_end, begin, end)
    return split


def rows(blocks: list[Block]) -> tuple[list[tuple], int]:
    """(id, parent, depth, begin, end, scope) of every span in pre-order, and the number of anomalies."""
    out: list[tuple] = []
    anomalies = 0
    for chain in chains(blocks):
        root, more = tree(chain)
        anomalies += more
        pending = [(root, 0, 0)] if root else []
        while pending:
            node, parent, depth = pending.pop()
            out.append((node.id, parent, depth, node.begin, node.end, node.scope))
            pending += [(child, node.id, depth + 1) for child in reversed(node.children)]
    return out, anomalies


def tree(chain: list[Block]) -> tuple[Node | None, int]:
    range_begin, now, anomalies, seen = chain[0][0], chain[0][0], 0, False
    last_end = max(max(begin, end) for begin, end, _ in chain)
    root = Node(-1, THREAD, range_begin, last_end)
    stack = [root]
    latest_end = range_begin
    for begin, end, events in chain:
        latest_end = max(latest_end, begin, end)
        for kind, ticks, scope, event_id in events:
            anomalies += not now <= ticks <= latest_end
            now = min(max(now, ticks), latest_end)
            seen = True
            if kind == "begin":
                node = Node(event_id, scope, now, last_end)
                stack[-1].children.append(node)
                stack.append(node)
            elif len(stack) == 1:
                # everything so far happened within a span that had begun before
                root.children = [Node(event_id, scope, range_begin, now, root.children)]
            elif scope in [node.scope for node in stack[1:]]:
                while True:
                    closed = stack.pop()
                    closed.end = now
                    if closed.scope == scope:
                        break
                    anomalies += 1
            else:
                anomalies += 1
    return (root if seen else None), anomalies
