"""An environment as it was at an earlier revision, rebuilt from the versions of its flags, configs and segments.

The order of what happened is the audit log's: everything written before the first entry that published a later
revision belongs to the one that is asked for. A version that published nothing here counts like any other, because
what it changed may have become visible later. The objects carry the asked revision as their version; the rest of them
is what was published. Reads a bounded number of statements whatever the project holds, except that the audit log is
searched backwards from its end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Text, and_, func, select

from relay.protocol.hashing import canonical
from upstream.domain.entities import Environment, Flag, FlagConfig, Segment
from upstream.domain.errors import Kind, Rejected
from upstream.domain.snapshot import flag_object, segment_object
from upstream.storage import tables
from upstream.storage.records import entity_of

_KINDS: Final[Mapping[str, type]] = {"flag": Flag, "config": FlagConfig, "segment": Segment}
_ENTRIES_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Past:
    """The objects of one revision, by key, as canonical bytes."""

    flags: Mapping[str, bytes]
    segments: Mapping[str, bytes]


def read_past(connection: Connection, environment: Environment, revision: int) -> Past:
    """Return what an environment published at a revision from 1 to its present one.

    Raises:
        Rejected: NOT_FOUND for a revision that is yet to come, INVALID for one from before versions were kept.
    """
    if revision > environment.revision:
        detail = f"{environment.key!r} is at revision {environment.revision}; there is no revision {revision} yet."
        raise Rejected(Kind.NOT_FOUND, detail, code="revision_not_found")
    oldest = _oldest(connection, environment)
    if revision < oldest:
        detail = f"Versions of {environment.key!r} are kept from revision {oldest} on; {revision} cannot be rebuilt."
        raise Rejected(Kind.INVALID, detail, {"revision": [detail]}, code="before_history")
    end = _end(connection, environment, revision)
    return _rendered(_versions(connection, environment, end), _deleted_segments(connection, environment, end), revision)


def _oldest(connection: Connection, environment: Environment) -> int:
    """Return the first revision that can be rebuilt: 1, unless the history was begun by a migration."""
    history, audit = tables.entity_history, tables.audit
    of_project = history.c.project_id == environment.project_id
    begun = select(history.c.entity_id).where(of_project, history.c.audit_id.is_(None)).limit(1)
    if connection.execute(begun).first() is None:
        return 1
    first = (
        select(history.c.revisions)
        .join(audit, audit.c.id == history.c.audit_id)
        .where(of_project, _names(history.c.revisions, environment))
        .order_by(audit.c.seq)
        .limit(1)
    )
    revisions = connection.execute(first).scalar()
    return environment.revision if revisions is None else int(revisions[environment.id]) - 1


def _names(revisions: Any, environment: Environment) -> Any:
    # The column is JSON text, and an id looks like nothing else.
    return revisions.cast(Text).contains(environment.id)


def _end(connection: Connection, environment: Environment, revision: int) -> int | None:
    """Return the number of the first audit entry that published a later revision here; None if none did."""
    audit = tables.audit
    query = (
        select(audit.c.seq, audit.c.revisions)
        .where(audit.c.project_id == environment.project_id, _names(audit.c.revisions, environment))
        .order_by(audit.c.seq.desc())
        .limit(_ENTRIES_AT_ONCE)
    )
    end: int | None = None
    while True:
        rows = connection.execute(query if end is None else query.where(audit.c.seq < end)).all()
        for row in rows:
            if row.revisions[environment.id] <= revision:
                return end
            end = row.seq
        if len(rows) < _ENTRIES_AT_ONCE:
            return end


def _before(end: int | None) -> Any:
    history, audit = tables.entity_history, tables.audit
    return True if end is None else history.c.audit_id.is_(None) | (audit.c.seq < end)


def _versions(connection: Connection, environment: Environment, end: int | None) -> Sequence[Any]:
    """Return the last version of every flag, config and segment before the audit entry `end`."""
    history, audit = tables.entity_history, tables.audit
    last = (
        select(history.c.entity_id, history.c.environment_id, func.max(history.c.version).label("version"))
        .outerjoin(audit, audit.c.id == history.c.audit_id)
        .where(
            history.c.project_id == environment.project_id,
            history.c.environment_id.in_(["", environment.id]),
            _before(end),
        )
        .group_by(history.c.entity_id, history.c.environment_id)
        .subquery()
    )
    same = and_(*(history.c[name] == last.c[name] for name in ("entity_id", "environment_id", "version")))
    rows = connection.execute(select(history.c.kind, history.c.body).join(last, same))
    return [entity_of(_KINDS[row.kind], row.body) for row in rows]


def _deleted_segments(connection: Connection, environment: Environment, end: int | None) -> frozenset[str]:
    audit = tables.audit
    query = select(audit.c.target_id).where(
        audit.c.project_id == environment.project_id, audit.c.action == "segment.deleted"
    )
    if end is not None:
        query = query.where(audit.c.seq < end)
    return frozenset(connection.execute(query).scalars())


def _rendered(versions: Sequence[Any], deleted: frozenset[str], revision: int) -> Past:
    configs = {each.flag_id: each for each in versions if isinstance(each, FlagConfig)}
    flags: dict[str, bytes] = {}
    segments: dict[str, bytes] = {}
    for each in versions:
        if isinstance(each, Flag) and each.id in configs:
            published = flag_object(each, configs[each.id], revision)
            if published is not None:
                flags[each.key] = canonical(published)
        elif isinstance(each, Segment) and each.id not in deleted:
            segments[each.key] = canonical(segment_object(each, revision))
    return Past(flags, segments)
