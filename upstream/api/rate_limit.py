"""Limits how often somebody may try something: a count per key and window, bounded in memory.

The window starts with the first attempt of a key. At most `remembered` keys are kept, the least recently used one is
forgotten first. Counts are of this process alone.
"""

import math
from collections.abc import Hashable

from cachetools import LRUCache

from relay.clock import Clock
from relay.errors import Problem


class AttemptLimit:
    """Counts attempts; over the limit they are refused until the window has passed."""

    def __init__(self, clock: Clock, *, attempts: int, window_s: float, remembered: int) -> None:
        self._clock = clock
        self._attempts = attempts
        self._window_s = window_s
        self._seen: LRUCache[Hashable, tuple[float, int]] = LRUCache(remembered)

    def count(self, key: Hashable) -> None:
        """Count one attempt.

        Raises:
            Problem: 429 with Retry-After when the key has had its attempts.
        """
        now = self._clock.monotonic()
        started, made = self._seen.get(key, (now, 0))
        if now - started >= self._window_s:
            started, made = now, 0
        if made >= self._attempts:
            wait_s = max(1, math.ceil(started + self._window_s - now))
            raise Problem(
                429,
                "too_many_attempts",
                f"Too many attempts; try again in {wait_s} s.",
                headers={"Retry-After": str(wait_s)},
            )
        self._seen[key] = (started, made + 1)

    def forget(self, key: Hashable) -> None:
        """Start afresh for a key, after an attempt that succeeded."""
        self._seen.pop(key, None)
