"""What a partition carries to the next one, for views whose rows reach over partitions."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("partitions", sa.Column("carries", sa.LargeBinary(), nullable=True))
    op.add_column("partitions", sa.Column("carried_state", sa.LargeBinary(), nullable=True))
