"""Predicates of retention policies, answered by the query engine. It must never be called from an event loop."""

from __future__ import annotations

import asyncio

from micromegas.config import RetentionPolicies
from micromegas.query import QueryEngine, QueryError, QueryRequest
from micromegas.views.catalogue import VIEW_SETS

_ID_COLUMNS = {"processes": "process_id", "streams": "stream_id"}


class PolicyError(Exception):
    """A retention policy that can't be; the text names it."""


class Selection:
    """Callable: the ids of the rows of `processes` or `streams` that a predicate selects. Raises `QueryError`.

    Made once every predicate of the policies was planned and every view set is known: `PolicyError` names the first
    that can't be.
    """

    def __init__(self, engine: QueryEngine, policies: RetentionPolicies) -> None:
        self._engine = engine
        known = VIEW_SETS.keys() | {table.name for table in engine.tables()}
        # What is wrong with a site's view must not end what does not need it.
        known |= {problem.view for problem in engine.view_problems if problem.view is not None}
        for view_set in [*(policies.derived or ()), *(each.view_set for each in policies.instances)]:
            if view_set not in known:
                raise PolicyError(f"retention policies: there is no view set {view_set!r}; known are {sorted(known)}")
        for each in policies.instances:
            if each.view_set not in VIEW_SETS or VIEW_SETS[each.view_set].instance_kind is None:
                raise PolicyError(
                    f"retention policy {each.streams.name!r}: {each.view_set} has no instances of processes or streams "
                    "that could meet conditions"
                )
        for policy in policies.of_streams:
            for table, predicate in (("processes", policy.processes), ("streams", policy.streams)):
                if predicate is None:
                    continue
                try:
                    engine.describe(_statement(table, predicate))
                except QueryError as error:
                    raise PolicyError(f"retention policy {policy.name!r}, {table}: {error.message}") from None

    def __call__(self, table: str, predicate: str) -> frozenset[str]:
        return asyncio.run(self._ids(_statement(table, predicate)))

    async def _ids(self, statement: str) -> frozenset[str]:
        stream = await self._engine.execute(QueryRequest(statement, is_internal=True))
        try:
            return frozenset([value async for batch in stream for value in batch.column(0).to_pylist()])
        finally:
            await stream.aclose()


def _statement(table: str, predicate: str) -> str:
    # On lines of their own, for a predicate that ends in a comment.
    return f"SELECT {_ID_COLUMNS[table]} FROM {table} WHERE (\n{predicate}\n)"
