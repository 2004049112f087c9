"""One file of the spool: what is known of it, and how it is read. Functions block."""

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from relay.events.record import HEADER_BYTES, Bad, Good, header_at, scan


@dataclass(slots=True)
class Segment:
    """One file. `size` counts the bytes known to be on disk, `waiting` the records in them not yet acknowledged."""

    number: int
    path: Path
    size: int = 0
    waiting: int = 0
    is_sealed: bool = True


def read_range(path: Path, start: int, length: int) -> bytes:
    """Return up to `length` bytes of the file from `start` on."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while length > 0 and (part := os.pread(descriptor, length, start)):
            parts.append(part)
            start += len(part)
            length -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def written_at_ms(segment: Segment, offset: int) -> int | None:
    """Return when the record at `offset` was written."""
    header = header_at(read_range(segment.path, offset, HEADER_BYTES), 0)
    return None if header is None else header[2]


def read_records(segment: Segment, start: int, end: int, wanted_bytes: int, most: int) -> list[Good | Bad]:
    """Return what lies from `start` on, in order and with offsets in the file: one to `most` items, if there are any.

    `wanted_bytes` are read in one piece, which grows while not even one item fits into it.
    """
    length = min(wanted_bytes, end - start)
    while True:
        items = list(islice(scan(read_range(segment.path, start, length)), most))
        if start + length >= end:
            break
        # Damage that reaches the end of the piece may hide a header that the piece cuts in two.
        if items and not isinstance(items[-1], Good):
            items.pop()
        if items:
            break
        length = min(2 * length, end - start)
    return [
        Good(start + item.start, start + item.end, item.at_ms, item.body)
        if isinstance(item, Good)
        else Bad(start + item.start, start + item.end if isinstance(item, Bad) else end)
        for item in items
    ]
