"""Who may do what: one table for members' roles and one for keys' scopes, used by every door to the authority.

`Actor` is whoever asks. A scope or role grants actions; `projects` limits them to project ids (None = all of the
organisation). The installation itself (`SYSTEM`) may do everything.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from upstream.domain.entities import Role

ActorType: TypeAlias = Literal["member", "key", "token", "system"]

DOORS: tuple[str, ...] = ("api", "dashboard", "relay", "mcp", "schedule", "cli")
"""Through what a change can come, as the audit names it."""


class Action(StrEnum):
    """What can be permitted."""

    FLAGS_READ = "flags:read"
    FLAGS_WRITE = "flags:write"
    FLAGS_DELETE = "flags:delete"
    PROJECTS_WRITE = "projects:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    MEMBERS_READ = "members:read"
    MEMBERS_WRITE = "members:write"
    AUDIT_READ = "audit:read"
    ORGANISATION_WRITE = "organisation:write"


_READ = frozenset({Action.FLAGS_READ})
_WRITE = _READ | {Action.FLAGS_WRITE}
_DEVELOP = _WRITE | {Action.FLAGS_DELETE, Action.AUDIT_READ, Action.KEYS_READ, Action.MEMBERS_READ}
_ADMINISTER = _DEVELOP | {Action.PROJECTS_WRITE, Action.KEYS_WRITE, Action.MEMBERS_WRITE}

BY_ROLE: Mapping[Role, frozenset[Action]] = {
    Role.VIEWER: _READ | {Action.AUDIT_READ, Action.MEMBERS_READ},
    Role.DEVELOPER: _DEVELOP,
    Role.ADMIN: _ADMINISTER,
    Role.OWNER: _ADMINISTER | {Action.ORGANISATION_WRITE},
}

BY_SCOPE: Mapping[str, frozenset[Action]] = {
    "flags:read": _READ,
    "flags:write": _WRITE,
    "flags:delete": _READ | {Action.FLAGS_DELETE},
    "projects:write": _READ | {Action.PROJECTS_WRITE},
    "keys:write": frozenset({Action.KEYS_READ, Action.KEYS_WRITE}),
    "members:write": frozenset({Action.MEMBERS_READ, Action.MEMBERS_WRITE}),
    "audit:read": frozenset({Action.AUDIT_READ}),
}
SCOPES: tuple[str, ...] = tuple(BY_SCOPE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Whoever asks, through which door (`via`: one of `DOORS`), in which request and from which network address.

    `expires_at` is the end of the token they came with; None for people, and for tokens without an end.
    """

    type: ActorType
    id: str | None
    name: str
    organisation_id: str
    role: Role | None = None
    scopes: frozenset[str] = frozenset()
    projects: frozenset[str] | None = None
    expires_at: int | None = None
    via: str = "api"
    request_id: str | None = None
    address: str | None = None


def system_actor(organisation_id: str = "", via: str = "cli") -> Actor:
    """Return the installation itself, acting on that organisation."""
    return Actor(type="system", id=None, name="system", organisation_id=organisation_id, via=via)


def actions(actor: Actor) -> frozenset[Action]:
    """Return everything that the actor's role and scopes grant."""
    if actor.type == "system":
        return frozenset(Action)
    granted = BY_ROLE[actor.role] if actor.role is not None else frozenset[Action]()
    return granted.union(*(BY_SCOPE.get(scope, frozenset()) for scope in actor.scopes))


def may(actor: Actor, action: Action) -> bool:
    """Tell whether the actor's role or scopes grant `action`, wherever it is."""
    return action in actions(actor)


def reaches(actor: Actor, project_id: str) -> bool:
    """Tell whether the actor is not limited to other projects. The organisation is checked by every lookup."""
    return actor.type == "system" or actor.projects is None or project_id in actor.projects


def contains(actor: Actor, projects: Collection[str] | None) -> bool:
    """Tell whether a member or key that is limited to `projects` (None = not at all) reaches no farther than the actor.

    Who may be limited must never rule over who is not: they would take over what they may not reach themselves.
    """
    if actor.projects is None:
        return True
    return projects is not None and actor.projects.issuperset(projects)
