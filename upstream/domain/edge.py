"""Whether a change made at a relay counts: who made it, whether they may now, and whether the relay covers it.

A relay is believed about what happened and when, never about who did it: the token's own proof shows that. Permission
is a matter of now, so a token that was revoked since has not killed anything.
"""

from relay.protocol.edge import EdgeChange, Kill, is_proven
from upstream.domain.commands import KillFlag
from upstream.domain.entities import Credential, CredentialKind, Environment, Project
from upstream.domain.errors import Kind, Rejected
from upstream.domain.facts import View
from upstream.domain.lookup import environment_of
from upstream.domain.permissions import Actor


def origin_of(view: View, relay: Credential, change: EdgeChange, proof: str, now_ms: int) -> Actor:
    """Return whoever made the change.

    Raises:
        Rejected: FORBIDDEN: there is no such token, it is not valid any more, or it did not make this change.
    """
    token = view.credential(relay.organisation_id, change.credential)
    if token is None or token.kind is not CredentialKind.TOKEN:
        raise _forbidden("origin_unknown", "The token that this change was made with is not known here.")
    if not token.is_alive(now_ms):
        raise _forbidden("origin_revoked", "The token that this change was made with was revoked or has expired.")
    if not is_proven(token.h2, change, proof):
        raise _forbidden("origin_unproven", "This change was not made with the token that it names.")
    return Actor(
        type="token",
        id=token.id,
        name=token.name,
        organisation_id=token.organisation_id,
        scopes=frozenset(token.scopes),
        projects=None if token.projects is None else frozenset(token.projects),
        via="relay",
    )


def kill_of(view: View, relay: Credential, project: Project, op: Kill, edge_at_ms: int) -> tuple[Environment, KillFlag]:
    """Return what an operation of a relay asks for, and the environment that it is about.

    Raises:
        Rejected: NOT_FOUND; FORBIDDEN where the relay's key does not cover the environment.
    """
    environment = environment_of(view, project, op.environment)
    if not relay.covers(environment):
        raise _forbidden("environment_not_covered", f"The relay's key does not cover {environment.key!r}.")
    command = KillFlag(
        project=project.id, environment=environment.id, flag=op.flag, reason=op.reason, edge_at=edge_at_ms
    )
    return environment, command


def _forbidden(code: str, detail: str) -> Rejected:
    return Rejected(Kind.FORBIDDEN, detail, code=code)
