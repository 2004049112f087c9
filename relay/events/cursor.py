"""Where the reader of the spool stands, kept over restarts.

The file has two slots that are written in turn, each with a checksum and a generation: a write that is cut off damages
the older slot only, and since nothing is ever allocated anew, acknowledging works on a full disk too; else a full
disk could never be emptied. A batch is recorded here before it is first sent, so that it keeps its id whatever happens.
"""

import os
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import orjson

from relay.durable_file import sync_directory
from relay.events.disk import Disk
from relay.events.record import Good, encode, scan

SLOT_BYTES = 8_192
"""Room for about a hundred batches in flight. Halving leaves at most one more than log2 of a batch's records."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """A batch that may have been sent: its id and its range in one segment."""

    id: str
    segment: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything before `offset` in `segment` is done with. `in_flight` is in order and begins right there."""

    segment: int = 0
    offset: int = 0
    in_flight: tuple[InFlight, ...] = ()


class CursorFile:
    """The file with the two slots. `is_damaged` tells that it was there but neither slot could be believed."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._disk = disk
        is_new = not path.exists()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        data = os.pread(self._descriptor, 2 * SLOT_BYTES, 0)
        known = newest_cursor(data)
        self._generation, self.cursor = known or (0, Cursor())
        self.is_damaged = any(data) and known is None
        if len(data) < 2 * SLOT_BYTES:
            os.posix_fallocate(self._descriptor, 0, 2 * SLOT_BYTES)
            os.fsync(self._descriptor)
        if is_new:
            sync_directory(path.parent)

    def save(self, cursor: Cursor) -> None:
        """Make `cursor` durable; only then is it the cursor.

        Raises:
            OSError: the disk refused; the cursor is what it was.
        """
        generation = self._generation + 1
        members = [[batch.id, batch.segment, batch.start, batch.end] for batch in cursor.in_flight]
        slot = encode(orjson.dumps([cursor.segment, cursor.offset, members]), generation)
        os.pwrite(self._descriptor, slot.ljust(SLOT_BYTES, b"\0"), generation % 2 * SLOT_BYTES)
        self._disk.sync(self._descriptor)
        self._generation, self.cursor = generation, cursor

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


def newest_cursor(data: bytes) -> tuple[int, Cursor] | None:
    """Return generation and content of the newest slot of a cursor file that can be believed."""
    slots = [_read_slot(data[start : start + SLOT_BYTES]) for start in (0, SLOT_BYTES)]
    return max((slot for slot in slots if slot is not None), key=itemgetter(0), default=None)


def _read_slot(slot: bytes) -> tuple[int, Cursor] | None:
    found = next(scan(slot), None)
    if not isinstance(found, Good):
        return None
    segment, offset, members = orjson.loads(found.body)
    return found.at_ms, Cursor(segment, offset, tuple(InFlight(*member) for member in members))
