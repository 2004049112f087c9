"""How long to wait before the next attempt. Pure: randomness and time come in as arguments."""

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential growth with full jitter: any time from 0 to the bound, so that relays do not come back at once."""

    min_s: float = 0.5
    max_s: float = 60.0

    def delay_s(self, failures: int, fraction: float) -> float:
        """Return the wait after so many failures in a row; `fraction` is random, 0 to 1."""
        # The exponent is capped because a float is not: 2.0 ** 1024 overflows.
        return fraction * min(self.max_s, self.min_s * 2.0 ** min(failures, 32))


def retry_after_s(header: str | None, now_ms: int) -> float | None:
    """Read a Retry-After header, seconds or date, as seconds from now; None when absent or unreadable."""
    if header is None:
        return None
    if header.isascii() and header.isdigit() and len(header) <= _DIGITS:
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now_ms / 1000)
