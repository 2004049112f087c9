"""`halyard upstream` migrate and new-lineage, on either database; and what to use instead of backup on PostgreSQL."""

from pathlib import Path

import pytest
from alembic.runtime.migration import MigrationContext

from tests.upstream.databases import postgresql_only
from tests.upstream.maintaining import Run, run_fixture  # noqa: F401 - used by name
from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - used by name
from upstream.domain.commands import CreateFlag
from upstream.storage.history import lineage
from upstream.storage.migrate import migrate
from upstream.storage.tables import metadata


def test_migrate_brings_the_schema_up_to_date(rig: Rig, run: Run) -> None:
    """A database of the first schema has the newest afterwards; a second time there is nothing to do."""
    with rig.engine.begin() as connection:
        metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
        migrate(connection, lineage_id="0" * 16, now_ms=1, target="0001")
    for _ in range(2):
        assert run("migrate") == (0, "The database is at schema 0003.\n")
    assert rig.look(lambda connection: MigrationContext.configure(connection).get_current_revision()) == "0003"


def test_a_new_lineage_changes_nothing_else(rig: Rig, run: Run) -> None:
    """It is for a database that came back by other means; the epoch is another one, everything else is as it was."""
    rig.do(CreateFlag(project="shop", key="x"))
    before, epoch = rig.dump(), rig.look(lineage)
    status, said = run("new-lineage")
    after = rig.look(lineage)
    assert (status, said.startswith(f"The epoch was {epoch} and is {after}. ")) == (0, True), said
    assert after != epoch
    assert len(set(rig.dump()) ^ set(before)) == 2


@postgresql_only("SQLite has these commands")
@pytest.mark.parametrize(("command", "instead"), [("backup", "pg_dump"), ("restore", "pg_restore")])
def test_postgresql_has_its_own_tools(run: Run, tmp_path: Path, command: str, instead: str) -> None:
    """They are named, with what is to be done afterwards."""
    status, said = run(command, tmp_path / "saved.db")
    assert (status, instead in said) == (2, True)
    assert ("new-lineage" in said) == (command == "restore")
