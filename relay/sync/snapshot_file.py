"""The relay's memory over restarts: all its environments in one file, in two generations.

Written off the event loop by rename and fsync: after changes, at most once a second (the newest state wins), once a
minute while only the confirmation is newer, so that a crash forgets no more of it, and at exit. A failed write costs
freshness and is counted; the generations on disk stay. The file holds hashes of keys and secrets of
environments, so only the owner may read it. A file of another upstream or relay key is ignored: it may be another
tenant's.
"""

import asyncio
import logging
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relay.clock import Clock
from relay.durable_file import sync_directory, write_synced
from relay.engine.steps import finished
from relay.protocol.changes import Applied, Snapshot, State
from relay.sync.collector import give_back
from relay.sync.snapshot_format import BadFile, Content, decode_file_steps, encode_file, tenant_of
from relay.sync.store import Origin, Store, Swap

__all__ = ["Loaded", "SnapshotFile", "restore", "tenant_of"]

_PIECE_BYTES = 1 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The newest usable generation, None if there is none, and why each newer one was passed over."""

    content: Content | None = field(repr=False)
    problems: tuple[str, ...]


class SnapshotFile:
    """Keeps one file in step with one store.

    Args:
        path: the newest generation; the one before stands beside it with `.old` appended.
        tenant: from `tenant_of`; files with another one are ignored.
        store: what is written.
        clock: paces the writing.
        min_interval_s: shortest time between two writes.
        confirm_interval_s: longest time for which a newer confirmation waits to be written.
        retry_s: time before another attempt after a failed write.
        max_bytes: a larger file is not read.

    Attributes:
        writes: how many writes succeeded.
        failures: how many failed.
        last_error: why the last write failed; None after a good one.
        kept: epoch and revision of each environment in the newest generation, as far as it is known.
    """

    def __init__(  # noqa: PLR0913 - the limits are named one by one
        self,
        path: Path,
        tenant: str,
        store: Store,
        clock: Clock,
        *,
        min_interval_s: float = 1.0,
        confirm_interval_s: float = 60.0,
        retry_s: float = 10.0,
        max_bytes: int = 1 << 30,
    ) -> None:
        self.writes = 0
        self.failures = 0
        self.last_error: str | None = None
        self.kept: Mapping[str, tuple[str, int]] = {}
        self._path = path
        self._old = path.with_name(path.name + ".old")
        self._tenant = tenant
        self._store = store
        self._clock = clock
        self._min_interval_s = min_interval_s
        self._confirm_interval_s = confirm_interval_s
        self._retry_s = retry_s
        self._max_bytes = max_bytes
        self._dirty = asyncio.Event()
        self._newest_is_good = True
        self._written_confirmed_at_ms: int | None = None
        self._written_cover: tuple[frozenset[str] | None, bool] = (None, True)
        self._writing: asyncio.Future[None] | None = None

    def load(self) -> Loaded:
        """Read the newest usable generation at once."""
        return finished(self.load_steps())

    def load_steps(self) -> Generator[None, None, Loaded]:
        """Read the newest usable generation, pausing (`yield`) every few milliseconds."""
        problems: list[str] = []
        for path in (self._path, self._old):
            try:
                raw = yield from self._read(path)
                content = yield from decode_file_steps(raw, self._tenant)
            except FileNotFoundError:
                problems.append(f"{path}: there is none")
            except (OSError, BadFile) as error:
                problems.append(f"{path}: {error}")
            else:
                self._newest_is_good = path == self._path
                self.kept = _positions(content.states)
                self._written_confirmed_at_ms = content.confirmed_at_ms
                self._written_cover = (content.covered, content.is_all_covered)
                return Loaded(content, tuple(problems))
        self._newest_is_good = False
        return Loaded(None, tuple(problems))

    async def run(self) -> None:
        """Write after every change, and now and then a newer confirmation, until cancelled."""
        unsubscribe = self._store.subscribe(self._note)
        try:
            while True:
                if not await self._is_due():
                    continue
                await self._clock.sleep(self._min_interval_s if await self._write() else self._retry_s)
        finally:
            unsubscribe()

    async def flush(self) -> None:
        """Write what has not been written, the newest confirmation included. For the exit, after `run` has ended."""
        if self._writing is not None:
            # A cancelled write goes on in its thread, and two must not meet in one temporary file.
            await asyncio.gather(self._writing, return_exceptions=True)
        # What changed after `run` had ended was noted by nobody.
        held = [configuration.state for configuration in self._store.configurations.values()]
        if self._is_behind() or _positions(held) != self.kept:
            await self._write()

    async def _is_due(self) -> bool:
        """Wait for a change, or for the time at which a newer confirmation alone is worth a write."""
        if self._dirty.is_set():
            return True
        changed = asyncio.ensure_future(self._dirty.wait())
        waited = asyncio.ensure_future(self._clock.sleep(self._confirm_interval_s))
        try:
            await asyncio.wait((changed, waited), return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            waited.cancel()
        return self._is_behind()

    def _is_behind(self) -> bool:
        is_old = self._written_confirmed_at_ms != self._store.confirmed_at_ms
        is_other = self._written_cover != (self._store.covered, self._store.is_all_covered)
        return self._dirty.is_set() or ((is_old or is_other) and self._store.origin is Origin.UPSTREAM)

    def _note(self, _: Swap) -> None:
        self._dirty.set()

    async def _write(self) -> bool:
        self._dirty.clear()
        store = self._store
        states = tuple(configuration.state for configuration in store.configurations.values())
        content = Content(states, store.confirmed_at_ms, store.covered, store.is_all_covered)
        self._writing = asyncio.ensure_future(asyncio.to_thread(self._replace, content))
        try:
            await asyncio.shield(self._writing)
        except asyncio.CancelledError:
            self._dirty.set()
            raise
        except OSError as error:
            self._dirty.set()
            self.failures += 1
            if str(error) != self.last_error:
                log.warning("the snapshot file cannot be written: %s; the older one stays", error)
            self.last_error = str(error)
            return False
        self._written_confirmed_at_ms = content.confirmed_at_ms
        self._written_cover = (content.covered, content.is_all_covered)
        self.kept = _positions(states)
        self.writes += 1
        self.last_error = None
        # Nothing is left of the message that brought the change, nor of what was just written.
        give_back()
        return True

    def _read(self, path: Path) -> Generator[None, None, bytes]:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > self._max_bytes:
                raise BadFile(f"it has {size} bytes, more than the {self._max_bytes} that are read")
            pieces = []
            while piece := file.read(_PIECE_BYTES):
                pieces.append(piece)
                yield
        return b"".join(pieces)

    def _replace(self, content: Content) -> None:
        temporary = self._path.with_name(self._path.name + ".tmp")
        write_synced(temporary, encode_file(self._tenant, content))
        if self._newest_is_good and self._path.exists():
            # A damaged newest one must not push the last good one out.
            self._path.replace(self._old)
        temporary.replace(self._path)
        self._newest_is_good = True
        sync_directory(self._path.parent)


def restore(content: Content, store: Store) -> tuple[str, ...]:
    """Put what was loaded into the store; returns what could not be used, and why."""
    return finished(restore_steps(content, store))


def restore_steps(content: Content, store: Store) -> Generator[None, None, tuple[str, ...]]:
    """Do what `restore` does, pausing (`yield`) every few milliseconds.

    Small environments come first, so that they are served while a large one is built. Keys of those that are still to
    come are not unknown meanwhile.
    """
    problems = []
    store.covered = content.covered or frozenset(state.ref.id for state in content.states)
    for state in sorted(content.states, key=lambda each: len(each.flags)):
        outcome = yield from store.apply_steps(Snapshot(state, "start"), Origin.FILE)
        if not isinstance(outcome, Applied):
            problems.append(f"environment {state.ref.id}: {outcome}")
    store.confirmed_at_ms = content.confirmed_at_ms
    store.covered, store.is_all_covered = content.covered, content.is_all_covered
    return tuple(problems)


def _positions(states: Sequence[State]) -> Mapping[str, tuple[str, int]]:
    return {state.ref.id: (state.epoch, state.revision) for state in states}
