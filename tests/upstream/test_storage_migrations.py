"""The schema is what the tables say, arrives whole, and is never touched by a program that does not know it."""

import stat
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, Table, inspect, text

from tests.clocks import FakeClock
from tests.upstream.databases import engine_at, sqlite_only, url_of
from tests.upstream.rig import Bang, SeededEntropy, failing_at
from upstream.domain.entities import Flag, FlagConfig
from upstream.storage.database import Unavailable, open_database, sqlite_engine
from upstream.storage.entity_history import version_of
from upstream.storage.migrate import SchemaTooNew, migrate
from upstream.storage.records import every
from upstream.storage.tables import metadata

EDITED: dict[str, Any] = {"version": 1, "created_at": 1, "updated_at": 1}
FIRST_SCHEMA: dict[str, dict[str, Any]] = {
    "organisations": {"id": "o", "name": "O", **EDITED},
    "projects": {"id": "p", "organisation_id": "o", "key": "shop", "name": "Shop", **EDITED},
    "environments": {
        "id": "e", "project_id": "p", "key": "production", "name": "Production", "sort": 0, "critical": False,
        "stream_secret": "s", "secure_mode_secret": "s", "revision": 1, "content_hash": "", "credentials_hash": "",
        **EDITED,
    },
    "flags": {
        "id": "f", "project_id": "p", "key": "beta", "name": "Beta", "description": None, "type": "boolean",
        "kind": "release", "tags": "[]", "metadata": "{}", "is_active": True, "client_side_enabled": True,
        "analytics_enabled": True, "prerequisites": "[]", "mutual_exclusion_group": None, "variations": "[]",
        "owner": None, "expires_at": None, "archived_at": None, "deleted_at": None, **EDITED,
    },
    "flag_configs": {
        "flag_id": "f", "environment_id": "e", "enabled": True, "enabled_at": 1, "off": "off",
        "fallthrough": '{"variation":"on"}', "rules": "[]", "targets": "[]", "salt": "s", "version": 3, "updated_at": 1,
    },
}  # fmt: skip
"""A row of each table that a flag's config hangs on."""


def open_at(path: Path) -> None:
    open_database(url_of(path), clock=FakeClock(), entropy=SeededEntropy()).close()


def test_the_migrations_make_exactly_the_tables(tmp_path: Path) -> None:
    """Alembic finds no difference between the migrated schema and `tables`."""
    path = tmp_path / "new" / "halyard.db"
    open_at(path)
    engine = engine_at(path)
    with engine.begin() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_a_migration_killed_at_any_statement_leaves_nothing_and_runs_again(tmp_path: Path) -> None:
    """DDL is part of the one transaction: a fault rolls all of it back, and the next start goes through."""
    engine = engine_at(tmp_path / "halyard.db")

    def names() -> list[str]:
        with engine.begin() as connection:
            return inspect(connection).get_table_names()

    for statement in range(0, 1000, 3):
        heal = failing_at(engine, statement)
        try:
            with engine.begin() as connection:
                migrate(connection, lineage_id="0" * 16, now_ms=1)
        except Bang:
            heal()
            assert names() == []
        else:
            heal()
            break
    assert statement > 30
    assert "flags" in names()
    engine.dispose()


def test_what_an_older_schema_holds_is_kept(tmp_path: Path) -> None:
    """Flags and configs of the first schema are there after the newest, with a history that begins with them."""
    engine = engine_at(tmp_path / "halyard.db")
    with engine.begin() as connection:
        migrate(connection, lineage_id="0" * 16, now_ms=1, target="0001")
        for name, row in FIRST_SCHEMA.items():
            # As the first schema has it: columns that came later are not known to this statement.
            found = Table(name, MetaData(), autoload_with=connection)
            connection.execute(found.insert(), row)
    with engine.begin() as connection:
        migrate(connection, lineage_id="0" * 16, now_ms=2)
        kept = connection.execute(text("SELECT * FROM flag_configs")).mappings().one()
        assert dict(kept) == FIRST_SCHEMA["flag_configs"]
        flag = connection.execute(text("SELECT * FROM flags")).mappings().one()
        assert dict(flag) == {**FIRST_SCHEMA["flags"], "number_format": None}
        environment = connection.execute(text("SELECT require_review FROM environments")).scalar_one()
        assert not environment
        begun = [version_of(connection, "f", "e", 3), version_of(connection, "f", "", 1)]
        assert [each and each.entity for each in begun] == [
            every(connection, FlagConfig, flag_id="f")[0], every(connection, Flag, id="f")[0],
        ]  # fmt: skip
        connection.execute(text("UPDATE flag_configs SET off = NULL"))
        connection.execute(text("DELETE FROM flags"))
        assert connection.execute(text("SELECT count(*) FROM flag_configs")).scalar() == 0
    engine.dispose()


def test_a_newer_schema_is_refused_clearly(tmp_path: Path) -> None:
    """An older program names both schemas and touches nothing."""
    path = tmp_path / "halyard.db"
    open_at(path)
    engine = engine_at(path)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(SchemaTooNew, match=r"9999, which is newer than .*0003"):
        open_at(path)


@sqlite_only("modes of files")
def test_the_database_is_private(tmp_path: Path) -> None:
    """A new file and what SQLite puts beside it can be read by the owner alone; an existing one keeps its mode."""
    path = tmp_path / "halyard.db"
    tmp_path.chmod(0o755)
    database = open_database(url_of(path), clock=FakeClock(), entropy=SeededEntropy())
    engine = sqlite_engine(url_of(path), begin="BEGIN")
    with engine.begin() as connection:
        connection.execute(text("SELECT 1"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    engine.dispose()
    database.close()
    assert modes == dict.fromkeys(("halyard.db", "halyard.db-wal", "halyard.db-shm"), 0o600)
    path.chmod(0o640)
    open_at(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Neither is another kind of database, nor a directory."""
    for url in ("mysql://me:secret@localhost/x", "sqlite://", "nothing"):
        with pytest.raises(ValueError, match="not a ") as caught:
            open_database(url, clock=FakeClock(), entropy=SeededEntropy())
        assert "secret" not in str(caught.value)
    with pytest.raises(Unavailable):
        open_database(f"sqlite:///{tmp_path}", clock=FakeClock(), entropy=SeededEntropy())
