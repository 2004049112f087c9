"""Lets few streams begin, and few end, in each turn of the event loop, so that a storm of them is nobody else's.

To open a stream costs as much as twenty evaluations. After a network came back thousands arrive in one turn, and
whatever else arrives would wait for all of them. Here they queue, in their order, and every turn takes some; the queue
is as long as there are connections, which have a maximum. The same holds for the network going: an event loop works
off all connections that have something to read before anything else, so those of streams, whose clients have nothing
to say, stand aside in a set of the kernel's and are given back to the loop a few at a time.
"""

import asyncio
import select
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from relay.serve.event_streams import STREAM_PATH
from relay.sync.collector import freeze_young

PER_TURN: Final = 8
FROZEN_AFTER: Final = 64
PATHS: Final = frozenset({STREAM_PATH, "/api/v2/client/stream"})


class Silent(Protocol):
    """A connection that nothing is expected from."""

    @property
    def descriptor(self) -> int:
        """The file descriptor of its socket."""
        ...

    def wake(self) -> None:
        """Read again: there is something to read, or the end."""
        ...


class Turnstile:
    """One listener's queue of streams that begin, and set of those that are open."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._silent: dict[int, Silent] = {}
        self._epoll: select.epoll | None = None
        self._begun = 0

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
                self._begun += 1
                if self._begun % FROZEN_AFTER == 0:
                    # What streams consist of stays: walked by the collector, ten thousand stall everybody for 60 ms.
                    freeze_young()
        finally:
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._turn)

    def stand_aside(self, connection: Silent) -> None:
        """Wake a connection, which reads nothing itself from now on, once there is something to read."""
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._wake_some)
        self._silent[connection.descriptor] = connection
        self._epoll.register(connection.descriptor, select.EPOLLIN | select.EPOLLRDHUP)

    def forget(self, connection: Silent) -> None:
        """Hear no more of a connection. Call before its descriptor is closed."""
        if self._epoll is not None and self._silent.pop(connection.descriptor, None) is not None:
            self._epoll.unregister(connection.descriptor)

    def close(self) -> None:
        """Let go of the kernel's set; nobody is woken any more."""
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
            self._silent.clear()

    def _wake_some(self) -> None:
        assert self._epoll is not None  # noqa: S101 - whose reader this is
        for descriptor, _events in self._epoll.poll(0, PER_TURN):
            connection = self._silent[descriptor]
            self.forget(connection)
            connection.wake()
