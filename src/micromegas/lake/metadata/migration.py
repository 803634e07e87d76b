"""Brings a database to this program's schema, under a lock, and refuses one that a newer program made incompatible.

It must never downgrade, and never touch a database that is new enough.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from micromegas.lake.errors import LakeTooNew
from micromegas.lake.metadata import schema
from micromegas.lake.metadata.database import Database

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


def migrate(database: Database) -> None:
    """Apply what is missing; raises `LakeTooNew` when the database no longer admits this program's generation."""
    with database.read() as connection:
        if _is_current(connection):
            return
    with database.migration() as connection:
        # Another program may have migrated while this one waited for the lock.
        if _is_current(connection):
            return
        # Loaded only where something is to be done: opening an up-to-date lake is what nearly every start does.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.execute(sa.delete(schema.lake_generation))
        connection.execute(
            sa.insert(schema.lake_generation).values(
                id=1, current=schema.GENERATION, min_compatible=schema.MIN_COMPATIBLE_GENERATION
            )
        )


def _is_current(connection: sa.Connection) -> bool:
    if not sa.inspect(connection).has_table(schema.lake_generation.name):
        return False
    row = connection.execute(
        sa.select(schema.lake_generation.c.current, schema.lake_generation.c.min_compatible)
    ).one_or_none()
    if row is None or row.current < schema.GENERATION:
        return False
    if row.min_compatible > schema.GENERATION:
        raise LakeTooNew(
            f"metadata database of generation {row.current} needs a program of generation "
            f"{row.min_compatible} or newer, this one is {schema.GENERATION}"
        )
    return True
