"""Accepts connections a few at a time, so that a storm of them is nobody else's.

uvloop accepts all that the kernel holds in one turn of the event loop: two thousand connections after a network came
back, with every evaluation waiting behind them. Here each turn takes a few and the kernel keeps the rest, in order;
with them come their requests a few at a time, too. Only when the process runs out of descriptors does it wait.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

PER_TURN: Final = 4
EXHAUSTED_S: Final = 0.5
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

MakeProtocol = Callable[[], asyncio.Protocol]


class Acceptor:
    """The listening side of one server.

    Args:
        listener: listens, does not block; whoever made it closes it after `stop`.
        make_protocol: returns the protocol of a new connection.
    """

    def __init__(self, listener: socket.socket, make_protocol: MakeProtocol) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._loop: asyncio.AbstractEventLoop | None = None
        self._again: asyncio.TimerHandle | None = None
        # The loop holds its tasks weakly.
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def is_accepting(self) -> bool:
        """Whether connections are taken."""
        return self._loop is not None

    def start(self) -> None:
        """Accept from now on, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener.fileno(), self._accept_some)

    def stop(self) -> None:
        """Accept no more; what was accepted goes on."""
        if self._loop is not None:
            self._loop.remove_reader(self._listener.fileno())
            self._loop = None
        if self._again is not None:
            self._again.cancel()

    async def settled(self) -> None:
        """Wait until what was accepted is open; call after `stop`."""
        if self._opening:
            await asyncio.wait(self._opening)

    def _accept_some(self) -> None:
        for _ in range(PER_TURN):
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._wait(error)
                    return
                continue  # this client has gone already
            self._open(connection)

    def _open(self, connection: socket.socket) -> None:
        assert self._loop is not None  # noqa: S101 - only called while accepting
        task = self._loop.create_task(self._connect(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
        try:
            if connection.family in {socket.AF_INET, socket.AF_INET6}:
                # An answer is one small write; it must not wait for the acknowledgement of the one before.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(self._make_protocol, connection)
        except OSError:
            connection.close()  # the client has gone already

    def _wait(self, error: OSError) -> None:
        """Leave connections with the kernel for a while: the listener stays readable, so asking would never end."""
        logger.warning("no connection can be accepted for now: %s", error.strerror)
        loop = self._loop
        assert loop is not None  # noqa: S101 - only called while accepting
        loop.remove_reader(self._listener.fileno())
        self._again = loop.call_later(EXHAUSTED_S, self.start)
