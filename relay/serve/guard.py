"""The outermost layer of the app: limits on the request line, request ids, default headers, and errors into answers.

Pure ASGI, so that a stream passes through it at the price of one call per message. What it does not know it turns
into a 500 that says nothing, and logs the traceback. Never reads a body; `relay.serve.bodies` does, where the route
is known.
"""

import itertools
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from relay.errors import Problem
from relay.metrics import RelayMetrics
from relay.serve.problems import render
from relay.settings import Limits

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# An id names the process by a random part, which `/status` shows by worker, and the request by a count: unique at a
# tenth of a UUID's price.
PROCESS: Final = secrets.token_hex(4)
request_count = itertools.count(1)

DEFAULT_HEADERS: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))

_ROUTER_PROBLEMS: Final = {
    404: ("not_found", "There is nothing at this path."),
    405: ("method_not_allowed", "This path does not take this method; see the Allow header."),
}


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header field of that lowercase name."""
    for field, value in scope["headers"]:
        if field == name:
            found: bytes = value
            return found
    return None


class Guard:
    """ASGI middleware around a whole app. One may stand around another: what the inner one set is kept."""

    def __init__(self, app: AsgiApp, limits: Limits, metrics: RelayMetrics) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on within the limits, and answer for whatever is raised."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_outermost = "request_id" not in scope.get("state", ())
        request_id = _request_id(scope)
        status = 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, request_id)
            await send(message)

        try:
            check_request_line(scope, self._limits)
            await self._app(scope, receive, send_guarded)
        except ClientDisconnect:
            # Nobody is there to be answered.
            status = status or 499
        except Exception as error:
            if status:
                # The answer has begun; all that is left is to break the connection, which the server does.
                raise
            await self._answer(_as_problem(error, scope, request_id), scope, request_id, send_guarded)
        finally:
            if is_outermost:  # one request is one count, however many apps it passes through
                self._metrics.requests.add(route_class(scope["path"]), str(status))

    async def _answer(self, problem: Problem, scope: Scope, request_id: str, send: Send) -> None:
        headers, body = render(problem, scope, request_id)
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def check_request_line(scope: Scope, limits: Limits) -> None:
    """Raise `Problem` 414 for a path or a query over its limit."""
    raw_path = scope.get("raw_path") or scope["path"].encode()
    if len(raw_path) > limits.path_bytes:
        raise Problem(414, "path_too_long", f"The path is longer than {limits.path_bytes} bytes.")
    if len(scope["query_string"]) > limits.query_bytes:
        raise Problem(414, "query_too_long", f"The query is longer than {limits.query_bytes} bytes.")


def route_class(path: str) -> str:
    """Return the family of routes a path belongs to; never the path itself, which a caller chooses freely."""
    if path.startswith("/ofrep/"):
        return "ofrep"
    if path.startswith("/api/v2/"):
        return "native"
    return "other"


def _request_id(scope: Scope) -> str:
    state = scope.setdefault("state", {})
    found = state.get("request_id")
    if found is None:
        given = header(scope, b"x-request-id")
        is_usable = given is not None and _REQUEST_ID.fullmatch(given)
        found = given.decode() if given and is_usable else f"{PROCESS}-{next(request_count):x}"
        state["request_id"] = found
    return str(found)


def _add_headers(message: Message, request_id: str) -> None:
    headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
    present = {name for name, _ in headers}
    headers += [field for field in DEFAULT_HEADERS if field[0] not in present]
    if b"x-request-id" not in present:
        headers.append((b"x-request-id", request_id.encode()))
    message["headers"] = headers


def _as_problem(error: Exception, scope: Scope, request_id: str) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        code, detail = _ROUTER_PROBLEMS.get(error.status_code, ("refused", str(error.detail)))
        return Problem(error.status_code, code, detail, headers=dict(error.headers or {}))
    logger.error(
        "unexpected error while answering",
        exc_info=error,
        extra={"request_id": request_id, "method": scope["method"], "route": route_class(scope["path"])},
    )
    return Problem(500, "internal_error", f"Something unexpected went wrong; the log has it under {request_id}.")
