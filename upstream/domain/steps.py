"""The commands that one command stands for, and in whose name each is carried out.

A batch stands for its commands; an approved request and a schedule whose time has come for what they hold, after the
command that ends them. So that all of it is one transaction, the storage carries out the steps one after the other.
"""

from dataclasses import dataclass, replace

from upstream.domain.actors import actor_again
from upstream.domain.command_codec import UnknownCommand, decode
from upstream.domain.commands import Batch, Command
from upstream.domain.entities import ChangeRequest, JsonObject
from upstream.domain.errors import Kind, Rejected
from upstream.domain.facts import Facts, View
from upstream.domain.governance_commands import ApplyRequest, RunSchedule
from upstream.domain.lookup import change_request_of, project_of, schedule_of


@dataclass(frozen=True, slots=True)
class Step:
    """One command, and the circumstances in which it is decided."""

    command: Command
    facts: Facts


def steps(command: Command, view: View, facts: Facts) -> tuple[Step, ...]:
    """Return what is to be carried out for `command`, in order.

    Raises:
        Rejected: what it stands for cannot be found, or was written by another version.
    """
    match command:
        case Batch():
            return tuple(step for each in command.commands for step in steps(each, view, facts))
        case ApplyRequest():
            request = change_request_of(view, project_of(view, facts, command.project), command.request)
            reviewed = replace(facts, is_reviewed=True, note=_note(request))
            return (Step(command, facts), *(Step(decoded(each), reviewed) for each in request.commands))
        case RunSchedule():
            project = project_of(view, facts, command.project)
            schedule = schedule_of(view, project, command.schedule)
            actor = actor_again(schedule.actor, project.organisation_id, view, facts)
            theirs = replace(facts, actor=actor, note=f"Scheduled change {schedule.id}.")
            inner = Batch(commands=tuple(decoded(each) for each in schedule.commands))
            return (Step(command, facts), *steps(inner, view, theirs))
        case _:
            return (Step(command, facts),)


def decoded(kept: JsonObject) -> Command:
    """Return a command that has waited.

    Raises:
        Rejected: CONFLICT where another version wrote it.
    """
    try:
        return decode(kept)
    except UnknownCommand as error:
        detail = f"This was kept by another version of Halyard and cannot be carried out: {error}"
        raise Rejected(Kind.CONFLICT, detail, code="unknown_command") from None


def _note(request: ChangeRequest) -> str:
    approved = [each["by"]["name"] for each in request.reviews if each["verdict"] == "approved"]
    by = f", approved by {', '.join(approved)}" if approved else ""
    return f"Change request {request.id}, proposed by {request.author['name']}{by}."
