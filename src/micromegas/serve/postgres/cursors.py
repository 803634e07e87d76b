"""The cursors of a session that SQL declares: which rows FETCH gives, and where MOVE goes."""

from __future__ import annotations

from micromegas.serve.postgres import messages
from micromegas.serve.postgres.answers import Answers
from micromegas.serve.postgres.commands import CloseCursor, Declare, Direction, Fetch
from micromegas.serve.postgres.errors import PostgresError, not_offered
from micromegas.serve.postgres.portals import KeptRows, Portal, Portals, Prepared
from micromegas.serve.postgres.types import column_forms


class Cursors:
    """Those of the lake are read as they are fetched, and their rows kept only where they scroll. The catalogue's are
    read at once, as PostgreSQL would forget them."""

    def __init__(self, portals: Portals, answers: Answers) -> None:
        self._portals = portals
        self._answers = answers

    async def declare(self, command: Declare, prepared: Prepared, bound: Portal | None) -> None:
        """`bound`: the portal by which DECLARE itself was bound to values, where it was."""
        forms = [1] if command.is_binary else []
        parameters = {} if bound is None else bound.parameters
        scrolls = command.scrolls or (command.scrolls is None and prepared.relayed is not None)
        cursor = Portal(prepared, parameters, forms, is_cursor=True, scrolls=scrolls, holds=command.holds)
        cursor.is_binary = command.is_binary
        if prepared.parameter_oids and bound is None:
            raise PostgresError("42P02", "there is no parameter $1")
        if prepared.relayed is not None:
            if bound is not None:
                cursor.relayed, cursor.bound, cursor.runs_before = bound.relayed, bound.bound, bound.runs_before
            else:
                cursor.bound = messages.int16s([]) + messages.int16s([]) + messages.int16s(forms)
                await self._answers.bind(cursor, prepared.relayed)
            await self._answers.kept(cursor, None)
        await self._portals.add_portal(command.cursor, cursor)
        self._answers.put(messages.command_complete("DECLARE CURSOR"))

    async def fetch(self, command: Fetch, forms: list[int] | None) -> None:
        """`forms`: those that the client asks for, whatever was declared; None where it can't, and rows are told of
        before."""
        cursor = self._portals.portal(command.cursor, "34000", "cursor")
        width = len(cursor.prepared.columns or ())
        wanted = [int(cursor.is_binary)] if forms is None else forms
        if cursor.kept is None:
            cursor.forms = wanted
        elif forms is not None and column_forms(forms, width) != column_forms(cursor.forms, width):
            raise not_offered("rows that are read already keep their format", "declare a BINARY CURSOR, or fetch texts")
        if forms is None and not command.moves and cursor.prepared.columns is not None:
            columns = cursor.prepared.columns
            self._answers.put(messages.row_description(columns, column_forms(cursor.forms, len(columns))))
        keeps = cursor.scrolls or cursor.kept is not None
        count = await (self._scroll(cursor, command) if keeps else self._advance(cursor, command))
        self._answers.put(messages.command_complete(f"{'MOVE' if command.moves else 'FETCH'} {count}"))

    async def close(self, command: CloseCursor) -> None:
        if command.cursor is None:
            await self._portals.end_all()
        else:
            self._portals.portal(command.cursor, "34000", "cursor")
            await self._portals.drop(command.cursor)
        self._answers.put(messages.command_complete("CLOSE CURSOR ALL" if command.cursor is None else "CLOSE CURSOR"))

    async def _advance(self, cursor: Portal, command: Fetch) -> int:
        """A cursor whose rows pass once."""
        position = cursor.given + int(cursor.is_done)
        stays = _stays(command, position, is_on_row=position > 0 and not cursor.is_done)
        if stays is not None:
            return stays
        limit = command.count
        if command.direction is not Direction.FORWARD:
            limit = 1
            await self._answers.send_portal(cursor, (_target(command, position) or 0) - position - 1, moves=True)
        count, _ = await self._answers.send_portal(cursor, limit, moves=command.moves)
        return count

    async def _scroll(self, cursor: Portal, command: Fetch) -> int:
        """A cursor whose rows are kept."""
        kept = cursor.kept or KeptRows()
        if not cursor.scrolls:
            stays = _stays(command, kept.position, is_on_row=0 < kept.position <= len(kept.rows))
            if stays is not None:
                return stays
        kept = await self._answers.kept(cursor, _wanted(command, kept.position))
        rows = _passed(command, kept)
        if not command.moves:
            for number in rows:
                await self._answers.put_drained(kept.rows[number - 1])
        return len(rows)


def _stays(command: Fetch, position: int, *, is_on_row: bool) -> int | None:
    """What a cursor that can't go back tells without going anywhere; None where it has to go on, and an error where it
    would have to go back."""
    is_rewound = command.direction is Direction.BACKWARD and command.count is None and command.moves
    if is_rewound or (command.direction is Direction.ABSOLUTE and command.count == 0):
        if position == 0:
            return 0
    elif command.count == 0:
        if command.moves:
            return int(is_on_row)
        # to read no row backwards is to go back, too
        if not is_on_row and command.direction is not Direction.BACKWARD:
            return 0
    elif command.direction is Direction.FORWARD or (_target(command, position) or 0) > position:
        return None
    raise PostgresError(
        "55000",
        "cursor can only scan forward",
        hint="declare it with the option SCROLL to enable backward scan",
    )


def _target(command: Fetch, position: int) -> int | None:
    """The number of the one row that is wanted, which may lie outside of all rows; None where it is counted from the
    end, or where more than one are."""
    if command.count is None:
        return None
    if command.direction is Direction.RELATIVE:
        return max(0, position + command.count)
    if command.direction is Direction.ABSOLUTE:
        return command.count if command.count >= 0 else None
    return position if command.count == 0 else None


def _wanted(command: Fetch, position: int) -> int | None:
    """How many rows must have been read for it; None is all."""
    if command.direction is Direction.FORWARD and command.count is not None:
        return position + command.count
    return position if command.direction is Direction.BACKWARD else _target(command, position)


def _passed(command: Fetch, kept: KeptRows) -> range:
    """The numbers of the rows that are given, in order; moves to where the cursor stands then."""
    behind = len(kept.rows) + 1
    before = min(kept.position, behind)
    target = _target(command, before)
    if target is None and command.direction is Direction.ABSOLUTE:
        target = max(0, behind + (command.count or 0))
    if target is not None:
        kept.position = min(target, behind)
        return range(kept.position, kept.position + int(0 < kept.position < behind))
    if command.direction is Direction.BACKWARD:
        kept.position = 0 if command.count is None else max(0, before - command.count)
        return range(before - 1, max(0, kept.position - 1), -1)
    kept.position = behind if command.count is None else min(behind, before + command.count)
    return range(before + 1, min(behind, kept.position + 1))
