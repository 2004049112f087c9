"""Takes batches out of the spool, in order, and forgets them once they are confirmed.

A batch lies in one segment and is recorded in the cursor file before anybody sees it, so a crash between the
authority's commit and its answer leads to the same batch under the same id. Halves of a refused batch take its place,
under ids that follow from its own. Segments are deleted when everything in them is confirmed. All methods block.
"""

import hashlib
import secrets
import sys
import threading
from dataclasses import dataclass, replace

from relay.clock import Clock
from relay.events.cursor import Cursor, CursorFile, InFlight
from relay.events.quarantine import Quarantine
from relay.events.record import HEADER_BYTES, Good
from relay.events.segment_file import Segment, read_records, written_at_ms
from relay.events.segments import Segments
from relay.metrics import RelayMetrics

ALL = sys.maxsize


@dataclass(frozen=True, slots=True)
class Batch:
    """Records to be sent together: their bodies, and where each ends."""

    in_flight: InFlight
    records: tuple[bytes, ...]
    ends: tuple[int, ...]

    @property
    def id(self) -> str:
        """The id under which the authority recognises a repeat."""
        return self.in_flight.id


class Reader:
    """The one consumer of the spool."""

    def __init__(
        self, segments: Segments, cursor: CursorFile, quarantine: Quarantine, clock: Clock, metrics: RelayMetrics
    ) -> None:
        self._segments = segments
        self._file = cursor
        self._quarantine = quarantine
        self._clock = clock
        self._metrics = metrics
        self._lock = threading.Lock()

    def peek(self, max_bytes: int, max_records: int) -> Batch | None:
        """Return the batch to send now: the one in flight, or a new one of at least one record. None: nothing waits.

        Raises:
            OSError: the disk could not be read, or the batch not be recorded.
        """
        with self._lock:
            while self._file.cursor.in_flight:
                batch = self._reload(self._file.cursor.in_flight[0])
                if batch.records:
                    return batch
                self._finish(batch)
            return self._take(max_bytes, max_records)

    def acknowledge(self, batch: Batch) -> None:
        """Forget a batch that was confirmed. Repeating this is harmless."""
        with self._lock:
            if self._is_first(batch):
                self._finish(batch)

    def split(self, batch: Batch) -> None:
        """Put two halves in the place of a batch of at least two records."""
        with self._lock:
            if self._is_first(batch):
                whole = batch.in_flight
                middle = batch.ends[len(batch.ends) // 2 - 1]
                halves = _part(whole, whole.start, middle), _part(whole, middle, whole.end)
                cursor = self._file.cursor
                self._file.save(replace(cursor, in_flight=halves + cursor.in_flight[1:]))

    def reject(self, batch: Batch, reason: str) -> None:
        """Put the records of a batch into the quarantine and go on behind it."""
        with self._lock:
            if self._is_first(batch):
                self._quarantine.rejected(batch.records, batch.id, reason, self._clock.wall_ms())
                self._metrics.events_quarantined.add("rejected", n=len(batch.records))
                self._finish(batch)

    def shed(self) -> int | None:
        """Give up the oldest segment that is neither written to nor in flight; return how many records it had."""
        with self._lock:
            cursor = self._file.cursor
            segment = self._segments.oldest_sealed(cursor.segment + 1 if cursor.in_flight else cursor.segment)
            if segment is None:
                return None
            lost = segment.waiting
            self._segments.discard(segment)
            return lost

    def oldest_ms(self) -> int | None:
        """Return when the oldest record that waits was written; None: nothing waits, or it cannot be read."""
        cursor = self._file.cursor
        segment = self._segments.first_from(cursor.segment)
        if segment is None:
            return None
        offset = cursor.offset if segment.number == cursor.segment else 0
        try:
            return written_at_ms(segment, offset)
        except OSError:
            # Asked for the status only: it was deleted just now, or the disk fails and the forwarder will say so.
            return None

    def _is_first(self, batch: Batch) -> bool:
        in_flight = self._file.cursor.in_flight
        return bool(in_flight) and in_flight[0].id == batch.id

    def _reload(self, in_flight: InFlight) -> Batch:
        """Read a recorded batch again. What has been damaged since is missing from it."""
        segment = self._segments.get(in_flight.segment)
        if segment is None:
            return Batch(in_flight, (), ())
        good, _ = self._read(segment, in_flight.start, in_flight.end, in_flight.end - in_flight.start, ALL)
        return _batch(in_flight, good)

    def _take(self, max_bytes: int, max_records: int) -> Batch | None:
        while segment := self._segments.first_from(self._file.cursor.segment):
            cursor = self._file.cursor
            start = cursor.offset if segment.number == cursor.segment else 0
            # In this order: a sealed segment grows no more, but one that is not may grow and be sealed after its size
            # was read, and would then be deleted with records that nobody has seen.
            is_sealed = segment.is_sealed
            size = segment.size
            if start >= size:
                if not is_sealed:
                    break
                self._file.save(Cursor(segment.number + 1, 0))
                self._segments.discard_before(segment.number + 1)
                continue
            good, end = self._read(segment, start, size, max_bytes, max_records)
            if not good:
                self._file.save(Cursor(segment.number, end))
                continue
            in_flight = InFlight(secrets.token_hex(16), segment.number, start, end)
            self._file.save(Cursor(segment.number, start, (in_flight,)))
            return _batch(in_flight, good)
        return None

    def _read(self, segment: Segment, start: int, end: int, max_bytes: int, max_records: int) -> tuple[list[Good], int]:
        """Return whole records from `start` on and where they end; damage between them goes into the quarantine."""
        good: list[Good] = []
        reached = end
        for item in read_records(segment, start, end, max_bytes + HEADER_BYTES, max_records):
            reached = item.end
            if isinstance(item, Good):
                good.append(item)
            elif self._quarantine.damaged(segment, item.start, item.end):
                self._metrics.events_quarantined.add("damaged")
        return good, reached

    def _finish(self, batch: Batch) -> None:
        whole = batch.in_flight
        rest = self._file.cursor.in_flight[1:]
        self._file.save(Cursor(whole.segment, whole.end, rest))
        segment = self._segments.get(whole.segment)
        if segment is not None:
            self._segments.acknowledged(segment, len(batch.records))


def _batch(in_flight: InFlight, good: list[Good]) -> Batch:
    return Batch(in_flight, tuple(item.body for item in good), tuple(item.end for item in good))


def _part(whole: InFlight, start: int, end: int) -> InFlight:
    """Return a part of a batch, with an id that is the same whenever the batch is cut in the same way."""
    name = hashlib.blake2b(f"{whole.id}:{start}-{end}".encode(), digest_size=16).hexdigest()
    return InFlight(name, whole.segment, start, end)
