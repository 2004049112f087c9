"""What the API shows: single things and pages of them, each read in a bounded number of statements.

Every function takes the organisation of whoever asks, directly or through a project that was found in it, so that
another organisation's things do not exist here. `visible` limits to project ids (None = all).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, Table, Text, and_, func, not_, or_, select

from upstream.domain.entities import (
    AuditEntry,
    ChangeRequest,
    Credential,
    CredentialKind,
    Environment,
    Flag,
    FlagConfig,
    FlagKind,
    FlagType,
    Member,
    Organisation,
    Project,
    RequestStatus,
    Schedule,
    ScheduleStatus,
    Segment,
)
from upstream.storage import tables
from upstream.storage.records import TABLES, columns, find, find_all, made
from upstream.storage.view import StoredView

T = TypeVar("T")

MAX_LIMIT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which page of a list. `sort` is one of the list's own sort names (`SORTS`); an unknown one sorts as usual."""

    limit: int = 50
    offset: int = 0
    search: str | None = None
    sort: str | None = None
    dir: Literal["asc", "desc"] = "asc"


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page, the number of all things that match, and where the page lies."""

    items: tuple[T, ...]
    total: int
    limit: int
    offset: int

    @property
    def has_more(self) -> bool:
        """Tell whether there is something after this page."""
        return self.offset + len(self.items) < self.total


@dataclass(frozen=True, slots=True)
class FlagRow:
    """A flag with its configs by environment id."""

    flag: Flag
    configs: Mapping[str, FlagConfig]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagFilter:
    """Which flags of a project. `archived` None = both; `enabled` needs `environment_id`; `ids` None = all.

    All of `tags` must be there. `expired_at` is the time at which to look, and `expired` which side of it.
    """

    archived: bool | None = False
    type: FlagType | None = None
    kind: FlagKind | None = None
    tags: Sequence[str] = ()
    owner: str | None = None
    environment_id: str | None = None
    enabled: bool | None = None
    expired: bool | None = None
    expired_at: int = 0
    ids: Collection[str] | None = None


SORTS: Mapping[type, tuple[str, ...]] = {
    Project: ("key", "name", "created_at", "updated_at"),
    Environment: ("sort", "key", "name", "created_at", "updated_at"),
    Flag: ("key", "name", "created_at", "updated_at"),
    Segment: ("key", "name", "created_at", "updated_at"),
    Credential: ("created_at", "name", "kind", "expires_at", "last_used_at"),
    Member: ("email", "name", "role", "created_at"),
    AuditEntry: ("seq",),
    Schedule: ("run_at", "created_at", "status"),
    ChangeRequest: ("created_at", "updated_at", "title", "status"),
}
"""The names by which each list can be sorted; the first is the usual one."""


def get_organisation(connection: Connection, organisation_id: str) -> Organisation | None:
    """Return an organisation."""
    return find(connection, Organisation, tables.organisations.c.id == organisation_id)


def list_projects(
    connection: Connection,
    organisation_id: str,
    query: Query,
    *,
    visible: Collection[str] | None = None,
) -> Page[Project]:
    """Return a page of the organisation's projects."""
    table = tables.projects
    where = [table.c.organisation_id == organisation_id]
    if visible is not None:
        where.append(table.c.id.in_(visible))
    return _page(connection, Project, where, query, (table.c.key, table.c.name, table.c.description))


def get_environment(connection: Connection, project_id: str, reference: str) -> Environment | None:
    """Return an environment of the project by id or key."""
    found = StoredView(connection).environments(project_id)
    return next((environment for environment in found if reference in (environment.id, environment.key)), None)


def list_environments(connection: Connection, project_id: str, query: Query) -> Page[Environment]:
    """Return a page of the project's environments, in their order unless the query sorts."""
    table = tables.environments
    return _page(connection, Environment, [table.c.project_id == project_id], query, (table.c.key, table.c.name))


def get_flag(connection: Connection, project_id: str, reference: str) -> FlagRow | None:
    """Return a flag, archived or not, with its configs."""
    view = StoredView(connection)
    flag = view.flag(project_id, reference)
    return None if flag is None else FlagRow(flag, view.configs(flag.id))


def list_flags(
    connection: Connection,
    project_id: str,
    query: Query,
    wanted: FlagFilter | None = None,
) -> Page[FlagRow]:
    """Return a page of the project's flags with their configs, in three statements whatever the page holds."""
    table = tables.flags
    searched = (table.c.key, table.c.name, table.c.description)
    where = _flag_conditions(project_id, wanted or FlagFilter())
    page = _page(connection, Flag, where, query, searched)
    configs: dict[str, dict[str, FlagConfig]] = {flag.id: {} for flag in page.items}
    if configs:
        for config in find_all(connection, FlagConfig, tables.flag_configs.c.flag_id.in_(configs)):
            configs[config.flag_id][config.environment_id] = config
    rows = tuple(FlagRow(flag, configs[flag.id]) for flag in page.items)
    return Page(rows, page.total, page.limit, page.offset)


def _flag_conditions(project_id: str, wanted: FlagFilter) -> list[ColumnElement[bool]]:
    flags, configs = tables.flags, tables.flag_configs
    where: list[ColumnElement[bool]] = [flags.c.project_id == project_id, flags.c.deleted_at.is_(None)]
    if wanted.archived is not None:
        where.append(flags.c.archived_at.is_not(None) if wanted.archived else flags.c.archived_at.is_(None))
    same = {flags.c.type: wanted.type, flags.c.kind: wanted.kind, flags.c.owner: wanted.owner}
    where += [column == value for column, value in same.items() if value is not None]
    # Tags are canonical JSON text: a tag stands in it exactly as its own JSON.
    where += [flags.c.tags.cast(Text).contains(tables.json_text(tag), autoescape=True) for tag in wanted.tags]
    if wanted.ids is not None:
        where.append(flags.c.id.in_(wanted.ids))
    if wanted.expired is not None:
        is_expired = and_(flags.c.expires_at.is_not(None), flags.c.expires_at <= wanted.expired_at)
        where.append(is_expired if wanted.expired else not_(is_expired))
    if wanted.environment_id is not None and wanted.enabled is not None:
        chosen = select(configs.c.flag_id).where(
            configs.c.environment_id == wanted.environment_id,
            configs.c.enabled == wanted.enabled,
        )
        where.append(flags.c.id.in_(chosen))
    return where


def list_segments(connection: Connection, project_id: str, query: Query) -> Page[Segment]:
    """Return a page of the project's segments."""
    table = tables.segments
    searched = (table.c.key, table.c.name, table.c.description)
    return _page(connection, Segment, [table.c.project_id == project_id], query, searched)


def list_schedules(
    connection: Connection, project_id: str, query: Query, status: ScheduleStatus | None = None
) -> Page[Schedule]:
    """Return a page of the project's scheduled changes."""
    table = tables.schedules
    where = [table.c.project_id == project_id]
    if status is not None:
        where.append(table.c.status == str(status))
    return _page(connection, Schedule, where, query, (table.c.reason,))


def list_change_requests(
    connection: Connection, project_id: str, query: Query, status: RequestStatus | None = None
) -> Page[ChangeRequest]:
    """Return a page of the project's change requests, newest first unless the query sorts."""
    table = tables.change_requests
    where = [table.c.project_id == project_id]
    if status is not None:
        where.append(table.c.status == str(status))
    if query.sort is None:
        query = replace(query, dir="desc")
    return _page(connection, ChangeRequest, where, query, (table.c.title, table.c.description))


def get_credential(connection: Connection, organisation_id: str, credential_id: str) -> Credential | None:
    """Return a key or token, revoked or not."""
    return StoredView(connection).credential(organisation_id, credential_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialFilter:
    """Which keys and tokens of an organisation. `project_id` is one that they are for by name."""

    kinds: Collection[CredentialKind] | None = None
    project_id: str | None = None
    environment_id: str | None = None
    include_revoked: bool = False


def list_credentials(
    connection: Connection,
    organisation_id: str,
    query: Query,
    wanted: CredentialFilter,
    *,
    visible: Collection[str] | None = None,
) -> Page[Credential]:
    """Return a page of the organisation's keys and tokens; with `visible`, of those that reach no other projects."""
    table = tables.credentials
    where: list[ColumnElement[bool]] = [table.c.organisation_id == organisation_id]
    if wanted.kinds is not None:
        where.append(table.c.kind.in_([str(kind) for kind in wanted.kinds]))
    if wanted.project_id is not None:
        # Canonical JSON text, as tags are.
        where.append(table.c.projects.cast(Text).contains(tables.json_text(wanted.project_id), autoescape=True))
    if wanted.environment_id is not None:
        where.append(table.c.environment_id == wanted.environment_id)
    if not wanted.include_revoked:
        where.append(table.c.revoked_at.is_(None))
    if visible is not None:
        limited = find_all(connection, Credential, *where, table.c.projects.is_not(None))
        where.append(table.c.id.in_([each.id for each in limited if set(visible).issuperset(each.projects or ())]))
    return _page(connection, Credential, where, query, (table.c.name, table.c.hint))


def get_member(connection: Connection, organisation_id: str, reference: str) -> Member | None:
    """Return a member by id or e-mail address."""
    return StoredView(connection).member(organisation_id, reference)


def list_members(
    connection: Connection,
    organisation_id: str,
    query: Query,
    *,
    visible: Collection[str] | None = None,
) -> Page[Member]:
    """Return a page of the organisation's members; with `visible`, of those whose projects are all among these."""
    table = tables.members
    where: list[ColumnElement[bool]] = [table.c.organisation_id == organisation_id]
    if visible is not None:
        limited = find_all(connection, Member, *where, table.c.projects.is_not(None))
        where.append(table.c.id.in_([each.id for each in limited if set(visible).issuperset(each.projects or ())]))
    return _page(connection, Member, where, query, (table.c.email, table.c.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which audit entries of an organisation. `after` and `before` are times, inclusive and exclusive.

    `actor` is whoever did it: an id, or a name or e-mail address.
    """

    project_id: str | None = None
    environment_id: str | None = None
    target_id: str | None = None
    action: str | None = None
    actor: str | None = None
    via: str | None = None
    after: int | None = None
    before: int | None = None


def list_audit(
    connection: Connection,
    organisation_id: str,
    query: Query,
    wanted: AuditFilter,
    *,
    visible: Collection[str] | None,
) -> Page[AuditEntry]:
    """Return a page of the audit log, newest first unless `query.dir` is given as asc with a sort."""
    table = tables.audit
    where: list[ColumnElement[bool]] = [table.c.organisation_id == organisation_id]
    for name in ("project_id", "environment_id", "target_id", "action", "via"):
        value = getattr(wanted, name)
        if value is not None:
            where.append(table.c[name] == value)
    if wanted.actor is not None:
        where.append(_is_by(connection, organisation_id, wanted.actor))
    if wanted.after is not None:
        where.append(table.c.at >= wanted.after)
    if wanted.before is not None:
        where.append(table.c.at < wanted.before)
    if visible is not None:
        where.append(table.c.project_id.in_(visible))
    if query.sort is None:
        query = Query(limit=query.limit, offset=query.offset, search=query.search, dir="desc")
    return _page(connection, AuditEntry, where, query, (table.c.action, table.c.target_key, table.c.actor_name))


def _is_by(connection: Connection, organisation_id: str, actor: str) -> ColumnElement[bool]:
    """Return the condition by which an entry is of somebody: by id, by the name it was written with, or by e-mail."""
    table = tables.audit
    member = get_member(connection, organisation_id, actor)
    ids = {actor} if member is None else {actor, member.id}
    return or_(table.c.actor_id.in_(ids), func.lower(table.c.actor_name) == actor.lower())


def audit_entries(connection: Connection, ids: Collection[str]) -> Mapping[str, AuditEntry]:
    """Return audit entries by id."""
    return {each.id: each for each in find_all(connection, AuditEntry, tables.audit.c.id.in_(ids))}


def _page(
    connection: Connection,
    kind: type[T],
    where: Sequence[ColumnElement[bool]],
    query: Query,
    searched: Sequence[ColumnElement[Any]],
) -> Page[T]:
    table = TABLES[kind]
    conditions = [*where]
    if query.search:
        conditions.append(or_(*(column.icontains(query.search, autoescape=True) for column in searched)))
    total = connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one()
    limit = min(max(query.limit, 1), MAX_LIMIT)
    offset = max(query.offset, 0)
    rows = connection.execute(_sorted(select(*columns(kind)).where(*conditions), kind, table, query, limit, offset))
    return Page(tuple(made(kind, row) for row in rows), total, limit, offset)


def _sorted(  # noqa: PLR0913, PLR0917 - each of them is needed
    statement: Select[Any],
    kind: type,
    table: Table,
    query: Query,
    limit: int,
    offset: int,
) -> Select[Any]:
    names = SORTS[kind]
    column = table.c[query.sort if query.sort in names else names[0]]
    # The primary key decides between equals, so that pages neither repeat nor skip anything.
    order = [column, *table.primary_key]
    directed = [each.desc() if query.dir == "desc" else each.asc() for each in order]
    return statement.order_by(*directed).limit(limit).offset(offset)
