"""What an operator does to the database while the upstream is not looking: migrate, back up, restore, new lineage.

Each does its work, blocking, and returns what to tell the operator; what is in the way is said by `BadSettings`.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from relay.clock import SystemClock
from relay.errors import BadSettings
from upstream import data_dir
from upstream.authority import SystemEntropy
from upstream.settings import UpstreamSettings
from upstream.storage import backup
from upstream.storage.database import bring_up_to_date
from upstream.storage.engines import file_of, parsed, writing_engine
from upstream.storage.history import lineage, renew_lineage
from upstream.storage.migrate import SchemaTooNew

LINEAGE_BYTES: Final = 8
_FOLLOWERS = "Relays and applications take everything anew as soon as they are connected again."


def migrate(settings: UpstreamSettings) -> str:
    """Bring the schema up to date.

    Raises:
        BadSettings: the database cannot be used, or a running upstream has it (SQLite).
    """
    with _alone(settings), data_dir.sentences(settings):
        schema = bring_up_to_date(settings.database_url, clock=SystemClock(), entropy=SystemEntropy())
    return f"The database is at schema {schema}."


def back_up(settings: UpstreamSettings, target: Path) -> str:
    """Copy the database, also of a running upstream, to a new file.

    Raises:
        BadSettings: it cannot be copied.
    """
    database = _file(settings, "pg_dump --format=custom --file=FILE DATABASE")
    with _sentences(str(target)):
        backup.back_up(database, target)
    return f"Wrote {target} ({target.stat().st_size} bytes), and found it sound."


def restore(settings: UpstreamSettings, source: Path) -> str:
    """Put a backup in the place of the database, which stays beside it.

    Raises:
        BadSettings: the backup cannot be used, or the upstream runs.
    """
    database = _file(
        settings, "pg_restore --clean --if-exists --dbname=DATABASE FILE, and then `halyard upstream new-lineage`"
    )
    now_ms = SystemClock().wall_ms()
    label = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    with data_dir.taken(settings.data.dir), _sentences(str(source)):
        database.parent.mkdir(parents=True, exist_ok=True)
        replaced = backup.restore(source, database, lineage_id=_fresh_lineage(), now_ms=now_ms, label=label)
    kept = "" if replaced is None else f"\nWhat it replaces is kept as {replaced}."
    return f"Restored {database} from {source}. {_FOLLOWERS}{kept}"


def begin_new_lineage(settings: UpstreamSettings) -> str:
    """Say that the database was put back by other means than `restore`, so that followers take everything anew.

    Raises:
        BadSettings: the database cannot be used, or a running upstream has it (SQLite).
    """
    file = file_of(parsed(settings.database_url))
    if file is not None and not file.exists():
        raise BadSettings([f"upstream.database.url: there is no database {file}"])
    with _alone(settings), data_dir.sentences(settings):
        clock = SystemClock()
        bring_up_to_date(settings.database_url, clock=clock, entropy=SystemEntropy())
        engine = writing_engine(parsed(settings.database_url), patience_s=settings.database.busy_timeout_s)
        try:
            with engine.begin() as connection:
                epochs = _renewed(connection, clock.wall_ms())
        finally:
            engine.dispose()
    return f"The epoch was {epochs[0]} and is {epochs[1]}. {_FOLLOWERS}"


def _renewed(connection: Connection, now_ms: int) -> tuple[str, str]:
    before = lineage(connection)
    renew_lineage(connection, _fresh_lineage(), now_ms)
    return before, lineage(connection)


def _fresh_lineage() -> str:
    return os.urandom(LINEAGE_BYTES).hex()


def _alone(settings: UpstreamSettings) -> AbstractContextManager[None]:
    """Keep the upstream of a SQLite database from starting meanwhile. On PostgreSQL transactions are enough."""
    return nullcontext() if settings.is_postgresql else data_dir.taken(settings.data.dir)


def _file(settings: UpstreamSettings, instead: str) -> Path:
    """Return the SQLite file.

    Raises:
        BadSettings: it is PostgreSQL, with what to do `instead`.
    """
    found = file_of(parsed(settings.database_url))
    if found is None:
        raise BadSettings([f"upstream.database.url: this is for SQLite; on PostgreSQL use {instead}"])
    return found


@contextmanager
def _sentences(place: str) -> Iterator[None]:
    try:
        yield
    except (backup.BadBackup, SchemaTooNew) as error:
        raise BadSettings([str(error)]) from error
    except OSError as error:
        raise BadSettings([f"{place}: {error.strerror or error}"]) from error
