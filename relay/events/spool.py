"""The durable queue between the intake and the forwarder: a directory of segments on this machine's disk.

`append` resolves when the records are on disk, never before. What has been appended is given out by `peek` until it is
acknowledged, in order, also after a crash (at least once; batch and event ids make repeats harmless). It never takes
more disk than it may, never shares its directory, and once the disk has failed it takes nothing more.
Directory: `lock`, `cursor`, `NNN.segment`, `quarantine/`.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from relay.clock import Clock
from relay.events.cursor import CursorFile
from relay.events.disk import Disk, SpoolFailed, SpoolFull, lock_directory
from relay.events.quarantine import Quarantine
from relay.events.reader import Batch, Reader
from relay.events.record import encode
from relay.events.segments import Segments
from relay.events.writer import Pending, Writer
from relay.metrics import RelayMetrics
from relay.settings import Events


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """How the spool is. `bytes` is what it takes on disk, the quarantine included."""

    records: int
    bytes: int
    segments: int
    quarantine_bytes: int
    oldest_age_s: float | None
    is_full: bool
    failure: str | None

    @property
    def is_writable(self) -> bool:
        """Whether events are being taken."""
        return not self.is_full and self.failure is None


class Spool:
    """Open it with `Spool.open`; used from one event loop."""

    def __init__(  # noqa: PLR0913 - wiring
        self,
        directory: Path,
        settings: Events,
        clock: Clock,
        metrics: RelayMetrics,
        *,
        disk: Disk,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._refused_bytes = 0
        self._readable = asyncio.Event()
        self._readable.set()
        self._lock = lock_directory(directory)
        try:
            self._quarantine = Quarantine(directory / "quarantine")
            self._cursor = CursorFile(directory / "cursor", disk)
            self._segments = Segments(directory)
            damaged = self._segments.recover(self._cursor.cursor, self._quarantine)
        except BaseException:
            os.close(self._lock)
            raise
        metrics.events_quarantined.add("damaged", n=damaged + self._cursor.is_damaged)
        self._quarantine_bytes = self._quarantine.size()
        self._reader = Reader(self._segments, self._cursor, self._quarantine, clock, metrics)
        self._oldest_ms = self._reader.oldest_ms()
        self._writer = Writer(
            self._segments,
            disk,
            clock,
            loop,
            self._readable.set,
            segment_bytes=settings.segment_bytes,
            commit_s=settings.commit_s,
            commit_bytes=settings.commit_bytes,
        )

    @classmethod
    async def open(
        cls, directory: Path, settings: Events, clock: Clock, metrics: RelayMetrics, disk: Disk | None = None
    ) -> Self:
        """Take the directory, read what an earlier process left in it, and be ready to append.

        Raises:
            SpoolLocked: another process has the directory.
            OSError: the directory cannot be used.
        """
        loop = asyncio.get_running_loop()
        return await asyncio.to_thread(cls, directory, settings, clock, metrics, disk=disk or Disk(), loop=loop)

    def append(self, records: Sequence[bytes]) -> asyncio.Future[None]:
        """Take the records; the future resolves once they are on disk, or fails with a `SpoolError`.

        Raises:
            SpoolFull: there is no room for them.
            SpoolFailed: the disk failed; nothing is taken until a restart.
            SpoolClosed: it has been closed.
        """
        writer = self._writer
        if writer.failure is not None:
            raise SpoolFailed(writer.failure)
        now_ms = self._clock.wall_ms()
        data = b"".join([encode(record, now_ms) for record in records])
        if writer.waiting_bytes + len(data) > self._settings.pending_bytes and writer.waiting_bytes:
            raise SpoolFull("the disk is slower than the events come")
        if self._used_bytes() + len(data) > self._settings.spool_bytes:
            self._refused_bytes = len(data)
            raise SpoolFull("the spool has reached its size; the authority has not taken events for too long")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        writer.put(Pending(data, len(records), done))
        return done

    async def peek(self) -> Batch | None:
        """Return the batch to be sent now, recorded so that it keeps its id; None: nothing waits.

        Raises:
            OSError: the disk could not be read, or the batch not be recorded.
        """
        self._readable.clear()
        settings = self._settings
        return await asyncio.to_thread(self._reader.peek, settings.forward_batch_bytes, settings.forward_batch_events)

    async def wait_readable(self) -> None:
        """Return when something may have been appended since the last `peek`."""
        await self._readable.wait()

    async def acknowledge(self, batch: Batch) -> None:
        """Forget a batch that was confirmed. Repeating this is harmless."""
        await asyncio.to_thread(self._reader.acknowledge, batch)

    async def split(self, batch: Batch) -> None:
        """Let `peek` give out two halves in the place of a batch of at least two records."""
        await asyncio.to_thread(self._reader.split, batch)

    async def reject(self, batch: Batch, reason: str) -> None:
        """Put the records of a batch into the quarantine and go on behind it."""
        await asyncio.to_thread(self._reader.reject, batch, reason)
        self._quarantine_bytes = await asyncio.to_thread(self._quarantine.size)

    async def shed_oldest(self) -> bool:
        """Make room by giving up the oldest segment; what is lost is counted. False: there is none to give up."""
        lost = await asyncio.to_thread(self._reader.shed)
        if lost:
            self._metrics.events_shed.add("full", n=lost)
        return lost is not None

    async def measure(self) -> SpoolStats:
        """Return how the spool is, after looking at what only the disk can tell: the oldest record, the quarantine.

        Raises:
            OSError: the disk could not be read.
        """
        self._oldest_ms = await asyncio.to_thread(self._reader.oldest_ms)
        self._quarantine_bytes = await asyncio.to_thread(self._quarantine.size)
        return self.stats()

    def stats(self) -> SpoolStats:
        """Return how the spool is, as far as memory tells; never waits for the disk."""
        writer = self._writer
        segments, records = self._segments.totals()
        oldest_ms = self._oldest_ms if records else None
        return SpoolStats(
            records=records,
            bytes=self._segments.size + self._quarantine_bytes,
            segments=segments,
            quarantine_bytes=self._quarantine_bytes,
            oldest_age_s=None if oldest_ms is None else max(0.0, (self._clock.wall_ms() - oldest_ms) / 1_000),
            is_full=writer.has_no_space or self._is_at_its_size(),
            failure=writer.failure,
        )

    async def close(self) -> None:
        """Write what waits, then let go of the directory."""
        await asyncio.to_thread(self._writer.close)
        # The writer's last callbacks were scheduled before its thread ended; they come before this task goes on.
        await asyncio.sleep(0)
        self._cursor.close()
        os.close(self._lock)

    def _used_bytes(self) -> int:
        return self._segments.size + self._quarantine_bytes + self._writer.waiting_bytes

    def _is_at_its_size(self) -> bool:
        """Tell whether the call that was refused last would be refused again."""
        if self._used_bytes() + self._refused_bytes <= self._settings.spool_bytes:
            self._refused_bytes = 0
        return self._refused_bytes > 0
