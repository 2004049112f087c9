"""Every management request is counted before it costs anything: 429 over the limit, and headers that tell what is left.

`RateLimit-Limit`, `-Remaining` and `-Reset` (seconds) are what clients and gateways read today; the structured fields
that are to follow them have changed their form with each draft. Relays have limits of their own and are not counted.
"""

from typing import Final

from relay.errors import Problem
from relay.serve.guard import AsgiApp, Message, Receive, Scope, Send, header
from upstream.api.authenticator import client_address
from upstream.api.caller import caller_of
from upstream.api.paths import is_of_relays, is_reading
from upstream.api.rate_limit import Count
from upstream.domain.permissions import Actor

_CREDENTIALS: Final = (b"authorization", b"x-api-key")


class Limited:
    """ASGI middleware around the management API."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through what is within the limits."""
        if scope["type"] != "http" or is_of_relays(scope["path"]):
            await self._app(scope, receive, send)
            return
        count = await _counted(scope)
        if count is not None and count.is_over:
            raise _too_many(count)

        async def send_counted(message: Message) -> None:
            if count is not None and message["type"] == "http.response.start":
                fields = [(name.lower().encode(), value.encode()) for name, value in _fields(count).items()]
                message["headers"] = [*message.get("headers", ()), *fields]
            await send(message)

        await self._app(scope, receive, send_counted)


async def _counted(scope: Scope) -> Count | None:
    limits = scope["app"].state.services.requests
    if any(header(scope, name) is not None for name in _CREDENTIALS):
        caller = await caller_of(scope)
        if isinstance(caller, Actor):
            principal = (caller.organisation_id, caller.type, caller.id)
            found: Count | None = limits.of_caller(principal, is_reading=is_reading(scope["method"], scope["path"]))
            return found
    by_address: Count | None = limits.of_address(client_address(scope))
    return by_address


def _too_many(count: Count) -> Problem:
    detail = f"More than {count.limit} requests of this kind in a minute; go on in {count.reset_s} s."
    return Problem(429, "too_many_requests", detail, headers={"Retry-After": str(count.reset_s), **_fields(count)})


def _fields(count: Count) -> dict[str, str]:
    return {
        "RateLimit-Limit": str(count.limit),
        "RateLimit-Remaining": str(count.left),
        "RateLimit-Reset": str(count.reset_s),
    }
