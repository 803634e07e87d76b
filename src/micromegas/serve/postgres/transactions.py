"""The transactions of a session, which are those of the private PostgreSQL: those that SQL begins, and the one that
several statements in one text are."""

from __future__ import annotations

from micromegas.serve.postgres.answers import Answers
from micromegas.serve.postgres.commands import Transaction
from micromegas.serve.postgres.portals import Portals
from micromegas.serve.postgres.relay import IDLE, IN_TRANSACTION, Relay

# of the warning that a transaction is open already, in the bytes of its message
_IN_PROGRESS = b"\0C25001\0"


class Transactions:
    """`share()` before each statement of a text that has several, `leave()` behind the last or the one that failed."""

    def __init__(self, relay: Relay, answers: Answers, portals: Portals) -> None:
        self._relay = relay
        self._answers = answers
        self._portals = portals
        self._is_shared = False
        """Whether a transaction is open that nobody has begun."""

    async def share(self) -> None:
        """Opens the transaction of a text, where none is open."""
        if self._relay.state == IDLE:
            await self._relay.row("BEGIN")
            self._is_shared = True

    async def leave(self) -> None:
        """Ends the transaction of a text: what it set is kept only if nothing failed."""
        if self._is_shared:
            await self._end_shared(is_committed=self._relay.state == IN_TRANSACTION)

    async def run(self, command: Transaction) -> None:
        """What PostgreSQL says to a transaction command is what it would say in the client's own transaction."""
        begins = command.begins and self._is_shared
        if begins:
            # now somebody has begun it
            self._is_shared = False
        elif self._is_shared and not command.is_of_prepared:
            # told of outside of it, as what nobody has begun nobody can end: with a warning, or an error
            await self._end_shared(is_committed=command.commits)
        tag = b""
        async for answer in self._relay.run(command.sql):
            if begins:
                heard = self._relay.heard
                heard[:] = [each for each in heard if _IN_PROGRESS not in each]
            self._answers.hear()
            tag = answer.body
            self._answers.put(answer.encoded())
        if not command.returns and tag in (b"COMMIT\0", b"ROLLBACK\0"):
            await self._portals.end(is_committed=tag == b"COMMIT\0")

    async def _end_shared(self, *, is_committed: bool) -> None:
        self._is_shared = False
        await self._relay.row("COMMIT" if is_committed else "ROLLBACK")
        await self._portals.end(is_committed=is_committed)
