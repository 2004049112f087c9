"""The chain over the audit log in the database: what has no seal yet, sealing it, and reading a chain to verify it.

The rows are read as they lie in their columns (JSON as its text), because that is what a seal is about. Seals are only
ever added; that two processes never make the same one is the business of the table's keys: one of them fails, and
looks again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Select, Text, func, insert, select, type_coerce

from upstream.domain.audit_chain import Row, Seal, genesis, is_late, link
from upstream.storage import tables
from upstream.storage.tables import JsonText

AT_ONCE: Final = 1_000
"""Entries and seals that are read or written in one transaction at most."""

_AUDIT, _SEALS = tables.audit, tables.audit_seals
# Plain texts: SQLAlchemy has a kind of its own, which is no key of a JSON object.
_NAMES: Final = tuple(str(column.name) for column in _AUDIT.c)
_RAW: Final = [
    type_coerce(column, Text).label(column.name) if isinstance(column.type, JsonText) else column for column in _AUDIT.c
]


@dataclass(frozen=True, slots=True)
class Unsealed:
    """Entries without a seal that stand after some place, and how far was looked."""

    rows: Sequence[Row]
    looked_upto: int
    is_end: bool


def _rows() -> Select[Any]:
    return select(*_RAW)


def _row(values: Sequence[Any]) -> Row:
    return dict(zip(_NAMES, values, strict=True))


def unsealed_after(connection: Connection, seq: int) -> Unsealed:
    """Return the first entries after that place in the log that have no seal, in the log's order."""
    newest = connection.execute(select(func.max(_AUDIT.c.seq))).scalar() or 0
    sealed = select(_SEALS.c.audit_id).where(_SEALS.c.audit_id == _AUDIT.c.id).exists()
    query = _rows().where(_AUDIT.c.seq > seq, ~sealed).order_by(_AUDIT.c.seq).limit(AT_ONCE)
    rows = [_row(values) for values in connection.execute(query)]
    is_end = len(rows) < AT_ONCE
    return Unsealed(rows, newest if is_end else rows[-1]["seq"], is_end)


def seal(connection: Connection, rows: Sequence[Row]) -> Mapping[str, Seal]:
    """Seal entries in their order, each in its organisation's chain; returns the new ends of these chains.

    Entries that were put in among sealed ones are passed over: a verification names them.

    Raises:
        IntegrityError: another process has sealed in the meantime.
    """
    heads: dict[str, Seal] = {}
    ends: dict[str, tuple[Seal, Row] | None] = {}
    made: list[dict[str, Any]] = []
    for row in rows:
        mine = row["organisation_id"]
        if mine not in ends:
            ends[mine] = _end(connection, mine)
        end = ends[mine]
        if is_late(row, end[1] if end else None):
            continue
        last = heads.get(mine) or (end[0] if end else None)
        previous, number = (last.hash, last.number + 1) if last else (genesis(mine), 1)
        heads[mine] = Seal(number, row["id"], link(previous, row))
        made.append({"organisation_id": mine, "number": number, "audit_id": row["id"], "hash": heads[mine].hash})
    if made:
        connection.execute(insert(_SEALS), made)
    return heads


def _end(connection: Connection, organisation_id: str) -> tuple[Seal, Row] | None:
    """Return the last seal of a chain with its entry; None where there is none, or its entry was removed."""
    query = (
        select(_SEALS.c.number, _SEALS.c.audit_id, _SEALS.c.hash)
        .where(_SEALS.c.organisation_id == organisation_id)
        .order_by(_SEALS.c.number.desc())
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    entry = connection.execute(_rows().where(_AUDIT.c.id == found.audit_id)).one_or_none()
    # Without its entry the chain goes on all the same: sealing must not stop where something was removed.
    row = _row(entry) if entry is not None else {"seq": 0, "at": 0}
    return Seal(*found), row


def sealed_after(connection: Connection, organisation_id: str, number: int) -> list[tuple[Seal, Row | None]]:
    """Return the next seals of a chain after that number, each with its entry."""
    query = (
        select(_SEALS.c.number, _SEALS.c.audit_id, _SEALS.c.hash, *_RAW)
        .select_from(_SEALS.outerjoin(_AUDIT, _AUDIT.c.id == _SEALS.c.audit_id))
        .where(_SEALS.c.organisation_id == organisation_id, _SEALS.c.number > number)
        .order_by(_SEALS.c.number)
        .limit(AT_ONCE)
    )
    found = []
    for sealed_number, audit_id, digest, *values in connection.execute(query):
        row = _row(values)
        found.append((Seal(sealed_number, audit_id, digest), row if row["id"] is not None else None))
    return found


def unsealed_of(connection: Connection, organisation_id: str) -> list[Row]:
    """Return id, place and time of an organisation's entries that have no seal."""
    sealed = select(_SEALS.c.audit_id).where(_SEALS.c.audit_id == _AUDIT.c.id).exists()
    query = select(_AUDIT.c.id, _AUDIT.c.seq, _AUDIT.c.at).where(_AUDIT.c.organisation_id == organisation_id, ~sealed)
    return [{"id": row.id, "seq": row.seq, "at": row.at} for row in connection.execute(query.order_by(_AUDIT.c.seq))]


def missing_of(connection: Connection, organisation_id: str) -> list[str]:
    """Return the entries that the history of the organisation's flags and segments names and that are not there."""
    history, projects = tables.entity_history, tables.projects
    there = select(_AUDIT.c.id).where(_AUDIT.c.id == history.c.audit_id).exists()
    query = (
        select(history.c.audit_id)
        .join(projects, projects.c.id == history.c.project_id)
        .where(projects.c.organisation_id == organisation_id, history.c.audit_id.is_not(None), ~there)
        .distinct()
        .order_by(history.c.audit_id)
    )
    return [str(audit_id) for audit_id in connection.execute(query).scalars()]


def organisations(connection: Connection) -> list[tuple[str, str]]:
    """Return id and name of every organisation."""
    table = tables.organisations
    rows = connection.execute(select(table.c.id, table.c.name).order_by(table.c.created_at, table.c.id))
    return [(row.id, row.name) for row in rows]
