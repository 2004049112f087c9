"""Runs work in steps on the event loop such that everybody else gets their turn.

A slice is as many steps as fit into a few milliseconds; between two slices the loop turns once, whole, so that whatever
came in meanwhile is answered. A step itself must be short: nothing can interrupt it.
"""

import asyncio
import time
from collections.abc import Callable, Generator
from typing import Final, TypeVar

T = TypeVar("T")

SLICE_S: Final = 0.004


async def in_slices(steps: Generator[None, None, T], now: Callable[[], float] = time.perf_counter) -> T:
    """Run a generator to its end and return its result."""
    slice_ends = now() + SLICE_S
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
        if now() >= slice_ends:
            await asyncio.sleep(0)
            slice_ends = now() + SLICE_S
