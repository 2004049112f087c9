"""Tells whether the wall clock has jumped: what is deleted by its age must not be deleted by a wrong clock."""

from relay.clock import Clock

LONGEST_DRIFT_MS = 24 * 3600 * 1000
"""Further than two clocks of one process ever drift apart. A machine asleep looks like a jump, and gets over it."""
MISTRUST_S = 24 * 3600.0
"""How long a jump leaves somebody to notice it; a clock that then still says so is taken at its word."""


class SteadyClock:
    """Compares the wall clock with the one that only runs forward."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_ms = clock.wall_ms()
        self._started_s = clock.monotonic()
        self._jumped_s: float | None = None

    def is_trusted(self) -> bool:
        """Tell whether the wall clock has run as it should since this was made, or since a jump was got over."""
        now_s = self._clock.monotonic()
        passed_ms = (now_s - self._started_s) * 1000
        if abs(self._clock.wall_ms() - self._started_ms - passed_ms) <= LONGEST_DRIFT_MS:
            self._jumped_s = None
            return True
        if self._jumped_s is None:
            self._jumped_s = now_s
        if now_s - self._jumped_s < MISTRUST_S:
            return False
        self._started_ms, self._started_s, self._jumped_s = self._clock.wall_ms(), now_s, None
        return True
