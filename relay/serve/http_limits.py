"""What a connection may do before a request has reached the app: uvicorn's httptools protocol with limits.

uvicorn itself answers 100,000 headers and a header of 20 MB normally and lets half a request stand for ever (F38).
Here the head of a request has a size, a count and a deadline; who breaks one gets a JSON problem and is cut, after
the requests before it are answered. Bodies are the app's business until it has answered. Nothing is ever written that
answers no request, for a pooled client would take it for the answer to its next one. A request that arrives whole,
which is nearly every one, costs no timer.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast
from uuid import uuid4

import httptools
import orjson
from uvicorn._types import ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from relay.errors import Problem
from relay.metrics import Tally
from relay.serve.holding import HoldingProtocol
from relay.serve.turnstile import Turnstile
from relay.settings import Limits

logger = logging.getLogger(__name__)

# How long a client that is still sending may take to read why it was refused.
LINGER_S = 2.0
# What stands on the request line beside path and query: method, version, separators.
REQUEST_LINE_BYTES = 64
# How long a body may be whose rest is read away after an early answer. The connection ends with the answer to a longer
# one, which says so: a pooled client that was told nothing would send its next request into a closing connection.
ANSWERED_BYTES = 1 << 20


class _GentleTransport:
    """What uvicorn's request cycle sees of the transport: the same, but its close lets the answer be read."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class LimitedProtocol(HoldingProtocol):
    """One connection. `_refusal` is why it is being ended, once it is.

    `cycle` is the request whose head was parsed last; `cycle.more_body` tells whether its body is still to come, even
    when it has been answered. `_fed_bytes` counts what came since the segment in which the last request ended.
    """

    def __init__(  # noqa: PLR0913 - uvicorn's own, and what is ours
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
        refused: Tally,
        turnstile: Turnstile,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop, turnstile=turnstile)
        self._limits = limits
        self._refused = refused
        self._refusal: Problem | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._head_is_open = False
        self._head_bytes = 0
        self._fed_bytes = 0
        self._is_lingering = False
        self._gentle: _GentleTransport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection, which has to say something within the keep-alive time."""
        super().connection_made(transport)
        self._gentle = _GentleTransport(transport, self._close)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _forget(self) -> None:
        self._clear_deadline()
        self._unset_keepalive_if_required()
        self._gentle = None
        super()._forget()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the `on_…` methods; then see what is still open."""
        if self._refusal is not None or self._is_lingering:
            return
        self._fed_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._end(self._refusal or Problem(400, "bad_request", "This is not an HTTP/1.1 request."))
            return
        if self._head_is_open:
            self._watch_head()
        elif self.cycle is None or self.cycle.response_complete:
            # Blank lines, or the rest of a request that is answered. The keep-alive time goes on from the answer.
            if self._fed_bytes > ANSWERED_BYTES:
                self._close()
        else:
            self._unset_keepalive_if_required()

    def _feed(self, data: bytes | memoryview) -> None:
        """Parse; a request that wishes for another protocol is parsed again without its wish.

        After such a head the parser takes neither a body nor its end, and stops.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = memoryview(data)[upgrade.args[0] :]  # a copy for each of many pipelined ones would be quadratic
                head = self._head_without_wish()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
                self.parser.feed_data(head)
            else:
                return

    def _head_without_wish(self) -> bytes:
        """Write the head that was just parsed once more, without the field that makes it a wish."""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _should_upgrade(self) -> bool:
        """Let uvicorn start no request whose head ends in a wish for another protocol; `_feed` parses it again."""
        if self.parser.get_method() == b"CONNECT":
            self._refuse(Problem(400, "bad_request", "This server is no proxy: CONNECT is not answered."))
        return True

    def _watch_head(self) -> None:
        """Give a head that is not complete a deadline and a size."""
        self._unset_keepalive_if_required()
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
        if self._deadline is not None:
            self._clear_deadline()
        if len(self.connections) > self._limits.connections:
            self._refuse(
                Problem(503, "too_many_connections", "Too many connections; try again.", headers={"Retry-After": "1"})
            )
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = cast("asyncio.Transport", self._gentle)
            if any(_may_be_long(*field) for field in self.headers):
                self._end_with_early_answer(self.cycle)

    def _end_with_early_answer(self, cycle: RequestResponseCycle) -> None:
        """Let an answer that comes before the end of the body say `connection: close`."""
        send = cycle.send

        async def send_early(message: ASGISendEvent) -> None:
            if cycle.more_body and not cycle.response_started:
                cycle.keep_alive = False
            await send(message)

        cycle.send = send_early  # type: ignore[method-assign]

    def on_message_complete(self) -> None:
        """Note the end of a request, also of one that has been answered, which uvicorn does not."""
        self._fed_bytes = 0
        if not self.parser.should_upgrade():
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def _close(self) -> None:
        """Close the connection; while the client is still sending, only after it could read the answer.

        Closing a socket that holds unread bytes makes the kernel send a reset, which may overtake the answer and leave
        the client with "connection reset" in place of the reason. So our side is shut first and the rest is read away.
        """
        is_sending = self._refusal is not None or (self.cycle is not None and self.cycle.more_body)
        self._give_up_requests()
        if self._is_lingering or not is_sending or self.transport.is_closing() or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._is_lingering = True
        self.transport.write_eof()
        self.flow.resume_reading()
        self._clear_deadline()
        self._deadline = self.loop.call_later(LINGER_S, self.transport.close)

    def _give_up_requests(self) -> None:
        """Answer nothing that is still open: the transport takes no write after our side is shut.

        Requests are answered in turn, so at most the last one has begun and not ended.
        """
        self.pipeline.clear()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _refuse(self, problem: Problem) -> None:
        """Leave the parser: what is raised in a callback comes out of `feed_data`."""
        self._refusal = problem
        raise problem

    def _end(self, problem: Problem) -> None:
        """Take nothing more, answer what was asked before, then answer with the problem where that can be understood.

        Behind a request that is still being answered only the connection's end tells of the problem.
        """
        self._refusal = problem
        self._refused.add(problem.code)
        self._clear_deadline()
        cycle = self.cycle
        if cycle is not None and cycle.more_body:
            self._break_off_in_turn(problem)
        elif cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False  # uvicorn closes after its answer
        else:
            self.transport.write(_answer(problem))
            self._close()

    def _break_off_in_turn(self, problem: Problem) -> None:
        async def instead_of_the_app(*_: object) -> None:
            self._break_off(problem)

        if self.pipeline:
            self.pipeline[0] = (self.cycle, instead_of_the_app)
        else:
            self._break_off(problem)

    def _break_off(self, problem: Problem) -> None:
        """Answer the request whose body is broken, unless its answer has begun, and close."""
        if not self.cycle.response_started:
            self.transport.write(_answer(problem))
        self._close()


def _may_be_long(name: bytes, value: bytes) -> bool:
    """Tell whether a header field announces a body that may be longer than what is read away after an answer."""
    return name == b"transfer-encoding" or (name == b"content-length" and int(value) > ANSWERED_BYTES)


def _headers_too_large(limits: Limits) -> Problem:
    return Problem(431, "headers_too_large", f"The request's headers are longer than {limits.header_bytes} bytes.")


def _answer(problem: Problem) -> bytes:
    """Render a problem as a whole HTTP answer."""
    body = orjson.dumps(problem.body(uuid4().hex))
    head = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}", "content-type: application/problem+json"]
    head += [f"{name.lower()}: {value}" for name, value in problem.headers.items()]
    head += [f"content-length: {len(body)}", "connection: close", "", ""]
    return "\r\n".join(head).encode("ascii") + body
