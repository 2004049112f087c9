"""`POST /changes`: a relay hands over what was done at it while the upstream may have been away.

Takes relay keys only, checked before the body is read. Whether the change counts is decided by the token that it was
made with, as it is now. The answer names, for each environment, the revision from which on it contains the change, and
the flags that stay on because they were switched on after the kill (`superseded`).
"""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from relay.clock import rfc3339
from relay.protocol.edge import EdgeChange, Kill
from relay.protocol.keys import Kind
from relay.serve.access import Access, Grant
from relay.serve.guard import Scope
from upstream.api.authenticator import client_address
from upstream.api.body import Body, JsonBody, Moment
from upstream.api.services import Served
from upstream.storage.edge import Delivery

TAKES: Final = frozenset({Kind.RELAY})
MAX_OPS: Final = 100

Reference = Annotated[str, Field(min_length=1, max_length=200)]


class KillOp(Body):
    """A flag that was switched off; each part is an id or a key."""

    op: Literal["kill"]
    project: Reference
    environment: Reference
    flag: Reference
    reason: str | None = Field(default=None, max_length=1_000)

    def kill(self) -> Kill:
        """Return it as the protocol has it."""
        return Kill(project=self.project, environment=self.environment, flag=self.flag, reason=self.reason)


class OriginBody(Body):
    """Where, when and with which token; `proof` is the token's keyed hash over all the rest."""

    relay: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    at: Moment
    credential: Reference
    proof: str = Field(pattern=r"^[0-9a-f]{64}$")


class ChangeBody(Body):
    """What was done, in order; all of it counts or nothing does."""

    idempotency_key: str = Field(pattern=r"^[A-Za-z0-9_.-]{8,128}$")
    ops: list[KillOp] = Field(min_length=1, max_length=MAX_OPS)
    origin: OriginBody

    def delivery(self, credential_id: str, scope: Scope) -> Delivery:
        """Return it as the authority takes it."""
        change = EdgeChange(
            idempotency_key=self.idempotency_key,
            ops=tuple(op.kill() for op in self.ops),
            relay=self.origin.relay,
            at=rfc3339(self.origin.at),
            credential=self.origin.credential,
        )
        return Delivery(
            change=change,
            proof=self.origin.proof,
            credential_id=credential_id,
            request_id=scope["state"].get("request_id"),
            address=client_address(scope),
        )


def router(access: Access) -> APIRouter:
    """Return the route, working with the given authenticator."""
    routes = APIRouter()

    async def relay(request: Request) -> Grant:
        return access.authenticate(request.scope, kinds=TAKES)

    @routes.post("/changes", tags=["relays"], summary="Take a change that was made at a relay")
    async def take(
        request: Request,
        grant: Annotated[Grant, Depends(relay)],
        body: Annotated[ChangeBody, Depends(JsonBody(ChangeBody))],
        services: Served,
    ) -> dict[str, Any]:
        """Carry out a kill that took effect at a relay already; once, however often it is handed over."""
        taken = await services.authority.take_from_edge(body.delivery(grant.credential.id, request.scope))
        return {"epoch": taken.epoch, "revisions": taken.answer.revisions, "superseded": taken.answer.superseded}

    return routes
