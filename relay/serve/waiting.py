"""Requests that must not be answered from an older configuration wait here until the newer one has arrived.

Also remembers when each environment last changed, for clients that name a moment and not a revision. The waits are
ended by swaps and by the registry's timer, so none of them costs a timer of its own.
"""

import asyncio
from collections.abc import Callable

from relay.clock import Clock
from relay.sync.store import Configuration, Store


class Arrivals:
    """When configurations arrived, and who waits for the next one."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._started_ms = clock.wall_ms()
        self._modified_ms: dict[str, int] = {}
        self._waiting: dict[asyncio.Future[None], tuple[str, float]] = {}

    def modified_ms(self, environment_id: str) -> int:
        """Return when the environment's configuration was last changed, as far as this process knows."""
        return self._modified_ms.get(environment_id, self._started_ms)

    def note(self, environment_id: str, committed_ms: int | None) -> None:
        """Take note of a new configuration; `committed_ms` is None where nobody said when it was made."""
        self._modified_ms[environment_id] = self._clock.wall_ms() if committed_ms is None else committed_ms
        if self._store.get(environment_id) is None:
            del self._modified_ms[environment_id]
        for future, (wanted, _) in tuple(self._waiting.items()):
            if wanted == environment_id and not future.done():
                future.set_result(None)

    def give_up(self, now_s: float) -> None:
        """End the waits that have lasted long enough."""
        for future, (_, until_s) in tuple(self._waiting.items()):
            if now_s >= until_s and not future.done():
                future.set_result(None)

    async def wait_for(
        self, environment_id: str, is_enough: Callable[[Configuration], bool], patience_s: float
    ) -> Configuration | None:
        """Return the environment's configuration once it is enough, None if it is not within `patience_s`."""
        until_s = self._clock.monotonic() + patience_s
        while True:
            configuration = self._store.get(environment_id)
            if configuration is not None and is_enough(configuration):
                return configuration
            if self._clock.monotonic() >= until_s:
                return None
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[future] = (environment_id, until_s)
            try:
                await future
            finally:
                del self._waiting[future]
