"""Brings a database's schema to the one this program knows, at start, in one transaction.

An empty database gets everything, an older one what it lacks; one that a newer program has migrated is refused before
anything is read from it, because writing to a schema that one does not know destroys data.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from upstream.storage.history import found_lineage
from upstream.storage.locks import lock_schema

MIGRATIONS = Path(__file__).parent / "migrations"


class SchemaTooNew(Exception):
    """The database was migrated by a newer version of Halyard than this one."""


def migrate(connection: Connection, *, lineage_id: str, now_ms: int, target: str = "head") -> str:
    """Lead the schema to `target` and give a new database its lineage; returns the schema that it now has.

    The caller's transaction holds it all. Where several processes start at once, one does it and the others wait.

    Raises:
        SchemaTooNew: the database is ahead of this program.
    """
    lock_schema(connection)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    for revision in MigrationContext.configure(connection).get_current_heads():
        if revision not in known:
            newest = script.get_current_head()
            raise SchemaTooNew(
                f"The database is at schema {revision}, which is newer than what this version of Halyard knows"
                f" ({newest}). Start the version that wrote it, or restore a backup from before.",
            )
    command.upgrade(config, target)
    found_lineage(connection, lineage_id, now_ms)
    return str(MigrationContext.configure(connection).get_current_revision())
