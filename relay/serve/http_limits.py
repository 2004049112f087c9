"""What a connection may do before a request has reached the app: uvicorn's httptools protocol with limits.

uvicorn itself answers 100,000 headers and a header of 20 MB normally and lets half a request stand for ever (F38).
Here the head of a request has a size, a count and a deadline; who breaks one gets a JSON problem and is cut. Bodies
are the app's business. A request that arrives whole, which is nearly every one, costs no timer.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast
from uuid import uuid4

import httptools
import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from relay.errors import Problem
from relay.metrics import Tally
from relay.serve.outlet import EXTENSION
from relay.settings import Limits

logger = logging.getLogger(__name__)

# How long a client that is still sending may take to read why it was refused.
LINGER_S = 2.0
# What stands on the request line beside path and query: method, version, separators.
REQUEST_LINE_BYTES = 64


class _GentleTransport:
    """What uvicorn's request cycle sees of the transport: the same, but its close lets the answer be read."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `_refusal` is why it is being ended, once it is."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
        refused: Tally,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._refused = refused
        self._refusal: Problem | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._head_is_open = False
        self._head_bytes = 0
        self._fed_bytes = 0
        self._is_lingering = False
        self._gentle: _GentleTransport | None = None
        self._extensions: dict[str, object] = {EXTENSION: self}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection, which has to say something within the keep-alive time."""
        super().connection_made(transport)
        self._gentle = _GentleTransport(transport, self._close)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and its timers."""
        self._clear_deadline()
        self._unset_keepalive_if_required()
        # Break the cycles through scope and transport, so that no collection has to find them.
        self._extensions.clear()
        self._gentle = None
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close at once, dropping what is buffered; for a stream whose client takes nothing."""
        self.transport.abort()

    def limit_send_buffer(self, send_buffer_bytes: int) -> None:
        """Keep the kernel from taking in megabytes for a client that stopped reading."""
        connected = self.transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the `on_…` methods; then see whether a head is still open."""
        if self._refusal is not None or self._is_lingering:
            return
        self._unset_keepalive_if_required()
        self._feed(data)
        if self._refusal is None and not self.transport.is_closing():
            self._watch_head(len(data))

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # No protocol is spoken here but HTTP/1.1, so the wish to change it is ignored and what follows is HTTP.
            if rest := data[upgrade.args[0] :]:
                self._feed(rest)
        except httptools.HttpParserError:
            self._end(self._refusal or Problem(400, "bad_request", "This is not an HTTP/1.1 request."))

    def _watch_head(self, received: int) -> None:
        """Give a head that is not complete a deadline and a size; a request that is complete has neither."""
        if not self._head_is_open and self.cycle is not None and not self.cycle.response_complete:
            self._clear_deadline()
            self._fed_bytes = 0
            return
        self._fed_bytes += received
        if self._fed_bytes > self._limits.header_bytes + self._target_bytes + REQUEST_LINE_BYTES:
            self._end(_headers_too_large(self._limits))
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.header_s, self._head_overdue)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_overdue(self) -> None:
        self._deadline = None
        seconds = self._limits.header_s
        self._end(Problem(408, "header_timeout", f"The request's headers were not complete within {seconds:g} s."))

    @property
    def _target_bytes(self) -> int:
        return self._limits.path_bytes + self._limits.query_bytes + 1

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._head_is_open = True
        self._head_bytes = 0
        super().on_message_begin()
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]

    def on_url(self, url: bytes) -> None:
        """Take a part of the request target."""
        if len(self.url) + len(url) > self._target_bytes:
            self._refuse(
                Problem(414, "uri_too_long", f"The path and query are longer than {self._target_bytes} bytes.")
            )
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header field."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._limits.header_bytes:
            self._refuse(_headers_too_large(self._limits))
        if len(self.headers) >= self._limits.header_count:
            self._refuse(
                Problem(
                    431, "too_many_headers", f"The request has more than {self._limits.header_count} header fields."
                )
            )
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the app, unless there are too many connections."""
        self._head_is_open = False
        if len(self.connections) > self._limits.connections:
            self._refuse(
                Problem(503, "too_many_connections", "Too many connections; try again.", headers={"Retry-After": "1"})
            )
        super().on_headers_complete()
        self.cycle.transport = cast("asyncio.Transport", self._gentle)

    def _close(self) -> None:
        """Close the connection; while the client is still sending, only after it could read the answer.

        Closing a socket that holds unread bytes makes the kernel send a reset, which may overtake the answer and leave
        the client with "connection reset" in place of the reason. So our side is shut first and the rest is read away.
        """
        is_sending = self._refusal is not None or (self.cycle is not None and self.cycle.more_body)
        if self._is_lingering or not is_sending or self.transport.is_closing() or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._is_lingering = True
        self.transport.write_eof()
        self.flow.resume_reading()
        self._clear_deadline()
        self._deadline = self.loop.call_later(LINGER_S, self.transport.close)

    def _refuse(self, problem: Problem) -> None:
        """Leave the parser: what is raised in a callback comes out of `feed_data`."""
        self._refusal = problem
        raise problem

    def _end(self, problem: Problem) -> None:
        """Answer with the problem, if nothing else is being answered on this connection, and close it."""
        self._refusal = problem
        self._refused.add(problem.code)
        self._clear_deadline()
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_answer(problem))
        self._close()


def _headers_too_large(limits: Limits) -> Problem:
    return Problem(431, "headers_too_large", f"The request's headers are longer than {limits.header_bytes} bytes.")


def _answer(problem: Problem) -> bytes:
    """Render a problem as a whole HTTP answer."""
    body = orjson.dumps(problem.body(uuid4().hex))
    head = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}", "content-type: application/problem+json"]
    head += [f"{name.lower()}: {value}" for name, value in problem.headers.items()]
    head += [f"content-length: {len(body)}", "connection: close", "", ""]
    return "\r\n".join(head).encode("ascii") + body
