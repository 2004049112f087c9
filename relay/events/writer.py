"""The one thread that writes to the spool: whatever waits is written and synchronised together (group commit).

A call that finds the disk idle is written at once; under load commits are at least `commit_s` apart, unless
`commit_bytes` wait already, so that many calls share one synchronisation. A write that finds no room is undone and can
be tried again. Anything else that goes wrong, above all a failed synchronisation, seals the segment as suspect and ends
all writing: the kernel may have thrown the pages away, and a second attempt would only pretend.
"""

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from relay.clock import Clock
from relay.events.disk import NO_SPACE, Disk, SpoolClosed, SpoolError, SpoolFailed, SpoolFull, write_all
from relay.events.segment_file import Segment
from relay.events.segments import Segments

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pending:
    """The records of one call, encoded, and whom to tell."""

    data: bytes
    records: int
    done: asyncio.Future[None]


class Writer:
    """Owns the active segment. `on_commit` is called on the event loop after each successful commit."""

    def __init__(  # noqa: PLR0913 - wiring
        self,
        segments: Segments,
        disk: Disk,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        on_commit: Callable[[], None],
        *,
        segment_bytes: int,
        commit_s: float,
        commit_bytes: int,
    ) -> None:
        self._segments = segments
        self._disk = disk
        self._clock = clock
        self._on_commit = on_commit
        self._segment_bytes = segment_bytes
        self._commit_s = commit_s
        self._commit_bytes = commit_bytes
        self._loop = loop
        self._wake = threading.Condition()
        self._waiting: deque[Pending] = deque()
        self._is_closing = False
        self._active: Segment | None = None
        self._descriptor = -1
        self.waiting_bytes = 0
        self.has_no_space = False
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._thread.start()

    def put(self, pending: Pending) -> None:
        """Hand over the records of one call. Its size counts as waiting until it is written or refused.

        Raises:
            SpoolClosed: `close` has been called.
        """
        with self._wake:
            if self._is_closing:
                raise SpoolClosed("the spool is closed; this process is about to end")
            self._waiting.append(pending)
            self.waiting_bytes += len(pending.data)
            self._wake.notify()

    def close(self) -> None:
        """Write what waits, then end. Blocks."""
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        committed_at = -self._commit_s
        while group := self._next_group(committed_at + self._commit_s):
            committed_at = self._clock.monotonic()
            error = self._try_to_commit(group)
            with self._wake:
                self.waiting_bytes -= sum(len(pending.data) for pending in group)
            self._loop.call_soon_threadsafe(self._tell, group, error)
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _next_group(self, not_before: float) -> list[Pending]:
        """Wait for something to write; nothing means that the end has come."""
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._is_closing)
            pause_s = min(not_before - self._clock.monotonic(), self._commit_s)
            if pause_s > 0:
                self._wake.wait_for(self._is_worth_a_commit, pause_s)
            group, size = [], 0
            while self._waiting and size < self._commit_bytes:
                pending = self._waiting.popleft()
                group.append(pending)
                size += len(pending.data)
            return group

    def _is_worth_a_commit(self) -> bool:
        return self._is_closing or self.waiting_bytes >= self._commit_bytes

    def _try_to_commit(self, group: list[Pending]) -> SpoolError | None:
        if self.failure is not None:
            return SpoolFailed(self.failure)
        try:
            segment = self._segment()
            self._commit(segment, group)
        except SpoolFull as error:
            if not self.has_no_space:
                logger.warning("no room on the disk for the spool", extra={"reason": str(error)})
            self.has_no_space = True
            return error
        except OSError as error:
            self.failure = f"the disk failed under the spool: {error}"
            if self._active is not None:
                self._segments.seal(self._active)
            logger.critical("spool segment is suspect; no event is taken until a restart", exc_info=error)
            return SpoolFailed(self.failure)
        self.has_no_space = False
        return None

    def _segment(self) -> Segment:
        """Return the segment to append to."""
        if self._active is not None and self._active.size < self._segment_bytes:
            return self._active
        try:
            segment, descriptor = self._segments.create()
        except OSError as error:
            if error.errno in NO_SPACE:
                raise SpoolFull(f"no room for a new segment: {error}") from error
            raise
        if self._active is not None:
            self._segments.seal(self._active)
            os.close(self._descriptor)
        self._active, self._descriptor = segment, descriptor
        return segment

    def _commit(self, segment: Segment, group: list[Pending]) -> None:
        data = b"".join(pending.data for pending in group)
        try:
            write_all(self._disk, self._descriptor, data)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            # A part may have been written: without this the next attempt would leave half a record behind itself.
            os.ftruncate(self._descriptor, segment.size)
            raise SpoolFull(f"no room on the disk: {error}") from error
        self._disk.sync(self._descriptor)
        self._segments.grow(segment, len(data), sum(pending.records for pending in group))

    def _tell(self, group: list[Pending], error: SpoolError | None) -> None:
        for pending in group:
            if pending.done.done():
                continue
            if error is None:
                pending.done.set_result(None)
            else:
                pending.done.set_exception(error)
        if error is None:
            self._on_commit()
