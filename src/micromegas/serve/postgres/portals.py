"""The prepared statements and portals of one session, by name, within limits. It sends nothing to the client."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from micromegas.serve.postgres.commands import Command, Question, Setting
from micromegas.serve.postgres.errors import PostgresError
from micromegas.serve.postgres.lake_rows import LakeRows, LakeStatement
from micromegas.serve.postgres.messages import Column
from micromegas.serve.postgres.relay import Relay

MAX_PREPARED = 10_000
MAX_PREPARED_BYTES = 64 * 1024 * 1024
MAX_PORTALS = 1_000
MAX_BOUND_BYTES = 128 * 1024 * 1024


@dataclass(slots=True)
class Prepared:
    """A prepared statement: `lake` where the lake answers it, `relayed` its name at the catalogue where that does."""

    command: Command
    parameter_oids: tuple[int, ...] = ()
    columns: tuple[Column, ...] | None = None
    lake: LakeStatement | None = None
    relayed: str | None = None
    size: int = 0
    is_nameless: bool = False
    """Whether only portals lead to it: with the last of them, the catalogue forgets it."""


@dataclass(slots=True)
class KeptRows:
    """Rows that were read, as messages, to be given by pieces or again."""

    rows: list[bytes] = field(default_factory=list)
    size: int = 0
    is_whole: bool = False
    position: int = 0
    """Of the row that was given last, counted from 1: 0 is before the first, one more than there are rows behind
    them."""


@dataclass(slots=True)
class Portal:
    """A statement with its values. Rows of the catalogue are kept whole once a part of them was asked for; of the
    lake's, those of a cursor that scrolls are kept as far as they were read."""

    prepared: Prepared
    parameters: dict[str, pa.Scalar] = field(default_factory=dict)
    forms: list[int] = field(default_factory=list)
    relayed: str | None = None
    bound: bytes = b""
    runs_before: int = 0
    is_cursor: bool = False
    is_binary: bool = False
    scrolls: bool = False
    holds: bool = False
    is_committed: bool = False
    size: int = 0
    rows: LakeRows | None = None
    given: int = 0
    """Rows of the lake that were given or skipped, where none are kept."""
    kept: KeptRows | None = None
    is_done: bool = False
    has_failed: bool = False

    async def close(self) -> None:
        if self.rows is not None:
            await self.rows.close()
            self.rows = None


class Portals:
    """Statements and portals by name; the unnamed ones are replaced by the next. `relay` forgets what is forgotten."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._prepared: dict[str, Prepared] = {}
        self._prepared_bytes = 0
        self._portals: dict[str, Portal] = {}
        self._names = 0

    def kept_beside(self, portal: Portal) -> int:
        """Bytes of the rows that all other portals keep."""
        return sum(each.kept.size for each in self._portals.values() if each is not portal and each.kept is not None)

    def new_name(self) -> str:
        """For something at the catalogue."""
        self._names += 1
        return f"m{self._names}"

    def check_room(self, size: int) -> None:
        """`PostgresError` where no statement of this size may be added."""
        if len(self._prepared) >= MAX_PREPARED:
            raise PostgresError("53400", f"a session has at most {MAX_PREPARED} prepared statements")
        if self._prepared_bytes + size > MAX_PREPARED_BYTES:
            raise PostgresError(
                "53400", f"the prepared statements of a session have at most {MAX_PREPARED_BYTES} bytes"
            )

    async def add_statement(self, name: str, prepared: Prepared) -> None:
        """`PostgresError` where its name is another's, told last, as PostgreSQL tells it."""
        if name and name in self._prepared:
            prepared.is_nameless = True
            await self.forget_unused(prepared)
            raise PostgresError("42P05", f'prepared statement "{name}" already exists')
        self._prepared_bytes += prepared.size
        self._prepared[name] = prepared

    def may_run(self, name: str) -> bool:
        """Whether there is a statement of this name that EXECUTE can run."""
        prepared = self._prepared.get(name)
        return prepared is not None and isinstance(prepared.command, Question | Setting)

    def statement(self, name: str) -> Prepared:
        prepared = self._prepared.get(name)
        if prepared is None:
            raise PostgresError("26000", f'prepared statement "{name}" does not exist')
        return prepared

    def columns_of_statement(self, name: str) -> tuple[Column, ...] | None:
        """None for one that shows nothing, or isn't there."""
        prepared = self._prepared.get(name)
        return None if prepared is None else prepared.columns

    def columns_of_cursor(self, name: str) -> tuple[Column, ...] | None:
        """None for one that isn't there."""
        portal = self._portals.get(name)
        return None if portal is None else portal.prepared.columns

    async def forget(self, name: str, *, is_relayed: bool = True) -> None:
        """A statement; at the catalogue, too, unless that has forgotten it by itself or a portal needs it."""
        prepared = self._prepared.pop(name, None)
        if prepared is None:
            return
        self._prepared_bytes -= prepared.size
        prepared.is_nameless = True
        if is_relayed:
            await self.forget_unused(prepared)
        else:
            prepared.relayed = None

    async def forget_unused(self, prepared: Prepared) -> None:
        """At the catalogue, what neither a name nor a portal needs any more."""
        if prepared.relayed is None or not prepared.is_nameless:
            return
        if not any(portal.prepared is prepared for portal in self._portals.values()):
            await self._relay.forget(prepared.relayed)
            prepared.relayed = None

    async def forget_all(self, *, is_relayed: bool = True) -> None:
        for name in list(self._prepared):
            await self.forget(name, is_relayed=is_relayed)

    def check_portal(self, name: str, size: int) -> None:
        """`PostgresError` where no portal of this name and size of values may be added."""
        if name and name in self._portals:
            raise PostgresError("42P03", f'cursor "{name}" already exists')
        if len(self._portals) >= MAX_PORTALS:
            raise PostgresError("53400", f"a session has at most {MAX_PORTALS} portals and cursors")
        if sum(each.size for each in self._portals.values()) + size > MAX_BOUND_BYTES:
            raise PostgresError("53400", f"the portals of a session hold at most {MAX_BOUND_BYTES} bytes of values")

    async def add_portal(self, name: str, portal: Portal) -> None:
        await self.drop(name)
        self._portals[name] = portal

    def portal(self, name: str, state: str, what: str) -> Portal:
        portal = self._portals.get(name)
        if portal is None:
            raise PostgresError(state, f'{what} "{name}" does not exist')
        return portal

    async def drop(self, name: str) -> None:
        portal = self._portals.pop(name, None)
        if portal is not None:
            await portal.close()
            await self.forget_unused(portal.prepared)

    async def end(self, *, is_committed: bool = True) -> None:
        """Portals end with their transaction, but for cursors WITH HOLD that are committed now or were before."""
        for name, portal in list(self._portals.items()):
            portal.is_committed |= portal.holds and is_committed
            if not portal.is_committed:
                await self.drop(name)

    async def end_all(self) -> None:
        for name in list(self._portals):
            await self.drop(name)

    async def close(self) -> None:
        """At the end of the session, which is the end of the catalogue's, too."""
        for portal in self._portals.values():
            await portal.close()
