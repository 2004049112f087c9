"""Who acts when the one who asked is gone: how an actor is kept with what waits, and found again when its time comes.

What somebody may do is a matter of now, so it is never kept. Behind a token stands the person who made it.
"""

from upstream.domain.entities import CredentialKind, JsonObject
from upstream.domain.errors import Kind, Rejected
from upstream.domain.facts import Facts, View
from upstream.domain.permissions import Actor, system_actor

_TOKENS_FOLLOWED = 20


def recorded(actor: Actor) -> dict[str, str | None]:
    """Return an actor as it is kept: who, not what they may do."""
    return {"type": actor.type, "id": actor.id, "name": actor.name}


def person(actor: Actor, view: View) -> str:
    """Return who stands behind an actor: of a token whoever made it, so that nobody approves themselves with one.

    Raises:
        Rejected: FORBIDDEN: too many tokens were made with each other to follow them.
    """
    found = actor.id if actor.id is not None else actor.type
    if actor.type != "token":
        return found
    # A token can make tokens; whoever hides behind many of them is nobody, lest they approve themselves.
    for _ in range(_TOKENS_FOLLOWED):
        token = view.credential(actor.organisation_id, found)
        if token is None or token.created_by is None:
            return found
        found = token.created_by
    detail = (
        f"This token was made by a token, and so on over {_TOKENS_FOLLOWED} tokens: who stands behind it is not clear."
    )
    raise Rejected(Kind.FORBIDDEN, detail, code="person_unknown")


def actor_again(kept: JsonObject, organisation_id: str, view: View, facts: Facts) -> Actor:
    """Return somebody who was kept, with what they may do now.

    Raises:
        Rejected: FORBIDDEN: they are not there any more, or their token has ended.
    """
    via = facts.actor.via
    if kept["type"] == "member":
        member = view.member(organisation_id, kept["id"])
        if member is None:
            raise _gone(f"{kept['name']} is not a member any more.")
        return Actor(
            type="member",
            id=member.id,
            name=member.name or member.email,
            organisation_id=organisation_id,
            role=member.role,
            projects=None if member.projects is None else frozenset(member.projects),
            via=via,
        )
    if kept["type"] == "token":
        token = view.credential(organisation_id, kept["id"])
        if token is None or token.kind is not CredentialKind.TOKEN or not token.is_alive(facts.now_ms):
            raise _gone(f"The token {kept['name']!r} was revoked or has expired.")
        return Actor(
            type="token",
            id=token.id,
            name=token.name,
            organisation_id=organisation_id,
            scopes=frozenset(token.scopes),
            projects=None if token.projects is None else frozenset(token.projects),
            expires_at=token.expires_at,
            via=via,
        )
    if kept["type"] == "system":
        return system_actor(organisation_id, via)
    raise _gone(f"{kept['name']} cannot be found again.")


def _gone(detail: str) -> Rejected:
    return Rejected(Kind.FORBIDDEN, f"{detail} Schedule the change again.", code="actor_gone")
