"""One command, one transaction: decide, write the entities, end sign-ins, publish, write the audit entry.

Everything happens on the one connection that it is given; whoever gives it commits or rolls back as a whole, so that a
fault anywhere leaves nothing behind (no entity without its audit entry, no revision without its change set).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, insert, update

from upstream.domain.commands import Command
from upstream.domain.decide import decide
from upstream.domain.entities import AuditEntry, Credential, Entity, FlagConfig, Organisation
from upstream.domain.facts import Decision, Facts
from upstream.storage import tables
from upstream.storage.drafts import drafts_of, drafts_of_expired
from upstream.storage.publication import publish
from upstream.storage.records import remove, save, values_of
from upstream.storage.view import StoredView


@dataclass(frozen=True, slots=True)
class Committed:
    """What one transaction did: its decision, the new revisions, and the audit entry (None = nothing changed)."""

    decision: Decision
    revisions: Mapping[str, int] = field(default_factory=dict)
    audit: AuditEntry | None = None


def carry_out(connection: Connection, command: Command, facts: Facts) -> Committed:
    """Decide a command and write everything that follows from it.

    Raises:
        Rejected: the command is refused.
        Stale: another transaction came first.
    """
    decision = decide(command, StoredView(connection), facts)
    if not (decision.save or decision.remove or decision.is_event):
        return Committed(decision)
    save(connection, decision.save)
    remove(connection, decision.remove)
    if decision.signs_out is not None:
        _sign_out(connection, decision.signs_out, facts.now_ms)
    drafts = drafts_of(connection, decision, facts.now_ms)
    revisions = publish(connection, drafts, facts.now_ms)
    entry = _audit_entry(decision, facts, revisions)
    connection.execute(insert(tables.audit), values_of(entry))
    return Committed(decision, revisions, entry)


def expire_credentials(connection: Connection, now_ms: int) -> dict[str, int]:
    """Take keys that have expired out of the streams; returns the new revisions."""
    drafts = drafts_of_expired(connection, now_ms)
    return publish(connection, drafts, now_ms)


def _sign_out(connection: Connection, member_id: str, now_ms: int) -> None:
    """End every sign-in of a member: none of their tokens is valid any more."""
    table = tables.refresh_tokens
    theirs = (table.c.member_id == member_id, table.c.revoked_at.is_(None))
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
        target_type=decision.action.split(".", maxsplit=1)[0],
        target_id=_id_of(target),
        target_key=_label_of(target),
        project_id=decision.project_id,
        environment_id=decision.environment_id,
        changes=decision.changes,
        reason=decision.reason,
        edge_at=decision.edge_at,
        request_id=actor.request_id,
        via=actor.via,
        revisions=revisions,
    )


def _id_of(entity: Entity) -> str:
    return entity.flag_id if isinstance(entity, FlagConfig) else entity.id


def _label_of(entity: Entity) -> str | None:
    if isinstance(entity, Credential):
        return entity.hint
    return getattr(entity, "key", None) or getattr(entity, "email", None)
