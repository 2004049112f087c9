"""What Alembic runs: the migrations, on the connection and in the transaction that `upstream.storage.migrate` opened.

The transaction is ours and holds every step, so a process killed at any statement leaves the schema as it was.
"""

from alembic import context

from upstream.storage.tables import metadata

connection = context.config.attributes["connection"]
# SQLite's DDL is transactional once the driver does not begin transactions on its own (`database.sqlite_engine`).
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
