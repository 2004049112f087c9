"""How each entity lies in its table: rows to entities and back, and writing one with its version checked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    Update,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from upstream.domain.entities import (
    AuditEntry,
    Change,
    ChangeRequest,
    Credential,
    CredentialKind,
    Entity,
    Environment,
    Flag,
    FlagConfig,
    FlagKind,
    FlagType,
    Member,
    OneTimeToken,
    Organisation,
    Prerequisite,
    Project,
    RefreshToken,
    RequestStatus,
    Role,
    Rule,
    Schedule,
    ScheduleStatus,
    Segment,
    Target,
    Variation,
)
from upstream.storage import tables
from upstream.storage.errors import Stale

E = TypeVar("E")
Read = Callable[[Any], Any]

INSERT_ROWS = 1_000


def _texts(value: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)


def _prerequisite(value: Mapping[str, Any]) -> Prerequisite:
    return Prerequisite(flag=value["flag"], variations=_texts(value["variations"]))


def _target(value: Mapping[str, Any]) -> Target:
    return Target(variation=value["variation"], units=tuple(value["units"]))


def _each(read: Read) -> Read:
    return lambda values: tuple(read(value) for value in values)


def _spread(kind: Callable[..., Any]) -> Read:
    return lambda value: kind(**value)


_READ: Mapping[type, Mapping[str, Read]] = {
    Member: {"role": Role, "projects": _texts},
    Flag: {
        "type": FlagType,
        "kind": FlagKind,
        "tags": tuple,
        "prerequisites": _each(_prerequisite),
        "variations": _each(_spread(Variation)),
    },
    FlagConfig: {"rules": _each(_spread(Rule)), "targets": _each(_target)},
    Segment: {"include": tuple, "exclude": tuple},
    Credential: {
        "kind": CredentialKind,
        "scopes": tuple,
        "projects": _texts,
        "environments": _texts,
        "origins": tuple,
    },
    Schedule: {"commands": tuple, "status": ScheduleStatus},
    ChangeRequest: {"commands": tuple, "bound": tuple, "status": RequestStatus, "reviews": tuple},
    AuditEntry: {"changes": _each(_spread(Change))},
}

TABLES: Mapping[type, Table] = {
    Organisation: tables.organisations,
    Member: tables.members,
    RefreshToken: tables.refresh_tokens,
    Project: tables.projects,
    Environment: tables.environments,
    Flag: tables.flags,
    FlagConfig: tables.flag_configs,
    Segment: tables.segments,
    Credential: tables.credentials,
    Schedule: tables.schedules,
    ChangeRequest: tables.change_requests,
    OneTimeToken: tables.one_time_tokens,
    AuditEntry: tables.audit,
}

# Written by the change log alone: an edit of the entity must not put an older revision back.
_PUBLISHED = frozenset({"revision", "content_hash", "credentials_hash"})

_FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in TABLES}


def columns(kind: type) -> list[ColumnElement[Any]]:
    """Return the columns from which an entity of that kind is made, in the order of its fields."""
    table = TABLES[kind]
    return [table.c[name] for name in _FIELDS[kind]]


def made(kind: type[E], values: Sequence[Any]) -> E:
    """Return the entity that a row of `columns(kind)` holds."""
    fields_of = dict(zip(_FIELDS[kind], values, strict=True))
    for name, read in _READ.get(kind, {}).items():
        fields_of[name] = read(fields_of[name])
    return kind(**fields_of)


_SELECTING: Mapping[type, Select[Any]] = {kind: select(*columns(kind)) for kind in TABLES}


@cache
def _equalling(table: Table, names: tuple[str, ...]) -> Select[Any]:
    """Return a statement that is built once, as building it costs more than running it."""
    kind = next(kind for kind, of_kind in TABLES.items() if of_kind is table)
    return _SELECTING[kind].where(*(table.c[name] == bindparam(name) for name in names))


def one(connection: Connection, kind: type[E], **equal: Any) -> E | None:
    """Return the one entity whose columns have these values."""
    row = connection.execute(_equalling(TABLES[kind], tuple(equal)), equal).one_or_none()
    return None if row is None else made(kind, row)


@cache
def _locking(table: Table, names: tuple[str, ...]) -> Select[Any]:
    # Weaker than FOR UPDATE, so that rows which refer to this one can be added meanwhile.
    return _equalling(table, names).with_for_update(key_share=True)


def locked(connection: Connection, kind: type[E], **equal: Any) -> E | None:
    """Return the one entity as it stays until this transaction ends: nobody else can change it."""
    row = connection.execute(_locking(TABLES[kind], tuple(equal)), equal).one_or_none()
    return None if row is None else made(kind, row)


def every(connection: Connection, kind: type[E], **equal: Any) -> list[E]:
    """Return all entities whose columns have these values."""
    return [made(kind, row) for row in connection.execute(_equalling(TABLES[kind], tuple(equal)), equal)]


def find(connection: Connection, kind: type[E], *where: ColumnElement[bool]) -> E | None:
    """Return the one entity that fulfils the conditions."""
    row = connection.execute(_SELECTING[kind].where(*where)).one_or_none()
    return None if row is None else made(kind, row)


def find_all(connection: Connection, kind: type[E], *where: ColumnElement[bool], order: Any = None) -> list[E]:
    """Return all entities that fulfil the conditions."""
    query = _SELECTING[kind].where(*where)
    rows = connection.execute(query if order is None else query.order_by(order))
    return [made(kind, row) for row in rows]


def pair(row: Row[Any], left: type[Any], right: type[Any]) -> tuple[Any, Any]:
    """Return the two entities of a joined row of `columns(left) + columns(right)`."""
    width = len(_FIELDS[left])
    return made(left, row[:width]), made(right, row[width:])


def entity_of(kind: type[E], body: Mapping[str, Any]) -> E:
    """Return the entity that `values_of` gave, after its way through JSON; newer fields have their default."""
    given = {name: body[name] for name in _FIELDS[kind] if name in body}
    for name, read in _READ.get(kind, {}).items():
        if name in given:
            given[name] = read(given[name])
    return kind(**given)


def values_of(entity: Any) -> dict[str, Any]:
    """Return an entity as a row."""
    return {name: getattr(entity, name) for name in _FIELDS[type(entity)]}


def save(connection: Connection, entities: Sequence[Entity]) -> None:
    """Insert what is new (version 1) and replace the rest.

    Raises:
        Stale: a stored version is not the one that an entity follows.
    """
    fresh: dict[Table, list[dict[str, Any]]] = {}
    known: list[Entity] = []
    for entity in entities:
        if entity.version == 1:
            fresh.setdefault(TABLES[type(entity)], []).append(values_of(entity))
        else:
            known.append(entity)
    # In one order everywhere, as each row is locked from here on.
    for entity in sorted(known, key=_place):
        _replace(connection, entity)
    for table, rows in fresh.items():
        for start in range(0, len(rows), INSERT_ROWS):
            connection.execute(insert(table), rows[start : start + INSERT_ROWS])


def _place(entity: Entity) -> tuple[str, ...]:
    table = TABLES[type(entity)]
    return table.name, *(str(getattr(entity, column.name)) for column in table.primary_key)


@cache
def _replacing(table: Table) -> Update:
    """Return the statement that replaces a row of the version before; built once."""
    keys = [column == bindparam(f"of_{column.name}") for column in table.primary_key]
    names = {column.name for column in table.c if not column.primary_key} - _PUBLISHED
    values: dict[str, Any] = {name: bindparam(name) for name in names}
    return update(table).where(*keys, table.c.version == bindparam("of_version")).values(values)


def _replace(connection: Connection, entity: Entity) -> None:
    table = TABLES[type(entity)]
    values = values_of(entity)
    keys = {f"of_{column.name}": values.pop(column.name) for column in table.primary_key}
    kept = {name: value for name, value in values.items() if name not in _PUBLISHED}
    done = connection.execute(_replacing(table), {**kept, **keys, "of_version": entity.version - 1})
    if done.rowcount != 1:
        raise Stale(f"{table.name} row is not at version {entity.version - 1}")


def remove(connection: Connection, entities: Sequence[Entity]) -> None:
    """Delete entities; what hangs on them goes by the schema's cascades."""
    for entity in entities:
        table = TABLES[type(entity)]
        keys = [column == getattr(entity, column.name) for column in table.primary_key]
        connection.execute(delete(table).where(*keys))
