"""Lets few requests for streams begin in each turn of the event loop, so that a storm of them is nobody else's.

To open a stream costs as much as twenty evaluations. After a network came back thousands arrive in one turn, and
whatever else arrives would wait for all of them. Here they queue, in their order, and every turn takes some; the queue
is as long as there are connections, which have a maximum.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from relay.serve.event_streams import STREAM_PATH

PER_TURN: Final = 8
PATHS: Final = frozenset({STREAM_PATH, "/api/v2/client/stream"})


class Turnstile:
    """One listener's queue."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, begin: Callable[[], None]) -> None:
        """Call `begin` in one of the next turns."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._turn)
        self._waiting.append(begin)

    def _turn(self) -> None:
        try:
            for _ in range(min(PER_TURN, len(self._waiting))):
                self._waiting.popleft()()
        finally:
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._turn)
