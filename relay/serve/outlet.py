"""One open response of a stream: bytes go out in the very turn that offers them.

A task or a queue per client is what makes fan-out slow, so there is neither: `write` steps the server's `send` once,
and only if the server holds it back (the client's buffer is full) does a task finish it. While that lasts the outlet
is blocked, nothing more may be written, and the stream has to remember what it owes as state, not as a backlog.

A server that puts a `Connection` into `scope["extensions"]["halyard.connection"]` lets a stuck client be cut at once
and the kernel's send buffer be bounded; without one a stuck client goes when its TCP connection does.
"""

import asyncio
import logging
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, Protocol

from relay.serve.guard import Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

EXTENSION: Final = "halyard.connection"


class Connection(Protocol):
    """What a stream may ask of the connection below it."""

    def abort(self) -> None:
        """Close at once, dropping what is buffered. A close that waits for the buffer never ends for a stuck client."""
        ...

    def limit_send_buffer(self, send_buffer_bytes: int) -> None:
        """Set SO_SNDBUF, so that the kernel cannot take in megabytes for a client that stopped reading."""
        ...


class _RequestOnly:
    """Stands in for the connection where the server lends none: leaving the request makes the server close it."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def limit_send_buffer(self, send_buffer_bytes: int) -> None:
        """Leave the kernel's default."""


def connection_of(scope: Scope) -> Connection:
    """Return the connection that carries the current task's request."""
    lent: Connection | None = (scope.get("extensions") or {}).get(EXTENSION)
    return _RequestOnly() if lent is None else lent


class Outlet:
    """Writes the body of one started response.

    Args:
        send: ASGI send; the response has been started with it.
        connection: what is aborted for a client that takes nothing.
        on_blocked: told when a write is held back.
        on_ready: told when a write that was held back is done.
    """

    __slots__ = ("_connection", "_finishing", "_on_blocked", "_on_ready", "_send", "is_open")

    def __init__(
        self, send: Send, connection: Connection, on_blocked: Callable[[], None], on_ready: Callable[[], None]
    ) -> None:
        self._send = send
        self._connection = connection
        self._on_blocked = on_blocked
        self._on_ready = on_ready
        self._finishing: asyncio.Task[None] | None = None
        self.is_open = True

    @property
    def is_blocked(self) -> bool:
        """Whether the client's buffer is full; nothing may be written then."""
        return self._finishing is not None

    def write(self, body: bytes, *, is_last: bool = False) -> None:
        """Send bytes now, or as soon as the client takes them. Only on an outlet that is open and not blocked."""
        if is_last:
            self.is_open = False
        sending = self._put({"type": "http.response.body", "body": body, "more_body": not is_last})
        try:
            held_back_by = sending.send(None)
        except StopIteration:
            return
        except OSError:
            # The client has gone; the request's own task sees that too and ends the stream.
            self.is_open = False
            return
        self._finishing = asyncio.get_running_loop().create_task(self._finish(sending, held_back_by))
        self._on_blocked()

    def cut(self) -> None:
        """End the response at once, whatever the client has not taken."""
        self.is_open = False
        if self._finishing is not None:
            self._finishing.cancel()
        self._connection.abort()

    def close(self) -> None:
        """Forget the client, who has gone or has been sent everything."""
        self.is_open = False
        if self._finishing is not None:
            self._finishing.cancel()
            self._finishing = None

    async def _put(self, message: Message) -> None:
        await self._send(message)

    async def _finish(self, sending: Coroutine[Any, Any, None], held_back_by: Any) -> None:
        try:
            await _resume(sending, held_back_by)
        except OSError:
            self.is_open = False
        except Exception:
            logger.exception("a stream's write failed")
            self.is_open = False
        self._finishing = None
        self._on_ready()


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, None], waiting_for: Any) -> Generator[Any, Any, None]:
    """Run a coroutine that was stepped once already, and now waits for `waiting_for`, to its end."""
    try:
        yield waiting_for
        yield from coroutine
    finally:
        coroutine.close()


async def until_disconnected(receive: Receive) -> None:
    """Return when the client has gone or the response is complete."""
    while (await receive())["type"] != "http.disconnect":
        pass
