"""The two ways into a client stream: `GET ?context=<base64url JSON>` for `EventSource`, `POST {context}` for the rest.

Decides everything that can be refused, so that nothing is begun which is not to be; what a stream then does is
`relay.serve.client_stream`.
"""

import binascii
from base64 import urlsafe_b64decode

from relay.errors import Problem
from relay.serve.answers import Context
from relay.serve.bodies import check_members, parse_json, read_body
from relay.serve.client_stream import ClientStream
from relay.serve.flags_api import CONTEXT, chosen
from relay.serve.guard import Receive, Scope, Send
from relay.serve.kept_context import KeptContext
from relay.serve.query import parameter
from relay.serve.services import Services


class ClientStreamRoute:
    """ASGI app of `GET /api/v2/client/stream?context=<base64url JSON>` and of `POST` with `{context}`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open a client stream."""
        # Made apart, so that the request's body is not held here for as long as the stream lives.
        stream = await self._stream(scope, receive)
        await self._services.streams.serve(stream, scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive) -> ClientStream:
        services = self._services
        held = services.access.authenticate(scope, key_in_query=True)
        services.streams.admit(held.fingerprint)
        limits = services.settings.limits
        if scope["method"] == "POST":
            raw = await read_body(scope, receive, limits.context_bytes, limits.body_s)
            body = check_members(parse_json(raw, limits), CONTEXT)
        else:
            body = {"context": self._context_in_query(scope)}
        context = KeptContext(body["context"], services.settings.streams.context_bytes)
        grant, configuration = chosen(services, held, scope, body)
        return ClientStream(
            grant,
            configuration=configuration,
            context=context,
            ledger=services.ledger,
            settings=services.settings.streams,
            clock=services.clock,
        )

    def _context_in_query(self, scope: Scope) -> Context:
        text = parameter(scope, "context")
        if text is None:
            raise _bad_context("is required: base64url of a JSON object, such as e30 for {}")
        try:
            raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        except (ValueError, binascii.Error):
            raise _bad_context("is not base64url") from None
        context = parse_json(raw, self._services.settings.limits)
        if not isinstance(context, dict):
            raise _bad_context("must be a JSON object")
        return context


def _bad_context(fault: str) -> Problem:
    return Problem(422, "invalid_context", f"The query parameter context {fault}.", errors={"context": [fault]})
