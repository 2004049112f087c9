"""The files of the spool: which there are, how much of each is known to be on disk, what waits in them.

Segments are numbered and only ever appended to; a start never appends to a file of an earlier one, so an unclean end
stays where it is. Recovery reads every waiting byte once: whole records are kept, damaged bytes are copied into the
quarantine, a record cut off at the end of the newest file (never acknowledged) is cut away; in an older one it is
damage like any other, since every file was synchronised before the next one was begun. A file that cannot be read is
set aside: no file is deleted unread. Shared by the writer thread and the reader under one lock.
"""

import logging
import os
import threading
from pathlib import Path

from relay.durable_file import sync_directory
from relay.events.cursor import Cursor
from relay.events.quarantine import Quarantine
from relay.events.record import Good, Torn, scan
from relay.events.segment_file import Segment

logger = logging.getLogger(__name__)

NAMES = "[0-9]" * 12 + ".segment"
"""Other files in the directory, such as a copy that a person made of a segment, are left alone."""


class Segments:
    """All segments, in order; `size` is what they take on disk. Methods that touch files block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._segments: dict[int, Segment] = {}
        self._next_number = 0
        self.size = 0

    def recover(self, cursor: Cursor, quarantine: Quarantine) -> int:
        """Read what an earlier process left; return how many damaged places were found for the first time.

        Raises:
            OSError: a segment can neither be read nor be set aside.
        """
        newly_damaged = 0
        # Never a number that the cursor may have passed: what is written under it would be taken for consumed.
        self._next_number = cursor.segment + 1
        paths = sorted(self._directory.glob(NAMES))
        for path in paths:
            segment = Segment(int(path.stem), path)
            self._next_number = max(self._next_number, segment.number + 1)
            if segment.number < cursor.segment:
                path.unlink()
                continue
            offset = cursor.offset if segment.number == cursor.segment else 0
            try:
                newly_damaged += _recover(segment, offset, quarantine, is_newest=path == paths[-1])
            except OSError:
                # For a person to look at: a disk that cannot read must not keep the relay from starting. Were it left
                # where it is, a later start would take it for consumed and delete it unread.
                logger.exception("spool segment cannot be read; it is in the quarantine", extra={"path": str(path)})
                quarantine.unreadable(segment)
                newly_damaged += 1
                continue
            self._segments[segment.number] = segment
            self.size += segment.size
        return newly_damaged

    def create(self) -> tuple[Segment, int]:
        """Begin a new segment and seal the one before; return it with a descriptor to append to."""
        with self._lock:
            number = self._next_number
            self._next_number += 1
        path = self._directory / f"{number:012d}.segment"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            sync_directory(self._directory)
        except OSError:
            os.close(descriptor)
            raise
        segment = Segment(number, path, is_sealed=False)
        with self._lock:
            self._segments[number] = segment
        return segment, descriptor

    def seal(self, segment: Segment) -> None:
        """Note that nothing more will be appended."""
        with self._lock:
            segment.is_sealed = True

    def grow(self, segment: Segment, size: int, records: int) -> None:
        """Note that so many more bytes and records are on disk."""
        with self._lock:
            segment.size += size
            self.size += size
            segment.waiting += records

    def first_from(self, number: int) -> Segment | None:
        """Return the first segment that is not before `number`."""
        with self._lock:
            return next((segment for segment in self._segments.values() if segment.number >= number), None)

    def get(self, number: int) -> Segment | None:
        """Return that segment, unless it is gone."""
        with self._lock:
            return self._segments.get(number)

    def acknowledged(self, segment: Segment, records: int) -> None:
        """Note that so many records of the segment are done with."""
        with self._lock:
            segment.waiting = max(0, segment.waiting - records)

    def discard_before(self, number: int) -> None:
        """Delete the segments before `number`."""
        with self._lock:
            done = [segment for segment in self._segments.values() if segment.number < number]
        for segment in done:
            self.discard(segment)

    def discard(self, segment: Segment) -> None:
        """Delete one segment."""
        segment.path.unlink(missing_ok=True)
        with self._lock:
            if self._segments.pop(segment.number, None) is not None:
                self.size -= segment.size

    def oldest_sealed(self, number: int) -> Segment | None:
        """Return the first sealed segment that is not before `number`."""
        with self._lock:
            sealed = (segment for segment in self._segments.values() if segment.is_sealed)
            return next((segment for segment in sealed if segment.number >= number), None)

    def totals(self) -> tuple[int, int]:
        """Return how many segments there are and how many records wait in them."""
        with self._lock:
            return len(self._segments), sum(segment.waiting for segment in self._segments.values())


def _recover(segment: Segment, offset: int, quarantine: Quarantine, *, is_newest: bool) -> int:
    newly_damaged = 0
    data = segment.path.read_bytes()
    segment.size = len(data)
    for item in scan(data):
        if isinstance(item, Torn):
            if not is_newest and item.start >= offset:
                newly_damaged += quarantine.damaged(segment, item.start, len(data))
            os.truncate(segment.path, item.start)
            segment.size = item.start
        elif item.start >= offset:
            if isinstance(item, Good):
                segment.waiting += 1
            else:
                newly_damaged += quarantine.damaged(segment, item.start, item.end)
    return newly_damaged
