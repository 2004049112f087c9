"""Knows whether the event loop turns, for a probe that is answered by another thread (F43).

Owns one number that the loop writes and other threads read. Never decides anything about the process.
"""

from dataclasses import dataclass, field

from relay.clock import Clock

BEAT_S = 0.5
DEAD_AFTER_S = 10.0


@dataclass(slots=True)
class Heartbeat:
    """Beats on the loop that runs `run`; `alive` and `lag_s` may be read from any thread."""

    clock: Clock
    lag_s: float = 0.0
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.clock.monotonic()

    async def run(self) -> None:
        """Beat for ever, noting how late each beat came."""
        while True:
            before = self.clock.monotonic()
            await self.clock.sleep(BEAT_S)
            self._last = self.clock.monotonic()
            self.lag_s = max(0.0, self._last - before - BEAT_S)

    def silence_s(self) -> float:
        """Return the seconds since the last beat."""
        return self.clock.monotonic() - self._last

    @property
    def alive(self) -> bool:
        """Whether the loop turned within the last ten seconds."""
        return self.silence_s() <= DEAD_AFTER_S
