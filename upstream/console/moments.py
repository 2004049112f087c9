"""Times as people type them: RFC 3339, or how far away they are (`90m`, `2h`, `3d`, `1w`)."""

import re
from datetime import UTC, datetime, timedelta

from upstream.console.failures import Exit, Failed

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DISTANCE = re.compile(r"([0-9]{1,6})([smhdw])")


def moment(option: str, text: str, *, is_past: bool = False) -> str:
    """Return a time as the API takes it; a distance counts from now, back with `is_past`.

    Raises:
        Failed: this is no time.
    """
    distance = _DISTANCE.fullmatch(text)
    if distance is not None:
        away = timedelta(**{_UNITS[distance[2]]: int(distance[1])})
        now = datetime.now(UTC)
        return _written(now - away if is_past else now + away)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        sentence = f"{option} takes a time such as 2026-11-21T06:30:00Z, or a distance such as 90m, 2h or 3d."
        raise Failed(Exit.USAGE, f"{sentence} {text!r} is neither.")
    return _written(found)


def seconds(option: str, text: str) -> int:
    """Return a duration in seconds.

    Raises:
        Failed: this is none.
    """
    distance = _DISTANCE.fullmatch(text)
    if distance is None:
        raise Failed(Exit.USAGE, f"{option} takes a duration such as 0s, 90m, 2h or 3d. {text!r} is none.")
    return int(timedelta(**{_UNITS[distance[2]]: int(distance[1])}).total_seconds())


def shown(text: str | None) -> str:
    """Return a time of the API's in short: UTC, to the second."""
    return "" if text is None else text[:19].replace("T", " ")


def _written(found: datetime) -> str:
    return found.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
