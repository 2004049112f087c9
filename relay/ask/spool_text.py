"""How a spool looks in a terminal and as JSON."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relay.clock import rfc3339
from relay.events.inspection import Kept, SegmentView, View

MIB = 1_048_576


def inspection(directory: Path, found: View) -> str:
    """Return everything about a spool, line by line."""
    return "\n".join(_lines(directory, found))


def inspection_members(directory: Path, found: View) -> dict[str, Any]:
    """Return the same as an object; times are RFC 3339."""
    return {
        "directory": str(directory),
        "waiting": found.waiting,
        "bytes": found.bytes,
        "segments": [
            {
                "name": segment.name,
                "bytes": segment.bytes,
                "records": segment.records,
                "waiting": segment.waiting,
                "oldest": _time(segment.oldest_ms),
                "newest": _time(segment.newest_ms),
                "damage": [place.members() for place in segment.damage],
            }
            for segment in found.segments
        ],
        "in_flight": [
            {"id": batch.id, "segment": batch.segment, "start": batch.start, "end": batch.end}
            for batch in found.in_flight
        ],
        "quarantine": [{"name": kept.name, "bytes": kept.bytes, "reasons": kept.reasons} for kept in found.quarantine],
    }


def verification(directory: Path, found: View) -> str:
    """Return what a check of every record has come to."""
    checked = (
        f"{_records(sum(segment.records for segment in found.segments))} in {_many(len(found.segments), 'segment')}"
    )
    if not found.damage:
        torn = next((segment for segment in found.segments if segment.torn_at is not None), None)
        note = "" if torn is None else f"\n{torn.name} ends within a record, which was never acknowledged"
        return f"{directory}: {checked} are whole{note}"
    places = (
        f"  {place.file}, bytes {place.start} to {'its end' if place.end is None else place.end}: {place.what}"
        for place in found.damage
    )
    return "\n".join((f"{directory}: {checked} are whole; damaged are:", *places))


def verification_members(directory: Path, found: View) -> dict[str, Any]:
    """Return the same as an object."""
    return {
        "directory": str(directory),
        "records": sum(segment.records for segment in found.segments),
        "segments": len(found.segments),
        "damage": [place.members() for place in found.damage],
    }


def _lines(directory: Path, found: View) -> Iterator[str]:
    written = [ms for segment in found.segments for ms in (segment.oldest_ms, segment.newest_ms) if ms is not None]
    since = f", written from {rfc3339(min(written))} to {rfc3339(max(written))}" if written else ""
    yield f"{directory}: {_records(found.waiting)} waiting{since}; {found.bytes / MIB:.1f} MiB on disk"
    if found.is_cursor_damaged:
        yield "  the reading position is damaged; a start sends again whatever is still here"
    yield from map(_segment, found.segments)
    for batch in found.in_flight:
        yield f"  batch {batch.id} was being sent: {batch.segment}, bytes {batch.start} to {batch.end}"
    if not found.quarantine:
        yield "  nothing is in the quarantine"
    for kept in found.quarantine:
        yield from _kept(kept)


def _segment(segment: SegmentView) -> str:
    notes = f"; {_many(len(segment.damage), 'damaged place')}, see `spool verify`" if segment.damage else ""
    return (
        f"  {segment.name}: {segment.bytes:,} bytes, {segment.waiting:,} of {_records(segment.records)} waiting{notes}"
    )


def _kept(kept: Kept) -> Iterator[str]:
    yield f"  quarantine/{kept.name}: {kept.bytes:,} bytes"
    for reason, records in kept.reasons.items():
        yield f"    {_records(records)} refused: {reason}"


def _records(number: int) -> str:
    return _many(number, "record")


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _time(wall_ms: int | None) -> str | None:
    return None if wall_ms is None else rfc3339(wall_ms)
