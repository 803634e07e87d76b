"""Leases: which of several daemons does a piece of work now. It must never hand out the same token twice."""

from __future__ import annotations

import sqlalchemy as sa

from micromegas.lake.metadata import schema
from micromegas.lake.metadata.part import MetadataPart


class Leases(MetadataPart):
    """Leases with fencing tokens, by this program's own clock."""

    def acquire_lease(self, name: str, owner: str, ttl_ns: int) -> int | None:
        """Take a lease that is free, expired or the owner's own; returns its new token, None when another holds it.

        Tokens of one name only grow, so whoever checks them can refuse a former holder.
        """
        leases, now = schema.leases, self._clock()
        with self._database.write() as connection:
            self._lock_name(connection, f"lease/{name}")
            held = connection.execute(
                sa.select(leases.c.owner, leases.c.token, leases.c.expires).where(leases.c.name == name)
            ).one_or_none()
            if held is None:
                connection.execute(sa.insert(leases).values(name=name, owner=owner, token=1, expires=now + ttl_ns))
                return 1
            if held.owner != owner and held.expires > now:
                return None
            token = int(held.token) + 1
            connection.execute(
                sa.update(leases).where(leases.c.name == name).values(owner=owner, token=token, expires=now + ttl_ns)
            )
            return token

    def renew_lease(self, name: str, token: int, ttl_ns: int) -> bool:
        """Prolong a lease that still carries this token; False when it was lost."""
        leases = schema.leases
        with self._database.write() as connection:
            renewed = connection.execute(
                sa.update(leases)
                .where(leases.c.name == name, leases.c.token == token)
                .values(expires=self._clock() + ttl_ns)
            )
            return renewed.rowcount == 1

    def release_lease(self, name: str, token: int) -> None:
        """Give a lease back at once; nothing happens when it was lost already."""
        leases = schema.leases
        with self._database.write() as connection:
            # The row stays, for its token: the next holder's must be greater.
            connection.execute(
                sa.update(leases).where(leases.c.name == name, leases.c.token == token).values(expires=0)
            )
