"""The one seam to the database: one writer, a few readers, each call one transaction.

`write` runs a synchronous function on the single writer thread inside `BEGIN IMMEDIATE … COMMIT`; `read` runs one on a
small pool of reader threads inside a read transaction, so that everything it sees is of one moment. A function that
raises leaves nothing. SQLite is in WAL mode with synchronous=FULL: what `write` has returned survives power loss.
At most `max_waiting` calls wait on each side; beyond that a call is refused rather than queued.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from relay.clock import Clock
from upstream.domain.facts import Entropy
from upstream.storage.errors import Unavailable
from upstream.storage.migrate import migrate

__all__ = ["Database", "Unavailable", "open_database", "sqlite_engine"]

T = TypeVar("T")


class _Lane:
    """Threads of one kind with their engine; counts what waits."""

    def __init__(self, engine: Engine, threads: int, name: str, max_waiting: int) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._max_waiting = max_waiting
        self._waiting = 0

    async def run(self, work: Callable[[Connection], T], committed: Callable[[T], object] | None = None) -> T:
        if self._waiting >= self._max_waiting:
            raise Unavailable("The database has more work than it can do now; try again in a moment.")
        loop = asyncio.get_running_loop()
        self._waiting += 1
        future = self._threads.submit(self._transact, work)

        def done(finished: Future[T]) -> None:
            # Runs also when nobody awaits the answer any more: the transaction is committed all the same.
            self._waiting -= 1
            if committed is not None and not finished.cancelled() and finished.exception() is None:
                committed(finished.result())

        def tell(finished: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody is left to tell
                loop.call_soon_threadsafe(done, finished)

        future.add_done_callback(tell)
        return await asyncio.wrap_future(future)

    def _transact(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except OperationalError as error:
            raise Unavailable(f"The database refused: {error.orig}") from error

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        self._engine.dispose()


class Database:
    """A database with its writer thread and its reader threads; its schema is brought up to date by `open_database`."""

    def __init__(self, url: str, *, readers: int = 2, busy_timeout_s: float = 5.0, max_waiting: int = 1000) -> None:
        writing = sqlite_engine(url, begin="BEGIN IMMEDIATE", busy_timeout_s=busy_timeout_s)
        reading = sqlite_engine(url, begin="BEGIN", size=readers, busy_timeout_s=busy_timeout_s, query_only=True)
        self._writer = _Lane(writing, 1, "db-writer", max_waiting)
        self._readers = _Lane(reading, readers, "db-reader", max_waiting)

    async def write(self, work: Callable[[Connection], T], committed: Callable[[T], object] | None = None) -> T:
        """Run `work` as one transaction; call `committed` with its result on the event loop after the commit.

        `committed` is called even when whoever waited for the answer has gone away.

        Raises:
            Unavailable: the database cannot take it now; nothing was stored.
        """
        return await self._writer.run(work, committed)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one read transaction.

        Raises:
            Unavailable: the database cannot answer now.
        """
        return await self._readers.run(work)

    def close(self) -> None:
        """Wait for what runs, then close every connection. Blocks."""
        self._readers.close()
        self._writer.close()


def sqlite_engine(
    url: str,
    *,
    begin: str,
    size: int = 1,
    busy_timeout_s: float = 5.0,
    query_only: bool = False,
) -> Engine:
    """Return an engine on a SQLite file whose transactions start with `begin`."""
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        connect_args={"timeout": busy_timeout_s, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver would begin transactions on its own, before DML only; they are begun below instead.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        if query_only:
            connection.execute("PRAGMA query_only = ON")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _make_private(path: Path) -> None:
    """Make the file if there is none, for its owner's eyes only; SQLite gives its -wal and -shm the same mode.

    SQLite itself would make it readable by whoever may read the directory. An existing file keeps its mode.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise Unavailable(f"The database {path} cannot be opened: {error.strerror}") from error


def open_database(  # noqa: PLR0913 - each of them is needed
    url: str,
    *,
    clock: Clock,
    entropy: Entropy,
    readers: int = 2,
    busy_timeout_s: float = 5.0,
    max_waiting: int = 1000,
) -> Database:
    """Bring the schema up to date, then open the database. Blocks, so it is called before the event loop serves.

    Raises:
        SchemaTooNew: a newer version of Halyard has written it.
        Unavailable: the file cannot be opened or written.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise ValueError(f"not a SQLite file: {url!r}; write sqlite:///path/to/halyard.db")
    _make_private(Path(parsed.database))
    engine = sqlite_engine(url, begin="BEGIN IMMEDIATE", busy_timeout_s=busy_timeout_s)
    try:
        with engine.begin() as connection:
            migrate(connection, lineage_id=entropy.token(8).hex(), now_ms=clock.wall_ms())
    except OperationalError as error:
        raise Unavailable(f"The database {parsed.database} cannot be opened: {error.orig}") from error
    finally:
        engine.dispose()
    return Database(url, readers=readers, busy_timeout_s=busy_timeout_s, max_waiting=max_waiting)
