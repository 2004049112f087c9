"""Copies of a SQLite database: made while it is written to, checked, and put in its place.

PostgreSQL has its own tools. A copy is there whole and sound, or not at all. What a restore replaces stays beside the
database, and a restore that is cut off leaves either the old database or the new one in its place.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from relay.durable_file import sync_directory
from upstream.storage.engines import parsed, writing_engine
from upstream.storage.history import renew_lineage
from upstream.storage.migrate import migrate

_BESIDE: Final = ("-wal", "-shm")
"""What SQLite keeps beside a database that is in use, or was when its process died."""


class BadBackup(Exception):
    """The file cannot be used: it is missing, damaged, in the way, or no database of Halyard's."""


def back_up(database: Path, target: Path) -> None:
    """Copy a database to a new file; others may write to it meanwhile. Blocks.

    Raises:
        BadBackup: there is no such database, it is damaged, or something is in the way.
    """
    if target.exists():
        raise BadBackup(f"{target} exists already; name a new file")
    with _copied(database, target) as copy:
        _check(copy, database)
        _put(copy, target)


def restore(backup: Path, database: Path, *, lineage_id: str, now_ms: int, label: str) -> Path | None:
    """Put a backup in the database's place, with its schema brought up to date and a lineage of its own. Blocks.

    Nobody may have the database open.

    Returns:
        where what was replaced is now; None if there was nothing.

    Raises:
        BadBackup: the backup cannot be used; the database is as it was.
        SchemaTooNew: a newer version of Halyard has made it; the database is as it was.
    """
    if database.exists() and backup.exists() and backup.samefile(database):
        raise BadBackup(f"{backup} is the database itself")
    with _copied(backup, database) as copy:
        _check(copy, backup)
        engine = writing_engine(parsed(f"sqlite:///{copy}"))
        try:
            with engine.begin() as connection:
                _renew(connection, lineage_id, now_ms)
        finally:
            engine.dispose()
        _close(copy)
        replaced = _set_aside(database, label)
        _put(copy, database)
    return replaced


def _renew(connection: Connection, lineage_id: str, now_ms: int) -> None:
    migrate(connection, lineage_id=lineage_id, now_ms=now_ms)
    renew_lineage(connection, lineage_id, now_ms)


@contextmanager
def _copied(source: Path, target: Path) -> Iterator[Path]:
    """Copy a database beside where it is to be; the copy is removed unless it has been put there."""
    if not source.is_file():
        raise BadBackup(f"there is no file {source}")
    copy = target.with_name(f"{target.name}.copying")
    try:
        copy.unlink(missing_ok=True)
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        reading = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)
        with closing(reading) as origin, closing(sqlite3.connect(copy)) as into:
            origin.backup(into)
        _close(copy)
        yield copy
    except sqlite3.Error as error:
        raise BadBackup(f"{source} cannot be copied: {error}") from error
    finally:
        for name in (copy, *(copy.with_name(copy.name + end) for end in _BESIDE)):
            name.unlink(missing_ok=True)


def _check(copy: Path, source: Path) -> None:
    with closing(sqlite3.connect(copy)) as connection:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            raise BadBackup(f"{source} is damaged: {'; '.join(found)}")
        broken = connection.execute("PRAGMA foreign_key_check").fetchone()
        if broken is not None:
            raise BadBackup(f"{source} is damaged: a row of {broken[0]} refers to one of {broken[2]} that is not there")
        known = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {"alembic_version", "lineage"} <= known:
        raise BadBackup(f"{source} is no database of Halyard's")


def _close(path: Path) -> None:
    """Let everything be in the one file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")


def _set_aside(database: Path, label: str) -> Path | None:
    """Give the database a second name that stays, with what belongs to it; returns that name."""
    if not database.exists():
        return None
    with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as connection:
        # So that the file alone is all of it. A damaged one, which may be why it is replaced, is kept as it is.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    aside = database.with_name(f"{database.name}.replaced-{label}")
    os.link(database, aside)
    for end in _BESIDE:
        # These must not be found by the database that takes the place.
        with suppress(FileNotFoundError):
            database.with_name(database.name + end).rename(aside.with_name(aside.name + end))
    return aside


def _put(copy: Path, target: Path) -> None:
    with copy.open("rb") as file:
        os.fsync(file.fileno())
    copy.replace(target)
    sync_directory(target.parent)
