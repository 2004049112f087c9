"""uvicorn's httptools protocol, lent to the app: a stream may bound, abort and finally take over its connection.

What is lent stands in the scope's extensions: `relay.serve.outlet.Connection`, `relay.serve.held.Holding`. Once a
stream has the connection, this protocol is done with it: to uvicorn the request is complete, requests behind it are
dropped, and nothing refers to this object any more. The internals of uvicorn that it relies on are named in
tests/relay/test_server.py.
"""

import asyncio
import socket
from functools import partial
from typing import Any, cast

from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from relay.serve.held import HOLDING, HeldConnection, Holder
from relay.serve.outlet import EXTENSION
from relay.serve.packing import PEER
from relay.serve.turnstile import PATHS, Turnstile


class HoldingProtocol(HttpToolsProtocol):
    """One connection. `_answering` is the request that the app has; `cycle` may be a later one that waits for it."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        turnstile: Turnstile,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._turnstile = turnstile
        self._extensions: dict[str, object] = {EXTENSION: self, HOLDING: self}
        self._answering: RequestResponseCycle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        """Break the cycles through scope and transport, so that no collection has to find them."""
        self._extensions.clear()
        self._answering = None

    def on_message_begin(self) -> None:
        """Lend the connection to a request."""
        super().on_message_begin()
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]
        self.scope["state"][PEER] = self.client

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        if cycle.scope["path"] in PATHS:
            self._turnstile.enter(partial(self._begin_stream, cycle, app))
        else:
            super()._start_asgi_task(cycle, app)

    def _begin_stream(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if not cycle.disconnected:
            super()._start_asgi_task(cycle, app)

    # --- what is lent -----------------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Close at once, dropping what is buffered; for a stream whose client takes nothing."""
        self.transport.abort()

    def limit_send_buffer(self, send_buffer_bytes: int) -> None:
        """Keep the kernel from taking in megabytes for a client that stopped reading."""
        connected = self.transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)

    def end_with_connection(self) -> None:
        """Let the connection end with the answer to the current request, which comes in chunks if it can."""
        if self._answering is not None:
            self._answering.chunked_encoding = None if _takes_chunks(self._answering) else False
            self._answering.keep_alive = False

    def hold(self, stream: object, holder: Holder) -> HeldConnection:
        """Give the connection to a stream; see `relay.serve.held.Holding`.

        Raises:
            ConnectionError: the client has gone.
        """
        cycle = self._answering
        if cycle is None or cycle.disconnected or self.transport.is_closing():
            raise ConnectionResetError
        cycle.response_complete = True
        self.server_state.total_requests += 1
        self.pipeline.clear()
        self.flow.resume_reading()
        held = HeldConnection(
            self.transport, self.connections, self._turnstile, stream, holder, is_chunked=_takes_chunks(cycle)
        )
        self.connections.discard(self)
        self.connections.add(cast("Any", held))
        self.transport.set_protocol(held)
        # Whatever the kernel does not take at once is a reason to write no more.
        self.transport.set_write_buffer_limits(0)
        if self.flow.write_paused:
            held.pause_writing()
        self._forget()
        # The parser holds on to this object by its callbacks.
        self.parser = self.cycle = None  # type: ignore[assignment]
        return held


def _takes_chunks(cycle: RequestResponseCycle) -> bool:
    return cycle.scope["http_version"] != "1.0"
