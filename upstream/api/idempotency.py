"""`Idempotency-Key`: a write that is sent again is answered as the first time, and has its effect once.

The middleware stands before the routes, so that the repetition of a deletion is not told that there is nothing to
delete: it finds the kept answer, or lets the request through with an `Attempt`, under which `doing` has effect and
answer stored in one transaction. Refusals and dry runs are not kept.
"""

import logging
from functools import partial
from hashlib import sha256
from http import HTTPStatus

from fastapi import Request, Response

from relay.errors import Problem
from relay.serve.guard import AsgiApp, Message, Receive, Scope, Send, header
from upstream.api.attempts import Attempt, checked_key, plain_answer
from upstream.api.body import raw_body
from upstream.api.caller import caller_of
from upstream.api.paths import is_write
from upstream.domain.permissions import Actor
from upstream.storage import idempotency
from upstream.storage.database import Database, Unavailable
from upstream.storage.idempotency import Claim, Kept

logger = logging.getLogger(__name__)


def attempt_of(scope: Scope) -> Attempt | None:
    """Return under which key a request is carried out."""
    found: Attempt | None = scope["state"].get("idempotency")
    return found


async def request_hash(request: Request) -> str:
    """Return what tells requests apart that come with the same key: method, path, query and body."""
    scope = request.scope
    head = f"{scope['method']}\n{scope['path']}\n".encode() + scope["query_string"] + b"\n"
    return sha256(head + await raw_body(request)).hexdigest()


class Idempotency:
    """ASGI middleware around the routes of the management API."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a repetition, and let through everything else."""
        raw = header(scope, b"idempotency-key") if scope["type"] == "http" and is_write(scope) else None
        caller = None if raw is None else await caller_of(scope)
        if raw is None or not isinstance(caller, Actor):
            await self._app(scope, receive, send)
            return
        services = scope["app"].state.services
        attempt = Attempt(_principal(caller), checked_key(raw))
        services.running.take(attempt)
        try:
            found = await services.database.read(
                partial(idempotency.kept, principal=attempt.principal, key=attempt.key)
            )
            if found is not None:
                response = await _replayed(Request(scope, receive), attempt, found)
                await response(scope, receive, send)
                return
            scope["state"]["idempotency"] = attempt
            await self._carried_out(scope, receive, send, services.database)
        finally:
            services.running.let_go(attempt)

    async def _carried_out(self, scope: Scope, receive: Receive, send: Send, database: Database) -> None:
        """Let the routes answer, and keep their answer before it is sent."""
        messages: list[Message] = []

        async def hold(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, hold)
        attempt: Attempt = scope["state"]["idempotency"]
        if attempt.claim is not None and attempt.kept is not None:
            await _keep(database, attempt, attempt.claim, messages)
        for message in messages:
            await send(message)


def _principal(actor: Actor) -> str:
    return f"api:{actor.organisation_id}:{actor.type}:{actor.id}"


async def _replayed(request: Request, attempt: Attempt, found: Kept) -> Response:
    if found.request_hash != await request_hash(request):
        detail = "This Idempotency-Key was used for another request; take a new one for each write."
        raise Problem(422, "idempotency_key_reused", detail)
    return attempt.opened(found)


async def _keep(database: Database, attempt: Attempt, claim: Claim, messages: list[Message]) -> None:
    """Put the answer of the route in the place of the one that was made with the write, if it is another one."""
    start = messages[0]
    plain = plain_answer(start["headers"], b"".join(message.get("body", b"") for message in messages[1:]))
    if start["status"] >= HTTPStatus.BAD_REQUEST or (start["status"], plain) == attempt.kept:
        return
    work = partial(idempotency.keep, of=claim, status=start["status"], response=attempt.sealed(plain))
    try:
        await database.write(work)
    except Unavailable as error:
        # The effect and its first answer are stored; a repetition gets that one.
        logger.warning("the answer of a write was not kept", extra={"reason": str(error)})
