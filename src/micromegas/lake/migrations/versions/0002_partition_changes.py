"""Which partitions of global views changed, in the order in which the changes were committed.

Triggers write it: whatever changes partitions, now or in a later release, can't forget to.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEPT = 10_000

POSTGRES_FUNCTION = f"""
CREATE FUNCTION micromegas_partition_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed partitions%ROWTYPE;
    next_version bigint;
BEGIN
    IF TG_OP = 'DELETE' THEN changed := OLD; ELSE changed := NEW; END IF;
    -- Held until the commit: nobody sees a version before all that are smaller.
    PERFORM pg_advisory_xact_lock(hashtextextended('partition_changes/' || changed.view_set, 0));
    SELECT coalesce(max(version), 0) + 1 INTO next_version FROM partition_changes WHERE view_set = changed.view_set;
    INSERT INTO partition_changes (view_set, version, begin_insert_time)
    VALUES (changed.view_set, next_version, changed.begin_insert_time);
    DELETE FROM partition_changes WHERE view_set = changed.view_set AND version <= next_version - {KEPT};
    RETURN NULL;
END $$
"""

POSTGRES_TRIGGER = """
CREATE TRIGGER micromegas_partition_{event} AFTER {event} ON partitions FOR EACH ROW
WHEN ({row}.instance_id = 'global') EXECUTE FUNCTION micromegas_partition_changed()
"""

SQLITE_TRIGGER = """
CREATE TRIGGER micromegas_partition_{event} AFTER {event} ON partitions FOR EACH ROW
WHEN {row}.instance_id = 'global'
BEGIN
    INSERT INTO partition_changes (view_set, version, begin_insert_time)
    SELECT {row}.view_set, coalesce(max(version), 0) + 1, {row}.begin_insert_time
    FROM partition_changes WHERE view_set = {row}.view_set;
    DELETE FROM partition_changes
    WHERE view_set = {row}.view_set
      AND version <= (SELECT max(version) FROM partition_changes WHERE view_set = {row}.view_set) - {kept};
END
"""


def upgrade() -> None:
    op.create_table(
        "partition_changes",
        sa.Column("view_set", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("begin_insert_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("view_set", "version", name="pk_partition_changes"),
    )
    is_postgres = op.get_bind().dialect.name == "postgresql"
    if is_postgres:
        op.execute(POSTGRES_FUNCTION)
    trigger = POSTGRES_TRIGGER if is_postgres else SQLITE_TRIGGER
    for event, row in (("insert", "NEW"), ("update", "NEW"), ("delete", "OLD")):
        op.execute(trigger.format(event=event, row=row, kept=KEPT))
