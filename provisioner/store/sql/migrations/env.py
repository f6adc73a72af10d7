"""Where alembic runs a migration: on the connection it is given, all steps in one transaction."""

from alembic import context

from provisioner.store.sql.tables import SCHEMA_VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=SCHEMA_VERSION_TABLE,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
