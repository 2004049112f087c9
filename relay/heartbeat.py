"""Knows whether the event loop turns and how late it comes round, for readers on another thread (F43).

Owns a few numbers that the loop writes and other threads read. Never decides anything about the process. A beat every
20 ms meets every stall of that length or more: one that lasts for 40 ms is seen as at least 20 ms. Each beat wakes the
processor, so an idle relay, whose stalls nobody waits for, beats twice a second only.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from relay.clock import Clock

BEAT_S = 0.02
IDLE_BEAT_S = 0.5
DEAD_AFTER_S = 10.0
WINDOW_S = 60.0


@dataclass(slots=True)
class Heartbeat:
    """Beats on the loop that runs `run`; everything else may be called from any thread.

    Args:
        clock: for the beats.
        observe: told by how many seconds each beat was late.
        is_needed: whether anybody is there who waits for the loop.
    """

    clock: Clock
    observe: Callable[[float], None] = lambda _lag_s: None
    is_needed: Callable[[], bool] = lambda: True
    lag_s: float = 0.0
    _last: float = field(init=False)
    _window_ends: float = field(init=False)
    _longest: tuple[float, float] = (0.0, 0.0)  # of the window before, and of this one

    def __post_init__(self) -> None:
        self._last = self.clock.monotonic()
        self._window_ends = self._last + WINDOW_S

    async def run(self) -> None:
        """Beat for ever, noting how late each beat came."""
        while True:
            beat_s = BEAT_S if self.is_needed() else IDLE_BEAT_S
            due = self.clock.monotonic() + beat_s
            await self.clock.sleep(beat_s)
            self._beat(due)

    def _beat(self, due: float) -> None:
        now = self._last = self.clock.monotonic()
        self.lag_s = max(0.0, now - due)
        self.observe(self.lag_s)
        earlier, longest = self._longest
        if now >= self._window_ends:
            self._window_ends = now + WINDOW_S
            earlier, longest = longest, 0.0
        self._longest = earlier, max(longest, self.lag_s)

    @property
    def longest_lag_s(self) -> float:
        """The longest delay of the last one to two minutes: none is missed by who looks once a minute."""
        return max(self._longest)

    def silence_s(self) -> float:
        """Return the seconds since the last beat."""
        return self.clock.monotonic() - self._last

    @property
    def alive(self) -> bool:
        """Whether the loop turned within the last ten seconds."""
        return self.silence_s() <= DEAD_AFTER_S
