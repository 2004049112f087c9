"""Commands that are kept for later: tried now, in a savepoint that is taken back, and stored in the same transaction.

What is tried is seen by nobody and leaves nothing; what is stored is exactly what was tried. The project is held from
before the trial on: taking a savepoint back lets go of the locks that were taken in it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import orjson
from sqlalchemy import Connection

from upstream.domain.affected import Affected, affected_by, changes_by_thing
from upstream.domain.bindings import bound_by
from upstream.domain.command_codec import encode
from upstream.domain.commands import Batch, Command
from upstream.domain.deferral import (
    check_can_wait,
    expects_version,
    flattened,
    pinned,
    project_concerned,
    project_named,
    without_versions,
)
from upstream.domain.entities import JsonObject
from upstream.domain.facts import Facts
from upstream.domain.governance_commands import AmendRequest, CreateSchedule, ProposeChange
from upstream.domain.requests import check_author, waiting_request_of
from upstream.domain.schedules import check_run_at
from upstream.domain.steps import decoded
from upstream.storage.locks import lock_for
from upstream.storage.transaction import Committed, carry_out
from upstream.storage.view import StoredView


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a command would do, and who would feel it."""

    done: Committed
    changes: Sequence[JsonObject]
    affected: Affected

    def shown(self) -> JsonObject:
        """Return it as plain JSON, as it is answered and kept."""
        decisions, report = self.done.decisions, self.done.decision.report
        shown = {
            "changes": self.changes if report is None else [],
            "warnings": [asdict(notice) for each in decisions for notice in each.warnings],
            "affected": asdict(self.affected),
            # In the place of changes an import tells its plan, thing by thing.
            **(report or {}),
        }
        plain: JsonObject = orjson.loads(orjson.dumps(shown))
        return plain


def rehearse(connection: Connection, command: Command, facts: Facts) -> Rehearsal:
    """Carry out a command and take it back.

    Raises:
        Rejected: it would be refused.
        Stale: another transaction came first.
    """
    savepoint = connection.begin_nested()
    try:
        done = carry_out(connection, command, facts)
        view = StoredView(connection)
        return Rehearsal(done, changes_by_thing(done.decisions, view), affected_by(done.decisions, view))
    finally:
        savepoint.rollback()


def schedule(connection: Connection, command: Command, run_at: int, facts: Facts) -> Committed:
    """Keep a command until `run_at`.

    Raises:
        Rejected: it cannot wait, or would be refused now.
        Stale: another transaction came first.
    """
    commands = flattened(command)
    check_can_wait(commands, for_review=False)
    check_run_at(run_at, facts)
    _hold_project(connection, commands, facts)
    rehearsal = rehearse(connection, command, facts)
    view = StoredView(connection)
    project = project_concerned(commands, rehearsal.done.decisions, view, facts)
    keeping = CreateSchedule(
        project=project.id,
        commands=[encode(pinned(each, project, view)) for each in commands],
        run_at=run_at,
        preview=rehearsal.shown(),
        reason=next((reason for each in commands if (reason := getattr(each, "reason", None))), None),
    )
    return carry_out(connection, keeping, facts)


def propose(connection: Connection, command: Command, title: str, facts: Facts) -> Committed:
    """Open a change request with a command.

    Raises:
        Rejected: it cannot wait, or would be refused even if it were approved.
        Stale: another transaction came first.
    """
    commands = flattened(command)
    check_can_wait(commands, for_review=True)
    _hold_project(connection, commands, facts)
    rehearsal = rehearse(connection, command, replace(facts, is_reviewed=True))
    view = StoredView(connection)
    project = project_concerned(commands, rehearsal.done.decisions, view, facts)
    proposing = ProposeChange(
        project=project.id,
        title=title,
        commands=[encode(without_versions(pinned(each, project, view))) for each in commands],
        bound=bound_by(rehearsal.done.decisions, view),
        preview=rehearsal.shown(),
    )
    return carry_out(connection, proposing, facts)


def propose_to(connection: Connection, command: Command, request_id: str, facts: Facts) -> Committed:
    """Add a command to a change request; all of it is tried together.

    Raises:
        Rejected: it cannot wait, or the whole would be refused even if it were approved.
        Stale: another transaction came first.
    """
    commands = flattened(command)
    check_can_wait(commands, for_review=True)
    _hold_project(connection, commands, facts)
    view, reviewed = StoredView(connection), replace(facts, is_reviewed=True)
    request = waiting_request_of(view, facts, project_named(commands), request_id)
    check_author(request, view, facts)
    if any(expects_version(each) for each in commands):
        # The version that the author saw is the stored one, not what the request's other commands would leave.
        rehearse(connection, command, reviewed)
    before = [decoded(each) for each in request.commands]
    whole = Batch(commands=(*before, *(without_versions(each) for each in commands)))
    rehearsal = rehearse(connection, whole, reviewed)
    project = project_concerned(commands, rehearsal.done.decisions, view, facts)
    added = [encode(without_versions(pinned(each, project, view))) for each in commands]
    amending = AmendRequest(
        project=project.id,
        request=request.id,
        commands=(*request.commands, *added),
        bound=bound_by(rehearsal.done.decisions, view),
        preview=rehearsal.shown(),
    )
    return carry_out(connection, amending, facts)


def _hold_project(connection: Connection, commands: Sequence[Command], facts: Facts) -> None:
    """Let nobody else change the project until this transaction ends (`storage.locks`)."""
    named = project_named(commands)
    lock_for(connection, Batch(commands=commands), facts)
    StoredView(connection, is_deciding=True).project(facts.actor.organisation_id, named)
