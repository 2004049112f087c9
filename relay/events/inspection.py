"""What lies in a spool directory, found out by reading alone, also beside the relay that works in it.

Takes no lock and changes nothing. Every record's checksums are computed. What a running relay does meanwhile is no
damage: segments that vanish are left out, and the last record of the newest one may not be whole yet.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from relay.events.cursor import SLOT_BYTES, Cursor, newest_cursor
from relay.events.quarantine import REJECTED
from relay.events.record import Bad, Good, Torn, scan
from relay.events.segments import NAMES


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes of a file that cannot be read as what they should be. `end` is None: from `start` to the end."""

    file: str
    start: int
    end: int | None
    what: str

    def members(self) -> dict[str, object]:
        """Return what is printed as JSON."""
        return {"file": self.file, "start": self.start, "end": self.end, "what": self.what}


@dataclass(frozen=True, slots=True)
class SegmentView:
    """One segment: whole records in it, how many of them wait, when those that wait were written, what is damaged."""

    name: str
    bytes: int
    records: int
    waiting: int
    oldest_ms: int | None
    newest_ms: int | None
    damage: tuple[Place, ...]
    torn_at: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that may have been sent and is not confirmed yet."""

    id: str
    segment: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Kept:
    """One file of the quarantine. `reasons` counts the refused records in it by what the authority said."""

    name: str
    bytes: int
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class View:
    """A whole spool directory."""

    segments: tuple[SegmentView, ...]
    in_flight: tuple[Batch, ...]
    quarantine: tuple[Kept, ...]
    is_cursor_damaged: bool

    @property
    def waiting(self) -> int:
        """How many records wait."""
        return sum(segment.waiting for segment in self.segments)

    @property
    def bytes(self) -> int:
        """What counts against the size of the spool."""
        return sum(segment.bytes for segment in self.segments) + sum(kept.bytes for kept in self.quarantine)

    @property
    def damage(self) -> list[Place]:
        """Every damaged place."""
        cursor = [Place("cursor", 0, None, "both copies of the reading position are damaged; a start sends all again")]
        places = [place for segment in self.segments for place in segment.damage]
        return cursor * self.is_cursor_damaged + places


def inspect(directory: Path) -> View:
    """Read a spool directory.

    Raises:
        OSError: the directory itself cannot be read.
    """
    # First: what is consumed while the segments are read is shown as waiting, never the other way round.
    cursor, is_damaged = _cursor(directory / "cursor")
    paths = sorted(directory.glob(NAMES))
    views = [_segment(path, cursor, is_newest=path == paths[-1]) for path in paths]
    return View(
        segments=tuple(view for view in views if view is not None),
        in_flight=tuple(
            Batch(batch.id, f"{batch.segment:012d}.segment", batch.start, batch.end) for batch in cursor.in_flight
        ),
        quarantine=tuple(_quarantine(directory / "quarantine")),
        is_cursor_damaged=is_damaged,
    )


def _cursor(path: Path) -> tuple[Cursor, bool]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Cursor(), False
    known = newest_cursor(data[: 2 * SLOT_BYTES])
    return (Cursor(), any(data)) if known is None else (known[1], False)


def _segment(path: Path, cursor: Cursor, *, is_newest: bool) -> SegmentView | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        # The relay has handed it over meanwhile.
        return None
    except OSError as error:
        place = Place(path.name, 0, None, f"cannot be read: {error.strerror or error}")
        return SegmentView(path.name, path.stat().st_size, 0, 0, None, None, (place,), None)
    number = int(path.stem)
    # Whatever lies before this was confirmed.
    offset = cursor.offset if number == cursor.segment else 0 if number > cursor.segment else len(data)
    records, waiting, damage, torn_at = 0, list[int](), list[Place](), None
    for item in scan(data):
        if isinstance(item, Good):
            records += 1
            if item.start >= offset:
                waiting.append(item.at_ms)
        elif isinstance(item, Bad) or not is_newest:
            damage.append(_place(path.name, item, offset))
        else:
            torn_at = item.start
    oldest, newest = (min(waiting), max(waiting)) if waiting else (None, None)
    return SegmentView(path.name, len(data), records, len(waiting), oldest, newest, tuple(damage), torn_at)


def _place(name: str, item: Bad | Torn, offset: int) -> Place:
    end = item.end if isinstance(item, Bad) else None
    what = "the checksum does not hold" if end is not None else "the record is cut off"
    return Place(name, item.start, end, f"{what}; what lay here was confirmed already" if item.start < offset else what)


def _quarantine(directory: Path) -> Iterator[Kept]:
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        try:
            reasons = _reasons(path) if path.name == REJECTED else {}
            yield Kept(path.name, path.stat().st_size, reasons)
        except FileNotFoundError:
            # Somebody has taken it away meanwhile.
            continue


def _reasons(path: Path) -> Mapping[str, int]:
    """Count refused records by reason; a line that is being written, or was cut off, has none that can be read."""
    reasons: Counter[str] = Counter()
    with path.open("rb") as lines:
        for line in lines:
            try:
                reasons[orjson.loads(line)["reason"]] += 1
            except orjson.JSONDecodeError:
                reasons["(not a whole line)"] += 1
    return reasons
