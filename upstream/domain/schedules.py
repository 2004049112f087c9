"""Decides about scheduled changes: kept, cancelled, carried out or failed.

What a schedule holds has been tried when it is kept (`deferral`), and is decided anew when its time comes. That it is
done is decided with its commands in one transaction, so it happens once or not at all.
"""

from collections.abc import Sequence
from dataclasses import replace

from relay.clock import rfc3339
from relay.protocol.hashing import canonical
from upstream.domain.actors import recorded
from upstream.domain.entities import Change, JsonObject, Schedule, ScheduleStatus
from upstream.domain.errors import Kind, Problems, Rejected
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.governance_commands import CancelSchedule, CreateSchedule, FailSchedule, RunSchedule
from upstream.domain.lookup import check_version, next_version, project_of, schedule_of

MAX_WAITING = 1_000
"""Scheduled changes that a project may have before it."""
MAX_BYTES = 1 << 20
"""Length as JSON of what one schedule or change request holds: lists of them and the audit log show all of it."""
MAX_AHEAD_MS = 366 * 86_400_000


def create_schedule(command: CreateSchedule, view: View, facts: Facts) -> Decision:
    """Keep commands for later."""
    project = project_of(view, facts, command.project)
    check_run_at(command.run_at, facts)
    check_length(command.commands)
    if view.waiting_schedules(project.id) >= MAX_WAITING:
        detail = f"The project {project.key!r} has {MAX_WAITING} scheduled changes before it; cancel some first."
        raise Rejected(Kind.CONFLICT, detail, code="too_many_schedules")
    schedule = Schedule(
        id=facts.new_id(),
        project_id=project.id,
        commands=tuple(command.commands),
        run_at=command.run_at,
        preview=command.preview,
        status=ScheduleStatus.PENDING,
        actor=recorded(facts.actor),
        reason=command.reason,
        result=None,
        version=1,
        created_at=facts.now_ms,
        updated_at=facts.now_ms,
    )
    return Decision(
        action="schedule.created",
        entity=schedule,
        save=(schedule,),
        changes=(
            Change(path="run_at", before=None, after=rfc3339(schedule.run_at)),
            Change(path="commands", before=None, after=schedule.commands),
        ),
        project_id=project.id,
        reason=command.reason,
    )


def check_length(commands: Sequence[JsonObject]) -> None:
    """Refuse to keep commands that are too long.

    Raises:
        Rejected: INVALID `too_long_to_wait`.
    """
    if len(canonical(commands)) > MAX_BYTES:
        detail = f"What waits for a time or a review has at most {MAX_BYTES:,} bytes; do this in several parts."
        raise Rejected(Kind.INVALID, detail, code="too_long_to_wait")


def check_run_at(run_at: int, facts: Facts) -> None:
    """Refuse a time at which nothing can be carried out.

    Raises:
        Rejected: INVALID.
    """
    problems = Problems()
    if run_at <= facts.now_ms:
        problems.add("schedule_at", "This is not in the future; leave it out to make the change now.")
    elif run_at > facts.now_ms + MAX_AHEAD_MS:
        problems.add("schedule_at", "At most one year ahead can be scheduled.")
    problems.check("The change cannot be scheduled for that time.")


def cancel_schedule(command: CancelSchedule, view: View, facts: Facts) -> Decision:
    """Let go of a schedule."""
    project = project_of(view, facts, command.project)
    schedule = schedule_of(view, project, command.schedule)
    check_version(schedule, command.if_match)
    _check_pending(schedule)
    return _ended("schedule.cancelled", schedule, ScheduleStatus.CANCELLED, facts)


def run_schedule(command: RunSchedule, view: View, facts: Facts) -> Decision:
    """Note that a schedule is carried out; its commands follow in the same transaction (`steps`)."""
    schedule = schedule_of(view, project_of(view, facts, command.project), command.schedule)
    _check_pending(schedule)
    if schedule.run_at > facts.now_ms:
        detail = f"This change is scheduled for {rfc3339(schedule.run_at)}."
        raise Rejected(Kind.CONFLICT, detail, code="schedule_not_due")
    return _ended("schedule.done", schedule, ScheduleStatus.DONE, facts)


def fail_schedule(command: FailSchedule, view: View, facts: Facts) -> Decision:
    """Note why a schedule was not carried out."""
    schedule = schedule_of(view, project_of(view, facts, command.project), command.schedule)
    _check_pending(schedule)
    result = {"code": command.code, "detail": command.detail}
    decision = _ended("schedule.failed", schedule, ScheduleStatus.FAILED, facts, result)
    return replace(decision, reason=command.detail)


def _check_pending(schedule: Schedule) -> None:
    if schedule.status is not ScheduleStatus.PENDING:
        detail = f"This scheduled change is {schedule.status} already."
        raise Rejected(Kind.CONFLICT, detail, code="schedule_not_pending")


def _ended(
    action: str, schedule: Schedule, status: ScheduleStatus, facts: Facts, result: JsonObject | None = None
) -> Decision:
    after = next_version(replace(schedule, status=status, result=result), facts)
    return Decision(
        action=action,
        entity=after,
        save=(after,),
        changes=(Change(path="status", before=str(schedule.status), after=str(status)),),
        project_id=schedule.project_id,
    )
