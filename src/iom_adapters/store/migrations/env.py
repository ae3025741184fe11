"""What Alembic runs: migrations on the connection `upgrade` hands over, in its transaction."""

from alembic import context

from iom_adapters.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
