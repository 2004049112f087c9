"""Decides about new keys and tokens. The raw text leaves in the decision, once; only its hashes are stored.

Whatever is made may do no more, reaches no farther and lives no longer than what it was made with. What becomes of a
key afterwards is decided in `credential_changes`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from relay.clock import rfc3339
from relay.protocol.edge import edge_key
from relay.protocol.keys import ENTROPY_BYTES, fingerprint, hint, mint
from upstream.domain.access_commands import (
    CreateKey,
    CreateToken,
)
from upstream.domain.diff import changes_between
from upstream.domain.entities import Credential, CredentialKind
from upstream.domain.errors import Kind, Problems, Rejected
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.lookup import environment_of, project_of, projects_of
from upstream.domain.naming import check_text
from upstream.domain.permissions import BY_SCOPE, SCOPES, Action, actions, may, reaches

ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?")
MAX_ORIGINS = 100
READ_SCOPES = ("flags:read",)
_INVALID = "The key cannot be made like this."
_ONE_ENVIRONMENT = (CredentialKind.SERVER, CredentialKind.CLIENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reach:
    """What a new key is good for."""

    projects: tuple[str, ...] | None = None
    environments: tuple[str, ...] | None = None
    environment_id: str | None = None
    scopes: tuple[str, ...] = READ_SCOPES
    origins: tuple[str, ...] = field(default=())


def create_key(command: CreateKey, view: View, facts: Facts) -> Decision:
    """Make a server, client or relay key, with which everything can be read that its maker may read."""
    _check_may_read(facts)
    problems = Problems()
    origins = checked_origins(problems, command.kind, command.origins)
    if command.kind in _ONE_ENVIRONMENT:
        reach = _environment_reach(problems, command, view, facts)
    elif command.kind is CredentialKind.RELAY:
        reach = _relay_reach(problems, command, view, facts)
    else:
        problems.add("kind", "This must be server, client or relay; tokens are made as tokens.")
        reach = _Reach()
    return _made(problems, command.kind, command.name, command.expires_at, replace(reach, origins=origins), facts)


def create_token(command: CreateToken, view: View, facts: Facts) -> Decision:
    """Make an API token, which may do no more than its maker."""
    problems = Problems()
    if not command.scopes:
        problems.add("scopes", f"Name at least one of: {', '.join(SCOPES)}.")
    for index, scope in enumerate(command.scopes):
        if scope not in BY_SCOPE:
            problems.add(f"scopes[{index}]", f"There is no scope {scope!r}; there are: {', '.join(SCOPES)}.")
        elif not BY_SCOPE[scope] <= actions(facts.actor):
            problems.add(f"scopes[{index}]", f"You cannot give {scope!r}, as you may not do all of that yourself.")
    reach = _Reach(
        projects=projects_of(view, facts, command.projects),
        scopes=tuple(s for s in SCOPES if s in command.scopes),
    )
    return _made(problems, CredentialKind.TOKEN, command.name, command.expires_at, reach, facts)


def _check_may_read(facts: Facts) -> None:
    # A relay key reads every flag and even the environments' secrets, so managing keys alone must not give one.
    if not may(facts.actor, Action.FLAGS_READ):
        detail = f"Keys read flags, so making one needs the permission {Action.FLAGS_READ}."
        raise Rejected(Kind.FORBIDDEN, detail, code="permission_missing", extra={"needed": Action.FLAGS_READ})


def _environment_reach(problems: Problems, command: CreateKey, view: View, facts: Facts) -> _Reach:
    for name in ("projects", "environments"):
        if getattr(command, name) is not None:
            problems.add(name, f"A {command.kind} key belongs to one environment; give `project` and `environment`.")
    if command.project is None or command.environment is None:
        for name in ("project", "environment"):
            if getattr(command, name) is None:
                problems.add(name, f"A {command.kind} key needs its {name}.")
        return _Reach()
    project = project_of(view, facts, command.project)
    environment = environment_of(view, project, command.environment)
    return _Reach(projects=(project.id,), environment_id=environment.id)


def _relay_reach(problems: Problems, command: CreateKey, view: View, facts: Facts) -> _Reach:
    if command.project is not None or command.environment is not None:
        problems.add("projects", "A relay key takes lists: `projects` and `environments`.")
    projects = projects_of(view, facts, command.projects)
    if command.environments is None:
        return _Reach(projects=projects)
    found = [
        _environment_id(problems, f"environments[{i}]", ref, view, facts) for i, ref in enumerate(command.environments)
    ]
    return _Reach(projects=projects, environments=tuple(dict.fromkeys(found)))


def _environment_id(problems: Problems, path: str, reference: str, view: View, facts: Facts) -> str:
    project_reference, slash, environment_reference = reference.partition("/")
    if slash:
        project = project_of(view, facts, project_reference)
        return environment_of(view, project, environment_reference).id
    for project in view.projects(facts.actor.organisation_id):
        if reaches(facts.actor, project.id) and any(each.id == reference for each in view.environments(project.id)):
            return reference
    problems.add(path, f"There is no environment {reference!r}; name it by id or as project/environment.")
    return reference


def checked_origins(problems: Problems, kind: CredentialKind, given: Sequence[str]) -> tuple[str, ...]:
    """Return the origins of a key as they are stored, and note what is wrong with them."""
    if given and kind is not CredentialKind.CLIENT:
        problems.add("origins", "Only client keys have origins; the others never come from a browser.")
    if len(given) > MAX_ORIGINS:
        problems.add("origins", f"A key has at most {MAX_ORIGINS} origins.")
    origins = [origin.lower().rstrip("/") for origin in given]
    for index, origin in enumerate(origins):
        if origin != "*" and ORIGIN.fullmatch(origin) is None:
            problems.add(f"origins[{index}]", "An origin is `*` or like https://app.example.com, without a path.")
    return tuple(dict.fromkeys(origins))


def _made(  # noqa: PLR0913, PLR0917 - each of them is needed
    problems: Problems,
    kind: CredentialKind,
    name: str,
    expires_at: int | None,
    reach: _Reach,
    facts: Facts,
) -> Decision:
    check_text(problems, "name", name)
    expires_at = checked_end(problems, expires_at, facts)
    problems.check(_INVALID)
    raw = mint(kind, facts.entropy.token(ENTROPY_BYTES))
    credential = Credential(
        id=facts.new_id(),
        organisation_id=facts.actor.organisation_id,
        kind=kind,
        name=name,
        hash=fingerprint(raw),
        h2=edge_key(raw),
        hint=hint(raw),
        scopes=reach.scopes,
        projects=reach.projects,
        environments=reach.environments,
        environment_id=reach.environment_id,
        origins=reach.origins,
        expires_at=expires_at,
        last_used_at=None,
        revoked_at=None,
        created_by=facts.actor.id,
        version=1,
        created_at=facts.now_ms,
        updated_at=facts.now_ms,
    )
    return Decision(
        action=f"{word_for(credential)}.created",
        entity=credential,
        save=(credential,),
        changes=changes_between(None, credential),
        project_id=only_project(credential),
        environment_id=reach.environment_id,
        secret=raw,
    )


def checked_end(problems: Problems, expires_at: int | None, facts: Facts) -> int | None:
    """Return when a key expires: never later than the token that it is made with. Notes what is wrong with it."""
    end = facts.actor.expires_at
    if expires_at is None:
        return end
    if expires_at <= facts.now_ms:
        problems.add("expires_at", "This is in the past. Give a later time; to end a key now, revoke it.")
    if end is not None and expires_at > end:
        problems.add("expires_at", f"The token that you use expires at {rfc3339(end)}; nothing it makes lives longer.")
    return expires_at


def word_for(credential: Credential) -> Literal["key", "token"]:
    """Return what people call it."""
    return "token" if credential.kind is CredentialKind.TOKEN else "key"


def only_project(credential: Credential) -> str | None:
    """Return the project that a key belongs to, if it is for one alone."""
    projects = credential.projects
    return projects[0] if projects is not None and len(projects) == 1 else None
