"""Limits how often somebody may do something: a count per key and window, bounded in memory.

The window starts with the first attempt of a key. At most `remembered` keys are kept, the least recently used one is
forgotten first. Counts are of this process alone.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from cachetools import LRUCache

from relay.clock import Clock
from relay.errors import Problem
from upstream.settings import RateLimits

WINDOW_S = 60.0
# Whoever has an IPv6 address mostly has the whole network of this size.
_IPV6_NETWORK_BITS = 64


@dataclass(frozen=True, slots=True)
class Count:
    """How a key stands after an attempt: what is left of its limit, and in how many seconds its window ends."""

    limit: int
    left: int
    reset_s: int
    is_over: bool = False


class Windows:
    """Counts attempts by key."""

    def __init__(self, clock: Clock, *, limit: int, window_s: float, remembered: int) -> None:
        self._clock = clock
        self._limit = limit
        self._window_s = window_s
        self._seen: LRUCache[Hashable, tuple[float, int]] = LRUCache(remembered)

    def count(self, key: Hashable) -> Count:
        """Count one attempt, unless the key has had all of its window."""
        now = self._clock.monotonic()
        started, made = self._seen.get(key, (now, 0))
        if now - started >= self._window_s:
            started, made = now, 0
        reset_s = max(1, math.ceil(started + self._window_s - now))
        if made >= self._limit:
            return Count(self._limit, 0, reset_s, is_over=True)
        self._seen[key] = (started, made + 1)
        return Count(self._limit, self._limit - made - 1, reset_s)

    def forget(self, key: Hashable) -> None:
        """Start afresh for a key."""
        self._seen.pop(key, None)


class AttemptLimit:
    """Counts attempts at something secret; over the limit they are refused until the window has passed."""

    def __init__(self, clock: Clock, *, attempts: int, window_s: float, remembered: int) -> None:
        self._windows = Windows(clock, limit=attempts, window_s=window_s, remembered=remembered)

    def count(self, key: Hashable) -> None:
        """Count one attempt.

        Raises:
            Problem: 429 with Retry-After when the key has had its attempts.
        """
        count = self._windows.count(key)
        if count.is_over:
            raise Problem(
                429,
                "too_many_attempts",
                f"Too many attempts; try again in {count.reset_s} s.",
                headers={"Retry-After": str(count.reset_s)},
            )

    def forget(self, key: Hashable) -> None:
        """Start afresh for a key, after an attempt that succeeded."""
        self._windows.forget(key)


class RequestLimits:
    """Counts requests: of each key or person, reads and writes apart, and of each address without a valid credential.

    Addresses are remembered apart, so that however many there are, nobody's own count is forgotten for them.
    """

    def __init__(self, clock: Clock, settings: RateLimits) -> None:
        def windows(limit: int) -> Windows | None:
            return Windows(clock, limit=limit, window_s=WINDOW_S, remembered=settings.remembered) if limit else None

        self._reads = windows(settings.reads)
        self._writes = windows(settings.writes)
        self._addresses = windows(settings.unauthenticated)

    def of_caller(self, principal: Hashable, *, is_reading: bool) -> Count | None:
        """Count a request of somebody known; None: there is no limit."""
        windows = self._reads if is_reading else self._writes
        return None if windows is None else windows.count(principal)

    def of_address(self, address: str | None) -> Count | None:
        """Count a request without a valid credential; None: there is no limit."""
        return None if self._addresses is None else self._addresses.count(network_of(address))


def network_of(address: str | None) -> str | None:
    """Return by what an address is counted: itself, or the network that an IPv6 address is in."""
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> _IPV6_NETWORK_BITS << _IPV6_NETWORK_BITS))
