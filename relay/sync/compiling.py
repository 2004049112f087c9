"""Compiles what was served without: a small change is in use at once, and its chunk is interpreted until this has run.

Waits a moment after a swap, so that of many changes in a row the last one alone is compiled. Works in slices, and
touches nothing but the functions of chunks, which give the same answers as the interpreter.
"""

import asyncio
from typing import Final

from relay.clock import Clock
from relay.engine.program import compile_steps
from relay.sync.slices import in_slices
from relay.sync.store import Store, Swap

PAUSE_S: Final = 0.25


class Compiling:
    """Keeps the programs of a store compiled."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: dict[str, None] = {}
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Compile after every swap, until cancelled."""
        unsubscribe = self._store.subscribe(self._note)
        self._waiting = dict.fromkeys(self._store.configurations)
        try:
            while True:
                await self._compile_waiting()
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
        if swap.after is not None:
            self._waiting[swap.after.ref.id] = None
            self._news.set()
