"""The upstream's directory: one process works in it, and what it must keep beside the database is there.

halyard.db     everything (SQLite; unless `upstream.database.url` names another file)
setup-token    random, made at a start without any member, gone once there is one (0600)
signing-key    random, made at the first start unless the settings bring one (0600)
lock           held while a process works here
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from relay.clock import Clock
from relay.errors import BadSettings
from relay.events.disk import SpoolLocked, lock_directory
from upstream.authority import SystemEntropy
from upstream.settings import UpstreamSettings
from upstream.storage.database import Database, Unavailable, open_database
from upstream.storage.migrate import SchemaTooNew

SIGNING_KEY_BYTES = 48


@contextmanager
def taken(path: Path) -> Iterator[None]:
    """Make the directory and keep other processes out of it.

    Raises:
        BadSettings: it cannot be used, or another process has it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = lock_directory(path)
    except SpoolLocked as error:
        raise BadSettings([f"upstream.data.dir: {path} is used by another upstream that is running"]) from error
    except OSError as error:
        raise BadSettings([f"upstream.data.dir: {path} cannot be used: {error.strerror or error}"]) from error
    try:
        yield
    finally:
        os.close(lock)


def open_stored(settings: UpstreamSettings, clock: Clock) -> Database:
    """Open the database, with its schema brought up to date.

    Raises:
        BadSettings: it cannot be opened, or a newer version has written it.
    """
    try:
        return open_database(
            settings.database_url,
            clock=clock,
            entropy=SystemEntropy(),
            readers=settings.database.readers,
            busy_timeout_s=settings.database.busy_timeout_s,
        )
    except (Unavailable, SchemaTooNew, DatabaseError, OSError) as error:
        raise BadSettings([f"upstream.database.url: {settings.database_url}: {_reason(error)}"]) from error


def _reason(error: Exception) -> str:
    return str(error.orig if isinstance(error, DatabaseError) else error)


def signing_key(settings: UpstreamSettings) -> str:
    """Return the key that signs access tokens, made at the first start unless it is set."""
    if settings.auth.signing_key is not None:
        return settings.auth.signing_key.get_secret_value()
    file = settings.data.dir / "signing-key"
    if not file.exists():
        write_private(file, secrets.token_urlsafe(SIGNING_KEY_BYTES))
    return file.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f"{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
