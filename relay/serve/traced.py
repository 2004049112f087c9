"""One server span for each request that goes through the app, where tracing is configured.

Stands outside of everything else. The span is called by the route's template, never by the path; it carries method,
route and status, and nothing of what a caller chose. A stream's span ends when the stream is open. What is answered
without the app, as evaluations in the hot lane are, has no span.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from starlette.routing import BaseRoute, Route

from relay.serve.guard import AsgiApp, Message, Receive, Scope, Send
from relay.telemetry import Span, Tracing

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
SERVER_ERROR = 500
EVENT_STREAM = b"text/event-stream; charset=utf-8"

Template = tuple[re.Pattern[str], str]


def templates(table: Sequence[BaseRoute]) -> list[Template]:
    """Return the patterns of these routes, each with its template: `/ofrep/v1/evaluate/flags/{key}`."""
    return [(each.path_regex, each.path.replace(":path}", "}")) for each in table if isinstance(each, Route)]


class Traced:
    """ASGI middleware around a whole app."""

    def __init__(self, app: AsgiApp, tracing: Tracing, known: Sequence[Template]) -> None:
        self._app = app
        self._tracing = tracing
        self._templates = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on within a span."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # A method that HTTP does not know is a text of the caller's, too.
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        route = next((path for pattern, path in self._templates if pattern.match(scope["path"])), None)
        attributes = {"http.request.method": method} | ({} if route is None else {"http.route": route})
        name = method if route is None else f"{method} {route}"
        with ExitStack() as stack:
            span = stack.enter_context(self._tracing.span(name, attributes, kind="server", caller=_caller(scope)))
            await self._app(scope, receive, _noting(span, stack.close, send))


def _caller(scope: Scope) -> dict[str, str]:
    """Return the headers that say whose request this is part of."""
    return {
        name.decode(): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in {b"traceparent", b"tracestate"}
    }


def _noting(span: Span, end: Callable[[], None], send: Send) -> Send:
    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            span.note("http.response.status_code", message["status"])
            if message["status"] >= SERVER_ERROR:
                span.fail("server_error")
            if (b"content-type", EVENT_STREAM) in message["headers"]:
                end()
        await send(message)

    return noting
