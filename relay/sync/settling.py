"""What is left to do after a change is in use: compile what is served without, let go of what was replaced.

A small change is served at once, and its chunk is interpreted until this has run. Waits a moment after a swap: of many
changes in a row the last one alone is compiled, and streams have been told by then, so that they do not hold the old
configuration any more, which would free it all at once when the last of them lets go. Works in slices and changes no
answer.
"""

import asyncio
from typing import Final

from relay.clock import Clock
from relay.engine.program import compile_steps
from relay.sync.collector import give_back
from relay.sync.slices import in_slices
from relay.sync.store import Store, Swap

PAUSE_S: Final = 0.25


class Settling:
    """Settles what was swapped into a store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: dict[str, None] = {}
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Settle after every swap, until cancelled."""
        unsubscribe = self._store.subscribe(self._note)
        self._waiting = dict.fromkeys(self._store.configurations)
        try:
            while True:
                await in_slices(self._store.tidy_steps())
                await self._compile_waiting()
                # Python's compiler takes a megabyte, which would stay otherwise.
                give_back()
                await self._news.wait()
                self._news.clear()
                await self._clock.sleep(PAUSE_S)
        finally:
            unsubscribe()

    async def _compile_waiting(self) -> None:
        while self._waiting:
            environment_id, _ = self._waiting.popitem()
            configuration = self._store.get(environment_id)
            if configuration is not None:
                await in_slices(compile_steps(configuration.program))

    def _note(self, swap: Swap) -> None:
        self._news.set()
        if swap.after is not None:
            self._waiting[swap.after.ref.id] = None
