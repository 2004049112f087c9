"""The upstream's directory: one process works in it, and what it must keep beside the database is there.

halyard.db     everything, unless `upstream.database.url` names another file or PostgreSQL
setup-token    random, made at a start without any member, gone once there is one (0600)
signing-key    random, made at the first start unless the settings bring one (0600; never on PostgreSQL)
lock           held while a process works here
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from relay.clock import Clock
from relay.errors import BadSettings
from relay.events.disk import SpoolLocked, lock_directory
from upstream.authority import SystemEntropy
from upstream.settings import UpstreamSettings
from upstream.storage import locks
from upstream.storage.database import Database, Unavailable, open_database
from upstream.storage.engines import parsed, shown, writing_engine
from upstream.storage.errors import reason_of
from upstream.storage.migrate import SchemaTooNew

SIGNING_KEY_BYTES = 48
INSTALLING_S = 60.0
"""Longest wait for another process that makes an owner and a key."""


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
    with sentences(settings):
        return open_database(
            settings.database_url,
            clock=clock,
            entropy=SystemEntropy(),
            writers=settings.database.writers,
            readers=settings.database.readers,
            busy_timeout_s=settings.database.busy_timeout_s,
        )


@contextmanager
def sentences(settings: UpstreamSettings) -> Iterator[None]:
    """Turn what can be wrong with the database into a sentence for whoever set it; no password is in it."""
    try:
        yield
    except (Unavailable, SchemaTooNew, DatabaseError, OSError, ValueError) as error:
        place = shown(settings.database_url)
        raise BadSettings([f"upstream.database.url: {place}: {reason_of(error)}"]) from error


@contextmanager
def installing(settings: UpstreamSettings) -> Iterator[None]:
    """Be the only one who makes the first things of an empty database; on SQLite whoever has the directory is."""
    if not settings.is_postgresql:
        yield
        return
    engine = writing_engine(parsed(settings.database_url), patience_s=INSTALLING_S)
    try:
        with ExitStack() as held:
            with sentences(settings):
                held.enter_context(locks.installing(engine))
            yield
    finally:
        engine.dispose()


def signing_key(settings: UpstreamSettings) -> str:
    """Return the key that signs access tokens, made at the first start unless it is set.

    Raises:
        BadSettings: it must be set, because other upstreams are to take the tokens that this one issues.
    """
    if settings.auth.signing_key is not None:
        return settings.auth.signing_key.get_secret_value()
    if settings.is_postgresql:
        problem = (
            "upstream.auth.signing_key: set it, or signing_key_file, to 32 random characters or more, the same for all"
            " upstreams on this PostgreSQL: each takes the tokens that another has issued"
        )
        raise BadSettings([problem])
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
