"""`halyard upstream` backup, restore, migrate and new-lineage: an operator loses nothing, whatever is typed."""

import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.upstream.databases import engine_at, sqlite_only
from tests.upstream.maintaining import Run, run_fixture  # noqa: F401 - used by name
from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - used by name
from upstream import data_dir
from upstream.cli import app
from upstream.domain.commands import CreateFlag
from upstream.storage import backup as backup_module
from upstream.storage.history import lineage
from upstream.storage.migrate import migrate

pytestmark = sqlite_only("PostgreSQL has its own tools")


def flags(rig: Rig) -> set[str]:
    project_id = rig.project.id
    return {flag.key for flag in rig.view(lambda view: view.flags(project_id))}


def add(rig: Rig, *keys: str) -> None:
    for key in keys:
        rig.do(CreateFlag(project="shop", key=key))


def test_what_was_backed_up_is_restored(rig: Rig, run: Run, tmp_path: Path) -> None:
    """The state of the backup is back, under a new lineage; what it replaced is beside it, whole."""
    add(rig, "before")
    saved = tmp_path / "saved.db"
    status, said = run("backup", saved)
    assert (status, "found it sound" in said) == (0, True)
    add(rig, "after")
    epoch = rig.look(lineage)
    status, said = run("restore", saved)
    assert status == 0, said
    assert flags(rig) == {"before"}
    assert rig.look(lineage) != epoch
    (aside,) = tmp_path.glob("halyard.db.replaced-*Z")
    assert str(aside) in said
    with closing(sqlite3.connect(aside)) as connection:
        assert connection.execute("SELECT count(*) FROM flags").fetchone() == (2,)
    add(rig, "later")
    assert flags(rig) == {"before", "later"}


def test_a_backup_is_one_private_file(run: Run, tmp_path: Path) -> None:
    """Nothing lies beside it, and nobody else may read it: it holds the environments' secrets."""
    folder = tmp_path / "backups"
    folder.mkdir()
    assert run("backup", folder / "saved.db")[0] == 0
    with closing(sqlite3.connect(folder / "saved.db")) as connection:
        assert connection.execute("SELECT count(*) FROM projects").fetchone() == (1,)
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_backup_is_made_while_others_write(rig: Rig, run: Run, tmp_path: Path) -> None:
    """The upstream runs on, and the copy is of one moment: every flag in it has its configs and its audit entry."""
    stop = threading.Event()
    written: list[int] = []

    def write() -> None:
        engine = engine_at(rig.path)
        row = "INSERT INTO evaluation_counters VALUES ('e', 'f', '', '', '', ?, 1, 1)"
        while not stop.is_set():
            with engine.begin() as connection:
                connection.exec_driver_sql(row, (2 * len(written),))
                connection.exec_driver_sql(row, (2 * len(written) + 1,))
            written.append(1)
        engine.dispose()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(5):
            saved = tmp_path / f"saved-{number}.db"
            with data_dir.taken(tmp_path):
                assert run("backup", saved)[0] == 0
            with closing(sqlite3.connect(saved)) as connection:
                assert connection.execute("SELECT count(*) FROM evaluation_counters").fetchone()[0] % 2 == 0
    finally:
        stop.set()
        thread.join()
    assert written


def test_nothing_is_restored_under_a_running_upstream(rig: Rig, run: Run, tmp_path: Path) -> None:
    """The directory is locked by whoever works in it; the same goes for a migration and a new lineage."""
    saved = tmp_path / "saved.db"
    run("backup", saved)
    before = rig.dump()
    with data_dir.taken(tmp_path):
        for command in (("restore", saved), ("migrate",), ("new-lineage",)):
            status, said = run(*command)
            assert (status, "another upstream that is running" in said) == (2, True)
    assert rig.dump() == before


def damaged(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[8192:16384] = b"\xff" * 8192
    path.write_bytes(raw)


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")


def orphaned(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM projects")
        connection.commit()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (damaged, "malformed"),
        (orphaned, "refers to one of projects"),
        (newer, "9999, which is newer than"),
        (foreign, "no database of Halyard's"),
        (lambda path: path.write_text("notes of mine, which are no database at all"), "cannot be copied"),
        (lambda path: path.unlink(), "there is no file"),
    ],
)
def test_a_bad_backup_is_refused(rig: Rig, run: Run, tmp_path: Path, spoil: Callable[[Path], Any], why: str) -> None:
    """Before anything is touched: the database stays as it is, and nothing is left beside it."""
    saved = tmp_path / "saved.db"
    run("backup", saved)
    spoil(saved)
    before = rig.dump()
    names = {each.name for each in tmp_path.iterdir() if each != saved}
    status, said = run("restore", saved)
    assert (status, why in said) == (2, True), said
    assert rig.dump() == before
    assert {each.name for each in tmp_path.iterdir() if each != saved} - {"lock"} == names - {"lock"}


def test_what_is_there_is_not_written_over(rig: Rig, run: Run, tmp_path: Path) -> None:
    """Neither another file, nor the database by itself, whichever way round the two are typed."""
    (tmp_path / "notes").write_text("mine")
    before = rig.dump()
    for command, why in (
        (("backup", tmp_path / "notes"), "exists already"),
        (("restore", rig.path), "database itself"),
    ):
        status, said = run(*command)
        assert (status, why in said) == (2, True)
    status, said = run("backup", tmp_path / "nowhere" / "saved.db")
    assert (status, "No such file" in said) == (2, True)
    assert (rig.dump(), (tmp_path / "notes").read_text()) == (before, "mine")


def test_a_damaged_database_is_not_backed_up_but_can_be_replaced(rig: Rig, run: Run, tmp_path: Path) -> None:
    """The backup that would hide the damage is refused; the restore keeps the damaged file."""
    saved = tmp_path / "saved.db"
    run("backup", saved)
    rig.engine.dispose()
    damaged(rig.path)
    spoilt = rig.path.read_bytes()
    assert run("backup", tmp_path / "other.db")[0] == 2
    status, said = run("restore", saved)
    assert status == 0, said
    (aside,) = tmp_path.glob("halyard.db.replaced-*Z")
    assert aside.read_bytes() == spoilt
    assert rig.project.key == "shop"


def test_an_older_backup_is_brought_up_to_date(rig: Rig, run: Run, tmp_path: Path) -> None:
    """What an earlier version has saved is migrated while it is restored, also where there is no database."""
    old = tmp_path / "old.db"
    engine = engine_at(old)
    with engine.begin() as connection:
        migrate(connection, lineage_id="0" * 16, now_ms=1, target="0001")
    engine.dispose()
    rig.engine.dispose()
    rig.path.unlink()
    status, said = run("restore", old)
    assert (status, "replaces" in said) == (0, False), said
    assert run("migrate") == (0, "The database is at schema 0003.\n")


def test_a_restore_that_is_cut_off_leaves_a_database(
    rig: Rig, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one stays in its place until the new one takes it in one step."""
    saved = tmp_path / "saved.db"
    run("backup", saved)
    add(rig, "after")

    def cut(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backup_module, "_put", cut)
    with pytest.raises(KeyboardInterrupt):
        backup_module.restore(saved, rig.path, lineage_id="f" * 16, now_ms=1, label="x")
    assert flags(rig) == {"after"}


def test_no_lineage_for_a_database_that_is_not_there(tmp_path: Path) -> None:
    """A mistyped directory is told, and no empty database is made in it."""
    done = CliRunner().invoke(app, ["upstream", "new-lineage", "--data-dir", str(tmp_path)])
    assert (done.exit_code, "there is no database" in done.output) == (2, True)
    assert not list(tmp_path.glob("*.db"))
