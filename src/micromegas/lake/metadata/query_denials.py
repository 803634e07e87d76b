"""The rules by which queries are refused, as administrators wrote them. It must never need to know what they mean."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from micromegas.lake.errors import TooManyDenials
from micromegas.lake.metadata import schema
from micromegas.lake.metadata.part import MetadataPart
from micromegas.lake.rows import QueryDenial

_COLUMNS = [schema.query_denials.c[name] for name in QueryDenial.__dataclass_fields__]


class QueryDenials(MetadataPart):
    """Keeping the rules."""

    def add_query_denial(self, denial: QueryDenial, limit: int) -> None:
        """Keep a rule; raises `TooManyDenials` where there are `limit` already."""
        with self._database.write() as connection:
            self._lock_name(connection, "query_denials")
            count = connection.execute(sa.select(sa.func.count()).select_from(schema.query_denials)).scalar_one()
            if count >= limit:
                raise TooManyDenials(f"there are {count} rules, at most {limit}: remove one first")
            values = {name: getattr(denial, name) for name in QueryDenial.__dataclass_fields__}
            connection.execute(sa.insert(schema.query_denials).values(values))

    def query_denials(self) -> list[QueryDenial]:
        """All rules, oldest first."""
        columns = schema.query_denials.c
        statement = sa.select(*_COLUMNS).order_by(columns.created_at, columns.rule_id)
        with self._database.read() as connection:
            return [QueryDenial(*row) for row in connection.execute(statement)]

    def remove_query_denial(self, rule_id: str) -> bool:
        """Forget a rule; False when there is none of this id."""
        with self._database.write() as connection:
            deleted = connection.execute(
                sa.delete(schema.query_denials).where(schema.query_denials.c.rule_id == rule_id)
            )
        return deleted.rowcount == 1

    def note_denied(self, hits: Mapping[str, int]) -> None:
        """Remember when (ns) rules last refused a query, by their ids."""
        columns = schema.query_denials.c
        with self._database.write() as connection:
            for rule_id, moment in sorted(hits.items()):
                connection.execute(
                    sa.update(schema.query_denials)
                    .where(columns.rule_id == rule_id, sa.func.coalesce(columns.last_hit_at, 0) < moment)
                    .values(last_hit_at=moment)
                )
