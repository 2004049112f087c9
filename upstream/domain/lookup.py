"""Finding what a command is about, or refusing it: unknown things, other projects, stale versions, archived flags."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from relay.protocol.hashing import canonical
from upstream.domain.diff import document
from upstream.domain.entities import (
    ChangeRequest,
    Credential,
    Environment,
    Flag,
    FlagConfig,
    Member,
    Organisation,
    Project,
    Schedule,
    Segment,
)
from upstream.domain.errors import Kind, Rejected, not_found
from upstream.domain.facts import Facts, View
from upstream.domain.naming import is_id
from upstream.domain.permissions import reaches

_SHOWN = 10
Edited = TypeVar(
    "Edited", Organisation, Member, Project, Environment, Flag, FlagConfig, Segment, Credential, Schedule, ChangeRequest
)


def project_of(view: View, facts: Facts, reference: str) -> Project:
    """Return the project that a command names.

    Raises:
        Rejected: NOT_FOUND, also for another organisation's; FORBIDDEN where the actor is limited to other projects.
    """
    project = view.project(facts.actor.organisation_id, reference)
    if project is None:
        raise not_found("project", reference)
    if not reaches(facts.actor, project.id):
        raise Rejected(
            Kind.FORBIDDEN,
            f"This key or member may not use the project {project.key!r}.",
            code="wrong_project",
        )
    return project


def projects_of(view: View, facts: Facts, references: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the ids of the projects that a list names; None (= all) stays None where the actor is not limited.

    What comes back is always within the actor's own projects.

    Raises:
        Rejected: as `project_of`.
    """
    if references is None:
        limit = facts.actor.projects
        return None if limit is None else tuple(sorted(limit))
    return tuple(dict.fromkeys(project_of(view, facts, reference).id for reference in references))


def environment_of(view: View, project: Project, reference: str) -> Environment:
    """Return the environment that a command names.

    Raises:
        Rejected: NOT_FOUND.
    """
    for environment in view.environments(project.id):
        if reference in (environment.id, environment.key):
            return environment
    raise not_found("environment", reference)


def flag_of(view: View, project: Project, reference: str) -> Flag:
    """Return the flag that a command names, archived or not.

    Raises:
        Rejected: NOT_FOUND.
    """
    flag = view.flag(project.id, reference)
    if flag is None:
        raise not_found("flag", reference)
    return flag


def live_flag_of(view: View, project: Project, reference: str) -> Flag:
    """Return the flag that a command is going to change.

    Raises:
        Rejected: NOT_FOUND; CONFLICT for an archived flag.
    """
    flag = flag_of(view, project, reference)
    if flag.archived_at is not None:
        raise Rejected(Kind.CONFLICT, f"The flag {flag.key!r} is archived; restore it first.", code="flag_archived")
    return flag


def segment_of(view: View, project: Project, reference: str) -> Segment:
    """Return the segment that a command names.

    Raises:
        Rejected: NOT_FOUND.
    """
    segment = view.segment(project.id, reference)
    if segment is None:
        raise not_found("segment", reference)
    return segment


def schedule_of(view: View, project: Project, reference: str) -> Schedule:
    """Return the scheduled change that a command names.

    Raises:
        Rejected: NOT_FOUND.
    """
    schedule = view.schedule(project.id, reference) if is_id(reference) else None
    if schedule is None:
        raise not_found("schedule", reference)
    return schedule


def change_request_of(view: View, project: Project, reference: str) -> ChangeRequest:
    """Return the change request that a command names.

    Raises:
        Rejected: NOT_FOUND.
    """
    request = view.change_request(project.id, reference) if is_id(reference) else None
    if request is None:
        raise not_found("change request", reference)
    return request


def check_version(entity: Edited, if_match: int | None) -> None:
    """Refuse a command whose author saw another version.

    Raises:
        Rejected: PRECONDITION with both sides.
    """
    if if_match is not None and if_match != entity.version:
        detail = f"You changed version {if_match}, but it is at version {entity.version} now."
        raise Rejected(Kind.PRECONDITION, detail, code="version_conflict", expected=if_match, current=entity)


def is_changed(before: Edited, after: Edited) -> bool:
    """Tell whether a command made a difference; values are compared as the JSON that is stored."""
    return canonical(document(before)) != canonical(document(after))


def next_version(entity: Edited, facts: Facts) -> Edited:
    """Return the entity as the next version of itself."""
    return replace(entity, version=entity.version + 1, updated_at=facts.now_ms)


def forced_or_free(users: Iterable[str], thing: str, *, force: bool) -> None:
    """Refuse to take away what others need, unless forced.

    Raises:
        Rejected: CONFLICT with the list.
    """
    listed = list(users)
    if listed and not force:
        shown = ", ".join(listed[:_SHOWN]) + (" …" if len(listed) > _SHOWN else "")
        detail = f"The {thing} is needed by {shown}; force it to go on."
        raise Rejected(Kind.CONFLICT, detail, code="in_use", extra={"used_by": listed})
