"""The one seam to the database: threads that write, threads that read, each call one transaction.

`write` runs a synchronous function inside a writing transaction; `read` runs one inside a read transaction, so that
everything it sees is of one moment. A function that raises leaves nothing. SQLite has one writer thread, is in WAL mode
with synchronous=FULL: what `write` has returned survives power loss. PostgreSQL has a bounded pool of writers, here and
in other processes; work that met another's is done again from the start, so it must be a function of its connection.
At most `max_waiting` calls wait on each side; beyond that a call is refused rather than queued.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from relay.clock import Clock
from upstream.domain.facts import Entropy
from upstream.storage.engines import file_of, is_postgresql, parsed, reading_engine, sqlite_engine, writing_engine
from upstream.storage.errors import Unavailable, is_race, is_refusal, reason_of
from upstream.storage.migrate import migrate

__all__ = ["Database", "Unavailable", "open_database", "sqlite_engine"]

T = TypeVar("T")

ATTEMPTS: Final = 6
"""How often work is begun that meets another's every time."""
_PAUSE_S: Final = 0.01


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
        future = self._threads.submit(_done, self._engine, work)

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

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        self._engine.dispose()


def _done(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Do the work as one transaction; again, and in a fresh view, where another's came between."""
    attempt = 1
    while True:
        try:
            with engine.begin() as connection:
                return work(connection)
        except (Unavailable, DBAPIError) as error:
            if not is_race(error) or attempt == ATTEMPTS:
                if is_refusal(error):
                    raise Unavailable(f"The database refused: {reason_of(error)}") from error
                raise
        # Two that met are not to meet again.
        time.sleep(_PAUSE_S * attempt)
        attempt += 1


class Database:
    """A database with its writers and its readers; its schema is brought up to date by `open_database`."""

    def __init__(
        self, url: str, *, writers: int = 4, readers: int = 2, busy_timeout_s: float = 10.0, max_waiting: int = 1000
    ) -> None:
        found = parsed(url)
        # SQLite has one writer at a time, whatever is asked for; its own waiting is slower than a queue.
        writers = writers if is_postgresql(found) else 1
        writing = writing_engine(found, size=writers, patience_s=busy_timeout_s)
        reading = reading_engine(found, size=readers, patience_s=busy_timeout_s)
        self._writers = _Lane(writing, writers, "db-writer", max_waiting)
        self._readers = _Lane(reading, readers, "db-reader", max_waiting)

    async def write(self, work: Callable[[Connection], T], committed: Callable[[T], object] | None = None) -> T:
        """Run `work` as one transaction; call `committed` with its result on the event loop after the commit.

        `work` may be run more than once, of which only the last counts. `committed` is called even when whoever waited
        for the answer has gone away.

        Raises:
            Unavailable: the database cannot take it now; nothing was stored.
        """
        return await self._writers.run(work, committed)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one read transaction.

        Raises:
            Unavailable: the database cannot answer now.
        """
        return await self._readers.run(work)

    def close(self) -> None:
        """Wait for what runs, then close every connection. Blocks."""
        self._readers.close()
        self._writers.close()


def make_private(path: Path) -> None:
    """Make the file if there is none, for its owner's eyes only; SQLite gives its -wal and -shm the same mode.

    SQLite itself would make it readable by whoever may read the directory. An existing file keeps its mode.

    Raises:
        Unavailable: it cannot be opened or made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise Unavailable(f"The database {path} cannot be opened: {error.strerror}") from error


def bring_up_to_date(url: str, *, clock: Clock, entropy: Entropy, busy_timeout_s: float = 10.0) -> str:
    """Make the database's file and schema what this program needs, and return the schema's name. Blocks.

    Raises:
        SchemaTooNew: a newer version of Halyard has written it.
        Unavailable: it cannot be reached, opened or written.
    """
    found = parsed(url)
    file = file_of(found)
    if file is not None:
        make_private(file)
    engine = writing_engine(found, patience_s=busy_timeout_s)

    def work(connection: Connection) -> str:
        return migrate(connection, lineage_id=entropy.token(8).hex(), now_ms=clock.wall_ms())

    try:
        return _done(engine, work)
    finally:
        engine.dispose()


def open_database(  # noqa: PLR0913 - each of them is needed
    url: str,
    *,
    clock: Clock,
    entropy: Entropy,
    writers: int = 4,
    readers: int = 2,
    busy_timeout_s: float = 10.0,
    max_waiting: int = 1000,
) -> Database:
    """Bring the schema up to date, then open the database. Blocks, so it is called before the event loop serves.

    Raises:
        SchemaTooNew: a newer version of Halyard has written it.
        Unavailable: it cannot be reached, opened or written.
    """
    bring_up_to_date(url, clock=clock, entropy=entropy, busy_timeout_s=busy_timeout_s)
    return Database(url, writers=writers, readers=readers, busy_timeout_s=busy_timeout_s, max_waiting=max_waiting)
