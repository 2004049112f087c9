"""One stream's connection without a request behind it: bytes go straight to the transport.

An open ASGI request costs a task, a scope, a parser and a dozen closures, which is most of what ten thousand silent
streams would take. So once a stream's head is sent, `relay.serve.http_limits` puts this in the place of its protocol,
and all that was the request's is freed. The answer comes in chunks, as a reader that knows neither chunks nor a length
waits until its own buffer is full; that is done here, once for bytes that many clients get. The connection ends with
the answer. What a client still sends is read and dropped, up to a limit.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Iterable, Iterator, MutableSet, Sequence
from typing import Any, Final, Protocol

from relay.serve.guard import Scope
from relay.serve.turnstile import Turnstile

HOLDING: Final = "halyard.holding"
# Nobody has anything to say behind a request for a stream; who goes on all the same is no client of ours.
_IGNORED_BYTES: Final = 64 << 10
_LAST_CHUNK: Final = b"0\r\n\r\n"
_RESET: Final = struct.pack("ii", 1, 0)


class Holder(Protocol):
    """Who is told what becomes of a stream's connection."""

    def on_blocked(self, stream: Any, waiting_bytes: int) -> None:
        """Take note that the client does not take what was written; nothing may be written until `on_ready`."""
        ...

    def on_ready(self, stream: Any) -> None:
        """Take note that the client has taken everything."""
        ...

    def on_lost(self, stream: Any) -> None:
        """Take note that the connection has ended, whoever ended it."""
        ...


class _Gone(asyncio.Transport):
    """The transport of a connection that has ended: takes nothing, does nothing.

    A connection and its transport refer to each other. Ten thousand that end at once would wait for a collection,
    which stalls everybody for 30 ms.
    """

    def is_closing(self) -> bool:
        return True

    def write(self, data: object) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


_GONE: Final = _Gone()


class HeldConnection(asyncio.Protocol):
    """What a stream writes to, see `relay.serve.outlet.Outlet`; and the connection's protocol from now on."""

    __slots__ = (
        "_connections", "_holder", "_ignored_bytes", "_stream", "_turnstile", "descriptor", "is_blocked", "is_chunked",
        "is_open", "transport",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - one argument per thing that it speaks to
        self,
        transport: asyncio.Transport,
        connections: MutableSet[Any],
        turnstile: Turnstile,
        stream: object,
        holder: Holder,
        *,
        is_chunked: bool,
    ) -> None:
        self.transport: asyncio.Transport = transport
        self.descriptor: int = transport.get_extra_info("socket").fileno()
        self.is_chunked = is_chunked
        self.is_open = True
        self.is_blocked = False
        self._connections = connections
        self._turnstile = turnstile
        self._stream: object | None = stream
        self._holder = holder
        self._ignored_bytes = 0
        self._stand_aside()

    def _stand_aside(self) -> None:
        self.transport.pause_reading()
        self._turnstile.stand_aside(self)

    # --- for the stream ---------------------------------------------------------------------------------------------

    def write(self, body: bytes, *, is_last: bool = False) -> None:
        """Send bytes. Only on a connection that is open and not blocked."""
        if body:
            self.transport.write(chunk_of(body) if self.is_chunked else body)
        if is_last:
            self.is_open = False
            if self.is_chunked:
                self.transport.write(_LAST_CHUNK)
            self.transport.close()

    @property
    def waiting_bytes(self) -> int:
        """Return how much was written that the client has not taken."""
        return self.transport.get_write_buffer_size()

    def cut(self) -> None:
        """End the connection at once, whatever the client has not taken; the kernel forgets that, too.

        Else it would go on offering it for minutes, in memory that no limit of ours counts.
        """
        self.is_open = False
        connected = self.transport.get_extra_info("socket")
        if connected is not None and connected.fileno() != -1:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def close(self) -> None:
        """Write nothing more: the stream is over."""
        self.is_open = False

    # --- for the event loop -----------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Hear that bytes are left over."""
        self.is_blocked = True
        if self._stream is not None:
            self._holder.on_blocked(self._stream, self.waiting_bytes)

    def resume_writing(self) -> None:
        """Hear that all bytes are taken."""
        self.is_blocked = False
        if self._stream is not None:
            self._holder.on_ready(self._stream)

    def data_received(self, data: bytes) -> None:
        """Drop what a client says behind its request."""
        self._ignored_bytes += len(data)
        if self._ignored_bytes > _IGNORED_BYTES:
            self.cut()
        elif not self.transport.is_closing():
            self._stand_aside()

    def eof_received(self) -> None:
        """End with the client's side: who has shut it, a browser or a proxy, is gone and takes nothing more."""
        self.is_open = False
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        """Hear that it is over."""
        self.is_open = False
        self._turnstile.forget(self)
        self.transport = _GONE
        self._connections.discard(self)
        stream, self._stream = self._stream, None
        if stream is not None:
            self._holder.on_lost(stream)

    def wake(self) -> None:
        """Read what there is, most likely the end."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # --- for the server ---------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Go on although the server stops: whoever has the stream says goodbye first."""


Offer = tuple[HeldConnection, int, bytes]
"""A connection that takes chunks, open and not blocked, its descriptor, and bytes for it to be written in this turn."""


def chunk_of(body: bytes) -> bytes:
    """Return bytes as one chunk of an answer (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def _chunks_of(bodies: Iterable[bytes]) -> Iterator[bytes]:
    """Yield each as a chunk; whoever is told the same thing as the one before gets the same bytes."""
    last, chunk = b"", b""
    for body in bodies:
        if body is not last:
            last, chunk = body, chunk_of(body)
        yield chunk


def write_each(offers: Sequence[Offer]) -> None:
    """Write to many connections, with nothing in between but the system calls.

    The transport of a connection that is not blocked holds nothing back and would make the same call, at twice the
    price; it gets what the kernel does not take, and finds the same error where there is one. A descriptor is valid
    for as long as `connection_lost` has not been called.
    """
    if not offers:
        return
    # Apart, so that the connections themselves stay untouched: each system call empties the processor's caches.
    connections, descriptors, frames = zip(*offers, strict=True)
    chunks = list(_chunks_of(frames))
    writing = map(os.write, descriptors, chunks)
    written: list[int] = []
    while len(written) < len(offers):
        try:
            for taken in writing:
                written.append(taken)  # noqa: PERF402 - what was written before an error has to be known
        except OSError:
            written.append(0)
    for connection, chunk, taken in zip(connections, chunks, written, strict=True):
        if taken != len(chunk):
            connection.transport.write(chunk[taken:])


class Holding(Protocol):
    """What a server lends that lets go of a request whose answer is a stream."""

    def limit_send_buffer(self, send_buffer_bytes: int) -> None:
        """Set SO_SNDBUF."""
        ...

    def end_with_connection(self) -> None:
        """Let the connection end with the answer. Call before its head is sent."""
        ...

    def hold(self, stream: object, holder: Holder) -> HeldConnection:
        """Give the connection to a stream. Call when the answer's head has been sent.

        Raises:
            ConnectionError: the client has gone; the holder will hear nothing.
        """
        ...


def holding_of(scope: Scope) -> Holding | None:
    """Return what lets go of the current request, None on a server that has no such thing."""
    lent: Holding | None = (scope.get("extensions") or {}).get(HOLDING)
    return lent
