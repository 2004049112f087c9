"""One command, one transaction: decide, write the entities, end sign-ins, publish, write audit entry and history.

Everything happens on the one connection that it is given; whoever gives it commits or rolls back as a whole, so that a
fault anywhere leaves nothing behind (no entity without its audit entry, no revision without its change set).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, insert, update

from upstream.domain.audit_names import name_of, type_of_target
from upstream.domain.bindings import first_hit, touched_by
from upstream.domain.commands import Command
from upstream.domain.decide import decide
from upstream.domain.entities import AuditEntry, Entity, FlagConfig, Organisation
from upstream.domain.facts import Decision, Facts
from upstream.domain.requests import voided_by
from upstream.domain.steps import steps
from upstream.storage import tables
from upstream.storage.drafts import Drafts, drafts_of, drafts_of_expired, still_there
from upstream.storage.entity_history import note_versions
from upstream.storage.locks import lock_for
from upstream.storage.publication import publish
from upstream.storage.records import remove, save, values_of
from upstream.storage.view import StoredView, bindings_of_waiting


@dataclass(frozen=True, slots=True)
class Committed:
    """What one transaction did: its decisions, the new revisions, and the audit entries of what changed anything."""

    decisions: tuple[Decision, ...]
    revisions: Mapping[str, int] = field(default_factory=dict)
    audits: tuple[AuditEntry, ...] = ()

    @property
    def decision(self) -> Decision:
        """Return what the command came to; of a batch, what its last command did."""
        return self.decisions[-1]

    @property
    def audit(self) -> AuditEntry | None:
        """Return the last audit entry; None when nothing changed."""
        return self.audits[-1] if self.audits else None


def carry_out(connection: Connection, command: Command, facts: Facts) -> Committed:
    """Decide a command and write everything that follows from it.

    Raises:
        Rejected: the command is refused.
        Stale: another transaction came first.
    """
    decisions: list[Decision] = []
    circumstances: list[Facts] = []
    drafts: Drafts = {}
    lock_for(connection, command, facts)
    view = StoredView(connection, is_deciding=True)
    for step in steps(command, view, facts):
        whole = decide(step.command, view, step.facts)
        for decision in (*whole.parts, whole):
            decisions.append(decision)
            circumstances.append(step.facts)
            _write(connection, decision, facts)
            for environment_id, names in drafts_of(connection, decision, facts.now_ms).items():
                # What comes later in a batch is drafted from the state that it left.
                drafts.setdefault(environment_id, {}).update(names)
    entered = list(zip(decisions, circumstances, strict=True))
    effective = [(each, its) for each, its in entered if each.save or each.remove or each.is_event]
    if not effective:
        return Committed(tuple(decisions))
    voided = _void_requests(connection, decisions, circumstances[-1])
    if len(decisions) > 1:
        drafts = still_there(connection, drafts)
    revisions = publish(connection, drafts, facts.now_ms)
    audits = tuple(_audit_entry(each, its, revisions) for each, its in effective)
    of_voided = [_audit_entry(each, circumstances[-1], {}) for each in voided]
    connection.execute(insert(tables.audit), [values_of(entry) for entry in (*audits, *of_voided)])
    for (decision, _), entry in zip(effective, audits, strict=True):
        note_versions(connection, decision, entry)
    return Committed(tuple(decisions), revisions, audits)


def _void_requests(connection: Connection, decisions: Sequence[Decision], facts: Facts) -> tuple[Decision, ...]:
    """End the change requests that are bound to what has just been changed, in the very transaction of the change."""
    view = StoredView(connection)
    touching = (each for each in decisions if each.project_id is not None and (each.save or each.remove))
    projects = dict.fromkeys(each.project_id for each in touching if each.project_id is not None)
    touched = touched_by(decisions)
    hit = [
        request
        for project_id in projects
        for request_id, bound in bindings_of_waiting(connection, project_id).items()
        if first_hit(bound, touched) and (request := view.change_request(project_id, request_id))
    ]
    voided = voided_by(hit, decisions, facts)
    for decision in voided:
        save(connection, decision.save)
    return voided


def _write(connection: Connection, decision: Decision, facts: Facts) -> None:
    save(connection, decision.save)
    remove(connection, decision.remove)
    if decision.signs_out is not None:
        _sign_out(connection, decision.signs_out, facts.now_ms, but=decision.keeps_sign_in)


def expire_credentials(connection: Connection, now_ms: int) -> dict[str, int]:
    """Take keys that have expired out of the streams; returns the new revisions."""
    drafts = drafts_of_expired(connection, now_ms)
    return publish(connection, drafts, now_ms)


def _sign_out(connection: Connection, member_id: str, now_ms: int, *, but: str | None) -> None:
    """End every sign-in of a member except `but`: none of their tokens is valid any more."""
    table = tables.refresh_tokens
    theirs = (table.c.member_id == member_id, table.c.revoked_at.is_(None), table.c.family != (but or ""))
    connection.execute(update(table).where(*theirs).values(revoked_at=now_ms))


def _audit_entry(decision: Decision, facts: Facts, revisions: Mapping[str, int]) -> AuditEntry:
    target = decision.target or decision.entity
    actor = facts.actor
    return AuditEntry(
        id=facts.new_id(),
        organisation_id=target.id if isinstance(target, Organisation) else actor.organisation_id,
        at=facts.now_ms,
        actor_type=actor.type,
        actor_id=actor.id,
        actor_name=actor.name,
        action=decision.action,
        target_type=type_of_target(decision),
        target_id=_id_of(target),
        target_key=name_of(target),
        project_id=decision.project_id,
        environment_id=decision.environment_id,
        changes=decision.changes,
        reason=" ".join(filter(None, (decision.reason, facts.note))) or None,
        edge_at=decision.edge_at,
        request_id=actor.request_id,
        via=actor.via,
        address=actor.address,
        revisions=revisions,
    )


def _id_of(entity: Entity) -> str:
    return entity.flag_id if isinstance(entity, FlagConfig) else entity.id
