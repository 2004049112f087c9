"""Moments in messages: RFC 3339 date-times, and the range in which every part of Halyard can read and write them. Pure.

A moment is epoch milliseconds from 1970 to the end of 9999 in UTC. An offset can lead a date of the year 9999 out of
that range, which is why the year alone proves nothing.
"""

import re
from datetime import UTC, datetime, timedelta

_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
LAST_MS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND


def moment_ms(text: str) -> int:
    """Read a date-time into epoch milliseconds.

    Raises:
        ValueError: it is none, or out of range; the text says what is right.
    """
    if not _DATE_TIME.fullmatch(text):
        raise ValueError("must be a date-time with an offset, such as 2026-11-21T06:30:00Z")
    try:
        wall_ms = (datetime.fromisoformat(text.upper()) - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError) as error:
        raise ValueError(f"is no moment in time: {error}") from error
    if wall_ms < 0:
        raise ValueError("must not be before 1970 in UTC")
    if wall_ms > LAST_MS:
        raise ValueError("must not be after 9999 in UTC")
    return wall_ms


def moment_text(wall_ms: int) -> str:
    """Write a moment as a date-time in UTC with milliseconds."""
    # `relay.clock` renders times the same way, but lies above this package.
    return (_EPOCH + wall_ms * _MILLISECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")
