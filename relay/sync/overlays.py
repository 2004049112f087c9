"""Every flag that is forced off here, whoever forced it: a kill made at this relay, or the relay that it follows.

The one place that tells the store which flags of an environment are off, and that tells followers of it. What was made
here is held as long as `relay.changes` says so; what came over the stream ends by its own message, with its time, or
when a new connection does not repeat it. Time runs by the monotonic clock from when an overlay was first heard of.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from relay.clock import Clock
from relay.protocol.overlays import ForcedOff

logger = logging.getLogger(__name__)

MAX_FOLLOWED: Final = 10_000
"""Most overlays taken from upstream; more are reported and passed over."""
CHECKED_EVERY_S: Final = 1.0


class OverlayBoard:
    """The overlays of one store.

    Args:
        force_off: lets exactly these flags of an environment be off, and wakes its followers.
        clock: for the end of what upstream never ended.

    Attributes:
        version: another number whenever an overlay came or went.
    """

    def __init__(self, force_off: Callable[[str, frozenset[str]], None], clock: Clock) -> None:
        self.version = 0
        self._force_off = force_off
        self._clock = clock
        self._made_here: dict[str, tuple[ForcedOff, ...]] = {}
        self._followed: dict[str, ForcedOff] = {}
        self._ends_at_s: dict[str, float] = {}
        self._is_overfull = False
        self._news = asyncio.Event()

    def all(self) -> tuple[ForcedOff, ...]:
        """Return every overlay by id, once. May be asked from another thread."""
        here = [each for held in tuple(self._made_here.values()) for each in held]
        return tuple({each.id: each for each in (*here, *tuple(self._followed.values()))}.values())

    def __contains__(self, overlay_id: str) -> bool:
        return any(each.id == overlay_id for each in self.all())

    def hold(self, environment_id: str, overlays: Collection[ForcedOff]) -> None:
        """Let exactly these be what was made here in an environment."""
        if overlays:
            self._made_here[environment_id] = tuple(overlays)
        else:
            self._made_here.pop(environment_id, None)
        self._enforce(environment_id)

    def take(self, overlay: ForcedOff) -> None:
        """Take up what upstream holds; one that is known already gets no longer time by being repeated."""
        if overlay.id in self._followed:
            return
        if len(self._followed) >= MAX_FOLLOWED:
            if not self._is_overfull:
                logger.error("more overlays than can be followed; the rest is passed over", extra={"max": MAX_FOLLOWED})
            self._is_overfull = True
            return
        self._followed[overlay.id] = overlay
        self._ends_at_s[overlay.id] = self._clock.monotonic() + overlay.lasts_s
        self._enforce(overlay.environment_id)

    def end(self, overlay_id: str) -> None:
        """Let go of what upstream has ended; nothing happens when it is not held."""
        overlay = self._followed.pop(overlay_id, None)
        if overlay is not None:
            del self._ends_at_s[overlay_id]
            self._is_overfull = False
            self._enforce(overlay.environment_id)

    def keep_only(self, overlay_ids: Collection[str]) -> None:
        """Let go of what upstream held once and has not named on its newest connection."""
        for overlay_id in self._followed.keys() - set(overlay_ids):
            self.end(overlay_id)

    def expire(self) -> None:
        """Let go of what upstream never ended, although its time is over."""
        now_s = self._clock.monotonic()
        for overlay_id in [each for each, ends_at_s in self._ends_at_s.items() if ends_at_s <= now_s]:
            self.end(overlay_id)

    async def wait_for(self, overlay_id: str, limit_s: float) -> bool:
        """Return whether an overlay is held, as soon as it is or the time is over."""
        try:
            async with asyncio.timeout(limit_s):
                while overlay_id not in self:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """End overlays in time, for ever."""
        while True:
            await self._clock.sleep(CHECKED_EVERY_S)
            self.expire()

    def _enforce(self, environment_id: str) -> None:
        self.version += 1
        self._news.set()
        self._force_off(
            environment_id, frozenset(each.flag for each in self.all() if each.environment_id == environment_id)
        )
