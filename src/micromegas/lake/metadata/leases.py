"""Leases: which of several programs does a piece of work now. It must never hand out the same token twice."""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from micromegas.lake.metadata import schema
from micromegas.lake.metadata.part import MetadataPart
from micromegas.lake.rows import LeaseClaim

_FIRST_TOKEN_BITS = 60


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
                # Somewhere, so that a name that was dropped does not begin again with the tokens that it had.
                token = secrets.randbits(_FIRST_TOKEN_BITS)
                connection.execute(sa.insert(leases).values(name=name, owner=owner, token=token, expires=now + ttl_ns))
                return token
            if held.owner != owner and held.expires > now:
                return None
            token = int(held.token) + 1
            taken = connection.execute(
                sa.update(leases).where(leases.c.name == name).values(owner=owner, token=token, expires=now + ttl_ns)
            )
            # Gone when somebody forgot it since.
            return token if taken.rowcount == 1 else None

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

    def lease_is_held(self, name: str) -> bool:
        """Whether somebody holds the lease now."""
        leases = schema.leases.c
        with self._database.read() as connection:
            expires = connection.execute(sa.select(leases.expires).where(leases.name == name)).scalar_one_or_none()
        return expires is not None and expires > self._clock()

    def drop_lease(self, claim: LeaseClaim) -> bool:
        """Give a lease back and forget its name, for work that is done once; False when it was lost already."""
        with self._database.write() as connection:
            return self._use_up(connection, claim)

    def forget_leases(self, prefix: str, expired_before: int) -> int:
        """Forget the leases with this beginning of a name that ran out before (ns): those of programs that died."""
        leases = schema.leases
        with self._database.write() as connection:
            forgotten = connection.execute(
                sa.delete(leases).where(
                    leases.c.name.startswith(prefix, autoescape=True), leases.c.expires < expired_before
                )
            )
        return forgotten.rowcount
