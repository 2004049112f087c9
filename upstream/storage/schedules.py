"""Scheduled changes in the database: which are due, and carrying one out so that it happens once.

That a schedule is done stands in the transaction of its effect. A process that dies in between leaves it pending; of
two that take up the same one, the row's version lets the first through.
"""

from dataclasses import replace

from sqlalchemy import Connection, func, select, update

from upstream.domain.entities import ScheduleStatus
from upstream.domain.errors import Rejected
from upstream.domain.facts import Entropy, Facts
from upstream.domain.governance_commands import FailSchedule, RunSchedule
from upstream.domain.permissions import system_actor
from upstream.storage import tables
from upstream.storage.transaction import Committed, carry_out

VIA = "schedule"
"""The door that scheduled changes come through, in the audit log."""

_PENDING = tables.schedules.c.status == str(ScheduleStatus.PENDING)


def due(connection: Connection, now_ms: int, *, at_most: int) -> list[str]:
    """Return the ids of the schedules whose time has come, in the order in which they were to run."""
    table = tables.schedules
    query = select(table.c.id).where(_PENDING, table.c.run_at <= now_ms)
    return list(
        connection.execute(query.order_by(table.c.run_at, table.c.created_at, table.c.id).limit(at_most)).scalars()
    )


def next_run_at(connection: Connection) -> int | None:
    """Return when the next schedule is to run."""
    return connection.execute(select(func.min(tables.schedules.c.run_at)).where(_PENDING)).scalar()


def run(connection: Connection, schedule_id: str, now_ms: int, entropy: Entropy) -> Committed | None:
    """Carry out a schedule, or note with what it is refused now; None when it has gone in the meantime.

    Raises:
        Stale: another process was first, or another writer; nothing changed.
    """
    found = _place(connection, schedule_id)
    if found is None:
        return None
    project_id, facts = found[0], Facts(now_ms=now_ms, entropy=entropy, actor=system_actor(found[1], VIA))
    savepoint = connection.begin_nested()
    try:
        done = carry_out(connection, RunSchedule(project=project_id, schedule=schedule_id), facts)
    except Rejected as rejected:
        savepoint.rollback()
        return fail(connection, schedule_id, rejected.code, _sentence(rejected), facts)
    savepoint.commit()
    _note_result(connection, schedule_id, done)
    return done


def fail(connection: Connection, schedule_id: str, code: str, detail: str, facts: Facts) -> Committed | None:
    """Note why a schedule was not carried out; None when it is not pending any more.

    Raises:
        Stale: another process was first; nothing changed.
    """
    found = _place(connection, schedule_id)
    if found is None:
        return None
    its = replace(facts, actor=system_actor(found[1], VIA))
    return carry_out(connection, FailSchedule(project=found[0], schedule=schedule_id, code=code, detail=detail), its)


def _place(connection: Connection, schedule_id: str) -> tuple[str, str] | None:
    """Return the project and the organisation of a schedule that is pending."""
    table, projects = tables.schedules, tables.projects
    query = (
        select(projects.c.id, projects.c.organisation_id)
        .join(table, table.c.project_id == projects.c.id)
        .where(table.c.id == schedule_id, _PENDING)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.id, row.organisation_id)


def _sentence(rejected: Rejected) -> str:
    """Return a refusal in one text, fields included: nobody is there to be answered with them."""
    errors = [f"{path}: {' '.join(sentences)}" for path, sentences in rejected.errors.items()]
    return " ".join((rejected.detail, *errors))


def _note_result(connection: Connection, schedule_id: str, done: Committed) -> None:
    # Known only after its effect; a project that has been deleted has taken the schedule with it.
    own = [entry for entry in done.audits if entry.action == "schedule.done"]
    result = {
        "audit_ids": [entry.id for entry in done.audits if entry not in own],
        "revisions": done.revisions,
    }
    table = tables.schedules
    connection.execute(update(table).where(table.c.id == schedule_id).values(result=result))
