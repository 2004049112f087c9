"""The one seam through which Halyard reads time.

Everything above the pure packages takes a `Clock`, so that tests turn hours into microseconds and a wall clock that
jumps (F12) is just another input. Timers use `monotonic`; only what is shown, stored or compared with configuration
uses `wall_ms`.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What code may know about time."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970-01-01T00:00:00Z. May jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment. Never goes back."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Return after `delay_s` seconds of monotonic time."""
        ...


class SystemClock:
    """The machine's clocks and the running event loop's timer."""

    def wall_ms(self) -> int:
        """See `Clock`."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        """See `Clock`."""
        await asyncio.sleep(delay_s)


def rfc3339(wall_ms: int) -> str:
    """Render epoch milliseconds as RFC 3339 in UTC with milliseconds: `2026-11-21T06:30:00.000Z`."""
    seconds, millis = divmod(wall_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{millis:03d}Z"


def parse_rfc3339_ms(text: str) -> int:
    """Read an RFC 3339 time with an offset into epoch milliseconds.

    Raises:
        ValueError: the text is no date-time, or names no offset.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        message = f"{text!r} has no UTC offset; write e.g. 2026-11-21T06:30:00Z"
        raise ValueError(message)
    return round(moment.timestamp() * 1000)
