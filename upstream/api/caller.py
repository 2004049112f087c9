"""Who asks, and whether they may: the first thing that every management route checks.

`permitted(action)` is a FastAPI dependency that answers 401 or 403 before a body is read or a resource is looked up.
Routes annotate their caller with one of the aliases below, so that a route's permission stands in its signature.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from relay.errors import Problem
from relay.serve.guard import Scope
from upstream.api.authenticator import SignInId, client_address, member_actor
from upstream.api.services import services_of
from upstream.domain.entities import Member
from upstream.domain.permissions import Action, Actor, may


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who has signed in, and the sign-in that they use."""

    member: Member
    sign_in: SignInId
    actor: Actor


async def signed_in(request: Request) -> Actor:
    """Return whoever sent the request.

    Raises:
        Problem: 401 without a valid credential, 403 for one that does not open the management API.
    """
    caller = await caller_of(request.scope)
    if isinstance(caller, Problem):
        raise caller
    return caller


async def caller_of(scope: Scope) -> Actor | Problem:
    """Return whoever sent the request, or with what they are refused; found out once a request."""
    state = scope["state"]
    if "caller" not in state:
        try:
            state["caller"] = await scope["app"].state.services.authenticator.authenticate(scope)
        except Problem as problem:
            state["caller"] = problem
    found: Actor | Problem = state["caller"]
    return found


async def person(request: Request) -> Person:
    """Return who sent the request, which must be a person.

    Raises:
        Problem: 401 without a valid credential, 403 for one that is no person's.
    """
    member, sign_in = await services_of(request).authenticator.member(request.scope)
    return Person(member, sign_in, member_actor(member, request.scope))


async def address_of(request: Request) -> str:
    """Return where a request comes from, by which attempts are limited."""
    return client_address(request.scope) or ""


def permitted(action: Action) -> Callable[[Request], Awaitable[Actor]]:
    """Return the dependency that lets pass those who may do `action`."""

    async def check(request: Request) -> Actor:
        actor = await signed_in(request)
        if not may(actor, action):
            services_of(request).authenticator.note_refusal(request.scope, actor, f"lacks {action}")
            raise Problem(403, "permission_denied", f"This needs the permission {action}, which {_who(actor)} lacks.")
        return actor

    return check


def _who(actor: Actor) -> str:
    return f"the role {actor.role}" if actor.role is not None else "this token"


SignedIn = Annotated[Actor, Depends(signed_in)]
Myself = Annotated[Person, Depends(person)]
Address = Annotated[str, Depends(address_of)]
FlagReader = Annotated[Actor, Depends(permitted(Action.FLAGS_READ))]
FlagWriter = Annotated[Actor, Depends(permitted(Action.FLAGS_WRITE))]
FlagRemover = Annotated[Actor, Depends(permitted(Action.FLAGS_DELETE))]
ProjectWriter = Annotated[Actor, Depends(permitted(Action.PROJECTS_WRITE))]
KeyReader = Annotated[Actor, Depends(permitted(Action.KEYS_READ))]
KeyWriter = Annotated[Actor, Depends(permitted(Action.KEYS_WRITE))]
MemberReader = Annotated[Actor, Depends(permitted(Action.MEMBERS_READ))]
MemberWriter = Annotated[Actor, Depends(permitted(Action.MEMBERS_WRITE))]
AuditReader = Annotated[Actor, Depends(permitted(Action.AUDIT_READ))]
OrganisationWriter = Annotated[Actor, Depends(permitted(Action.ORGANISATION_WRITE))]
