"""A clock that tests turn by hand."""

import asyncio
import heapq
import itertools


class FakeClock:
    """Implements `relay.clock.Clock`; time passes only through `advance`."""

    def __init__(self, wall_ms: int = 1_790_000_000_000) -> None:
        self._wall_ms = wall_ms
        self._monotonic = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self.slept: list[float] = []

    def wall_ms(self) -> int:
        return self._wall_ms

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + delay_s, next(self._order), future))
        await future

    def jump_wall(self, delta_ms: int) -> None:
        """Move the wall clock alone, as an operator or NTP would."""
        self._wall_ms += delta_ms

    async def advance(self, delta_s: float) -> None:
        """Let `delta_s` seconds pass and wake whoever was due, in order."""
        target = self._monotonic + delta_s
        await settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, future = heapq.heappop(self._sleepers)
            self._wall_ms += round((due - self._monotonic) * 1000)
            self._monotonic = due
            if not future.done():
                future.set_result(None)
            await settle()
        self._wall_ms += round((target - self._monotonic) * 1000)
        self._monotonic = target


async def settle(turns: int = 10) -> None:
    """Let every task that can run do so, `turns` times at most; one more where nobody can, for what a socket brings."""
    # What is about to run, which asyncio tells nobody; each turn less saves a question to the operating system.
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    for _ in range(turns):
        was_idle = not ready
        await asyncio.sleep(0)
        if was_idle and not ready:
            return
