"""`Idempotency-Key`: a write that is sent again is answered as the first time, and has its effect once.

The middleware stands before the routes, so that the repetition of a deletion is not told that there is nothing to
delete: it finds the kept answer, or lets the request through with an `Attempt`, under which `doing` has the effect and
its outcome stored in one transaction. The route's answer takes the outcome's place before it is sent. Where the process
died in between, the repetition goes through the route again, which is given the outcome. Refusals and dry runs are not
kept.
"""

import logging
from functools import partial
from http import HTTPStatus

from fastapi import Request

from relay.errors import Problem
from relay.serve.guard import AsgiApp, Message, Receive, Scope, Send, header
from upstream.api.answers import gone, one
from upstream.api.attempts import REPLAYED, Attempt, checked_key
from upstream.api.body import raw_body
from upstream.api.caller import caller_of
from upstream.api.paths import is_write
from upstream.authority import Outcome
from upstream.domain.permissions import Actor
from upstream.storage import idempotency
from upstream.storage.database import Database, Unavailable
from upstream.storage.idempotency import Claim

logger = logging.getLogger(__name__)


def attempt_of(scope: Scope) -> Attempt | None:
    """Return under which key a request is carried out."""
    found: Attempt | None = scope["state"].get("idempotency")
    return found


async def request_hash(request: Request, attempt: Attempt) -> str:
    """Return what tells requests apart that come with the same key: method, path, query and body."""
    scope = request.scope
    head = f"{scope['method']}\n{scope['path']}\n".encode() + scope["query_string"] + b"\n"
    return attempt.digest(head + await raw_body(request))


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
            await self._answer(attempt, services.database, scope, receive, send)
        finally:
            services.running.let_go(attempt)

    async def _answer(self, attempt: Attempt, database: Database, scope: Scope, receive: Receive, send: Send) -> None:
        found = await database.read(partial(idempotency.kept, principal=attempt.principal, key=attempt.key))
        if found is not None:
            if found.request_hash != await request_hash(Request(scope, receive), attempt):
                detail = "This Idempotency-Key was used for another request; take a new one for each write."
                raise Problem(422, "idempotency_key_reused", detail)
            if found.is_answered:
                await attempt.opened(found)(scope, receive, send)
                return
            attempt.resume(found)
        scope["state"]["idempotency"] = attempt
        held = _Held()
        await self._app(scope, receive, held.send)
        if attempt.outcome is not None:
            await _told_again(held, attempt.outcome, scope, receive)
        if attempt.claim is not None and held.status < HTTPStatus.BAD_REQUEST:
            await _keep(database, attempt, attempt.claim, held)
        for message in held.messages:
            await send(message)


class _Held:
    """An answer that is not sent yet."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = self.messages[0]["headers"]
        return headers

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])


async def _told_again(held: _Held, outcome: Outcome, scope: Scope, receive: Receive) -> None:
    """Say that the answer is a repetition's, and put another in its place where the route cannot give it any more.

    So it is when what the write was about is gone since, by the write itself or by a later one.
    """
    if held.status >= HTTPStatus.BAD_REQUEST:
        status = scope["route"].status_code or HTTPStatus.OK
        response = gone() if status == HTTPStatus.NO_CONTENT else one(outcome.entity, status=status)
        held.messages.clear()
        await response(scope, receive, held.send)
    held.messages[0]["headers"] = [*held.headers, (REPLAYED.lower().encode(), b"true")]


async def _keep(database: Database, attempt: Attempt, claim: Claim, held: _Held) -> None:
    """Put the answer in the place of the outcome from which it was made."""
    response = attempt.sealed(held.headers, held.body)
    try:
        await database.write(partial(idempotency.keep, of=claim, status=held.status, response=response))
    except Unavailable as error:
        # The effect is stored with its outcome, from which a repetition is answered.
        logger.warning("the answer of a write was not kept", extra={"reason": str(error)})


def _principal(actor: Actor) -> str:
    return f"api:{actor.organisation_id}:{actor.type}:{actor.id}"
