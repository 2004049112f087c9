"""Which commands can wait for a time or for a review, and in what form they are kept.

Kept commands name things by id, since a key may come to mean another thing while they wait. What gives a secret to
whoever asked, or is about signing in, never waits: nobody would be there to take it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

from upstream.domain import governance_commands as g
from upstream.domain.commands import Batch, Command
from upstream.domain.decide import DECIDERS
from upstream.domain.entities import Project
from upstream.domain.errors import Kind, Rejected
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.permissions import Action

_WAITING_PERMITTED = (Action.FLAGS_WRITE, Action.FLAGS_DELETE, Action.PROJECTS_WRITE)
_NEVER = (
    g.CreateSchedule,
    g.CancelSchedule,
    g.RunSchedule,
    g.FailSchedule,
    g.ProposeChange,
    g.AmendRequest,
    g.UpdateRequest,
    g.ReviewRequest,
    g.WithdrawRequest,
)
_ONE_PROJECT = "Only changes within one project that is there already can be scheduled or proposed."
_FLAGS = ("flag",)
_PROJECTS = ("into",)
_SEGMENTS = ("segment",)
_ENVIRONMENTS = ("environment", "environments", "source")


def flattened(command: Command) -> tuple[Command, ...]:
    """Return a command as the single ones that it is made of."""
    if isinstance(command, Batch):
        return tuple(each for inner in command.commands for each in flattened(inner))
    return (command,)


def check_can_wait(commands: Iterable[Command], *, for_review: bool) -> None:
    """Refuse commands that are carried out at once or not at all.

    Raises:
        Rejected: INVALID `cannot_wait`.
    """
    for command in commands:
        needed, _ = DECIDERS[type(command)]
        is_application = for_review and isinstance(command, g.ApplyRequest)
        if needed not in _WAITING_PERMITTED or isinstance(command, _NEVER) or is_application:
            raise _cannot_wait("This cannot be scheduled or proposed: it is done at once or not at all.")


def project_named(commands: Sequence[Command]) -> str:
    """Return the project that commands name, by id or key.

    Raises:
        Rejected: INVALID `cannot_wait`: they name none.
    """
    named = next((getattr(each, "project", None) for each in commands), None)
    if not isinstance(named, str):
        raise _cannot_wait(_ONE_PROJECT)
    return named


def project_concerned(commands: Sequence[Command], decisions: Sequence[Decision], view: View, facts: Facts) -> Project:
    """Return the one project that these commands, and the decisions that have been taken back, are about.

    Raises:
        Rejected: INVALID `cannot_wait`: there is none, or it is not there yet, or a secret came of it.
    """
    if any(each.secret is not None for each in decisions):
        raise _cannot_wait("What answers with a secret cannot be scheduled or proposed.")
    organisation_id = facts.actor.organisation_id
    ids = {each.project_id for each in decisions}
    found = view.project(organisation_id, ids.pop() or "") if len(ids) == 1 else None
    # A copy into another project is about that one alone, but rests on what is held, and bound, by nobody there.
    named = {project_named([each]) for each in commands}
    if found is None or any(view.project(organisation_id, each) != found for each in named):
        raise _cannot_wait(_ONE_PROJECT)
    return found


def _cannot_wait(detail: str) -> Rejected:
    return Rejected(Kind.INVALID, detail, code="cannot_wait")


def pinned(command: Command, project: Project, view: View) -> Command:
    """Return a command with ids for the keys that name something now; what is not there yet keeps its key."""
    changed: dict[str, Any] = {}
    for field in fields(command):
        find = _finding(field.name, project, view)
        value = getattr(command, field.name)
        if field.name == "project":
            changed["project"] = project.id
        elif find is not None and isinstance(value, str):
            changed[field.name] = find(value)
        elif find is not None and isinstance(value, list | tuple):
            changed[field.name] = tuple(find(each) if isinstance(each, str) else each for each in value)
    return replace(command, **changed)


def _finding(name: str, project: Project, view: View) -> Callable[[str], str] | None:
    if name in _FLAGS:
        return lambda reference: _id(view.flag(project.id, reference), reference)
    if name in _PROJECTS:
        return lambda reference: _id(view.project(project.organisation_id, reference), reference)
    if name in _SEGMENTS:
        return lambda reference: _id(view.segment(project.id, reference), reference)
    if name in _ENVIRONMENTS:
        known = {each.key: each.id for each in view.environments(project.id)}
        return lambda reference: known.get(reference, reference)
    return None


def _id(found: Any, reference: str) -> str:
    return reference if found is None else str(found.id)


def without_versions(command: Command) -> Command:
    """Return a command that does not say which version its author saw: the request is bound to it already."""
    # Which commands have that field is known when they run only.
    changed: dict[str, Any] = {"if_match": None} if expects_version(command) else {}
    return replace(command, **changed)


def expects_version(command: Command) -> bool:
    """Tell whether a command names the version that its author saw."""
    return getattr(command, "if_match", None) is not None
