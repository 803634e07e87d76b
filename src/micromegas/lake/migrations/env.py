"""Alembic's entry: runs the migrations on the connection (and inside the transaction and lock) of `migration.py`.

It must never open a connection or configure logging itself.
"""

from alembic import context

from micromegas.lake.metadata.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
