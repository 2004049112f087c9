"""Cross-origin requests: which browser pages may read an answer.

A preflight carries no key, so it is allowed for every origin that any client key lists; the request itself is then
checked against its own key (`relay.serve.access`), which leaves the origin in the request's state. Credentials in the
browser's sense (cookies) are never allowed. Touches nothing of a request without an `Origin` header.
"""

from http import HTTPStatus
from typing import Final

from relay.serve.access import Access
from relay.serve.guard import AsgiApp, Message, Receive, Scope, Send, header

_PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"GET, POST"),
    (
        b"access-control-allow-headers",
        b"authorization, content-type, if-none-match, cache-control, x-api-key, last-event-id",
    ),
    (b"access-control-max-age", b"600"),
)
_EXPOSED: Final = (b"access-control-expose-headers", b"ETag, Retry-After, X-Request-Id")
_VARY: Final = (b"vary", b"Origin")


class Cors:
    """ASGI middleware; needs the request state that `Guard` makes."""

    def __init__(self, app: AsgiApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or pass the request on and say who may read the answer."""
        given = header(scope, b"origin") if scope["type"] == "http" else None
        if given is None:
            await self._app(scope, receive, send)
            return
        origin = given.decode("latin-1")
        scope.setdefault("state", {})
        if scope["method"] == "OPTIONS" and header(scope, b"access-control-request-method") is not None:
            await self._preflight(origin, send)
            return

        async def send_shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), _VARY]
                if (reader := self._reader(scope, origin, message["status"])) is not None:
                    headers += [(b"access-control-allow-origin", reader.encode("latin-1")), _EXPOSED]
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, send_shared)

    def _reader(self, scope: Scope, origin: str, status: int) -> str | None:
        """Return the origin that may read an answer, if any."""
        if "shared_with" in scope["state"]:
            decided: str | None = scope["state"]["shared_with"]
            return decided
        # No key has spoken. A refusal may be read by whom a preflight let through, or the page would see no reason.
        return origin if status >= HTTPStatus.BAD_REQUEST and self._access.allows_preflight(origin) else None

    async def _preflight(self, origin: str, send: Send) -> None:
        headers = [_VARY]
        if self._access.allows_preflight(origin):
            headers += [(b"access-control-allow-origin", origin.encode("latin-1")), *_PREFLIGHT]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
