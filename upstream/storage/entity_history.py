"""Every version that a flag, a config or a segment had: written with the change, read to show, compare and restore.

Rows are never changed and never deleted; they outlive what they tell of, as the audit does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select

from upstream.domain.entities import AuditEntry, Flag, FlagConfig, Segment
from upstream.domain.facts import Decision
from upstream.storage import tables
from upstream.storage.records import entity_of, values_of

KINDS: Mapping[type, str] = {Flag: "flag", FlagConfig: "config", Segment: "segment"}
_TYPES: Mapping[str, type] = {name: kind for kind, name in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Version:
    """One version: when it came, by which audit entry (None: before histories were kept), and what it was.

    `revisions` are the revisions that published it, by environment id.
    """

    at: int
    audit_id: str | None
    revisions: Mapping[str, int]
    entity: Any


def note_versions(connection: Connection, decision: Decision, entry: AuditEntry) -> None:
    """Write the versions that a decision saves."""
    rows = [_row(entity, entry) for entity in decision.save if type(entity) in KINDS]
    if rows:
        connection.execute(insert(tables.entity_history), rows)


def _row(entity: Any, entry: AuditEntry) -> dict[str, Any]:
    entity_id, environment_id = _name(entity)
    revisions = entry.revisions
    if environment_id:
        revisions = {each: revision for each, revision in revisions.items() if each == environment_id}
    return {
        "entity_id": entity_id,
        "environment_id": environment_id,
        "version": entity.version,
        "kind": KINDS[type(entity)],
        "project_id": entry.project_id,
        "at": entry.at,
        "audit_id": entry.id,
        "revisions": revisions,
        "body": values_of(entity),
    }


def _name(entity: Any) -> tuple[str, str]:
    if isinstance(entity, FlagConfig):
        return entity.flag_id, entity.environment_id
    return entity.id, ""


def version_of(connection: Connection, entity_id: str, environment_id: str, version: int) -> Version | None:
    """Return one version; `environment_id` is empty but for configs."""
    table = tables.entity_history
    query = select(table).where(
        table.c.entity_id == entity_id, table.c.environment_id == environment_id, table.c.version == version
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _version(row)


def versions_of(
    connection: Connection, entity_id: str, environment_id: str, *, limit: int, offset: int = 0
) -> list[Version]:
    """Return the versions of one thing, newest first."""
    table = tables.entity_history
    query = (
        select(table)
        .where(table.c.entity_id == entity_id, table.c.environment_id == environment_id)
        .order_by(table.c.version.desc())
        .limit(limit)
        .offset(offset)
    )
    return [_version(row) for row in connection.execute(query)]


def count_versions(connection: Connection, entity_id: str, environment_id: str) -> int:
    """Return how many versions of one thing are kept."""
    table = tables.entity_history
    of_thing = (table.c.entity_id == entity_id, table.c.environment_id == environment_id)
    return int(connection.execute(select(func.count()).select_from(table).where(*of_thing)).scalar_one())


def version_in_force(
    connection: Connection, entity_id: str, environment_id: str, published_in: str, revision: int
) -> Version | None:
    """Return the version that was in force at a revision of the environment `published_in`; None before the first.

    A version that made no revision there (it changed nothing that is published) counts with the one before it.
    """
    table = tables.entity_history
    query = (
        select(table.c.version, table.c.revisions, table.c.audit_id)
        .where(table.c.entity_id == entity_id, table.c.environment_id == environment_id)
        .order_by(table.c.version)
    )
    found: int | None = None
    for row in connection.execute(query):
        published = row.revisions.get(published_in)
        if published is not None and published > revision:
            break
        # The first version of a thing that is older than its history was there before all revisions that are kept.
        if published is not None or found is not None or row.audit_id is None:
            found = row.version
    return None if found is None else version_of(connection, entity_id, environment_id, found)


def _version(row: Any) -> Version:
    return Version(row.at, row.audit_id, row.revisions, entity_of(_TYPES[row.kind], row.body))
