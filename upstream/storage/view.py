"""The domain's `View` on a connection: what a command finds, inside its own transaction."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, bindparam, func, or_, select

from upstream.domain.entities import (
    ChangeRequest,
    Credential,
    Environment,
    Flag,
    FlagConfig,
    JsonObject,
    Member,
    OneTimeToken,
    Organisation,
    Project,
    RequestStatus,
    Role,
    Schedule,
    ScheduleStatus,
    Segment,
)
from upstream.domain.naming import is_id
from upstream.storage import tables
from upstream.storage.entity_history import version_in_force, version_of
from upstream.storage.records import columns, every, find_all, locked, made, one


def named(table: Table, reference: str) -> ColumnElement[bool]:
    """Return the condition by which an id or a key names a row."""
    return table.c.id == reference.lower() if is_id(reference) else table.c.key == reference


def has_members(connection: Connection) -> bool:
    """Tell whether there is any member in any organisation, just now."""
    return connection.execute(select(tables.members.c.id).limit(1)).first() is not None


# Asked for by every write, so it is built once, and without a list whose length would be bound anew each time.
_WAITING_REQUESTS = select(tables.change_requests.c.id, tables.change_requests.c.bound).where(
    tables.change_requests.c.project_id == bindparam("of_project"),
    or_(*(tables.change_requests.c.status == str(each) for each in (RequestStatus.OPEN, RequestStatus.APPROVED))),
)


def bindings_of_waiting(connection: Connection, project_id: str) -> Mapping[str, Sequence[JsonObject]]:
    """Return what the project's change requests that are open or approved are bound to, by their ids.

    Every write looks at these, and so it must not read what they hold, which may be long.
    """
    return {row.id: row.bound for row in connection.execute(_WAITING_REQUESTS, {"of_project": project_id})}


class StoredView:
    """Implements `upstream.domain.facts.View`.

    Args:
        connection: the transaction.
        is_deciding: whether a write follows from what is seen, so that the project must stay as it is until then.
    """

    def __init__(self, connection: Connection, *, is_deciding: bool = False) -> None:
        self._connection = connection
        self._find_project = locked if is_deciding else one

    def organisation(self, organisation_id: str) -> Organisation | None:
        """Return an organisation."""
        return one(self._connection, Organisation, id=organisation_id)

    def first_organisation(self) -> Organisation | None:
        """Return the oldest organisation."""
        found = find_all(self._connection, Organisation, order=tables.organisations.c.created_at)
        return found[0] if found else None

    def project(self, organisation_id: str, reference: str) -> Project | None:
        """Return a project of the organisation; whoever decides has it alone from here on (`storage.locks`)."""
        return self._find_project(self._connection, Project, organisation_id=organisation_id, **_by(reference))

    def projects(self, organisation_id: str) -> Sequence[Project]:
        """Return all projects of the organisation."""
        return every(self._connection, Project, organisation_id=organisation_id)

    def environments(self, project_id: str) -> Sequence[Environment]:
        """Return the project's environments in their order."""
        found = every(self._connection, Environment, project_id=project_id)
        return sorted(found, key=lambda environment: (environment.sort, environment.key))

    def flag(self, project_id: str, reference: str) -> Flag | None:
        """Return a flag of the project."""
        found = every(self._connection, Flag, project_id=project_id, **_by(reference))
        return next((flag for flag in found if flag.deleted_at is None), None)

    def flags(self, project_id: str) -> Sequence[Flag]:
        """Return all flags of the project."""
        return find_all(self._connection, Flag, *_of_project(tables.flags, project_id))

    def requiring(self, project_id: str) -> Sequence[Flag]:
        """Return those of the project's flags that have prerequisites."""
        # The column is canonical JSON text, so an empty list is always the same.
        return find_all(
            self._connection,
            Flag,
            *_of_project(tables.flags, project_id),
            tables.flags.c.prerequisites != [],
        )

    def config(self, flag_id: str, environment_id: str) -> FlagConfig | None:
        """Return a flag's config in one environment."""
        return one(self._connection, FlagConfig, flag_id=flag_id, environment_id=environment_id)

    def configs(self, flag_id: str) -> Mapping[str, FlagConfig]:
        """Return a flag's configs by environment id."""
        return {config.environment_id: config for config in every(self._connection, FlagConfig, flag_id=flag_id)}

    def project_configs(self, project_id: str) -> Sequence[FlagConfig]:
        """Return all configs of the project's flags."""
        query = (
            select(*columns(FlagConfig))
            .join(tables.flags, tables.flags.c.id == tables.flag_configs.c.flag_id)
            .where(*_of_project(tables.flags, project_id))
        )
        return [made(FlagConfig, row) for row in self._connection.execute(query)]

    def segment(self, project_id: str, reference: str) -> Segment | None:
        """Return a segment of the project."""
        return one(self._connection, Segment, project_id=project_id, **_by(reference))

    def segments(self, project_id: str) -> Sequence[Segment]:
        """Return all segments of the project."""
        return every(self._connection, Segment, project_id=project_id)

    def credential(self, organisation_id: str, credential_id: str) -> Credential | None:
        """Return a key or token of the organisation."""
        return one(self._connection, Credential, organisation_id=organisation_id, id=credential_id.lower())

    def member(self, organisation_id: str, reference: str) -> Member | None:
        """Return a member of the organisation, by id or e-mail address."""
        by = {"id" if is_id(reference) else "email": reference.lower()}
        return one(self._connection, Member, organisation_id=organisation_id, **by)

    def member_by_email(self, email: str) -> Member | None:
        """Return whoever uses the address, in any organisation."""
        return one(self._connection, Member, email=email.lower())

    def version(self, entity_id: str, environment_id: str, version: int) -> Any:
        """Return a version that a flag, config or segment had, or None; `environment_id` is empty but for configs."""
        found = version_of(self._connection, entity_id, environment_id, version)
        return None if found is None else found.entity

    def version_now(self, kind: str, entity_id: str, environment_id: str) -> int | None:
        """Return at which version a `flag`, `config` or `segment` is now, by its id; None where it is gone."""
        match kind:
            case "config":
                config = self.config(entity_id, environment_id)
                return None if config is None else config.version
            case "flag":
                flag = one(self._connection, Flag, id=entity_id)
                return None if flag is None or flag.deleted_at is not None else flag.version
            case _:
                segment = one(self._connection, Segment, id=entity_id)
                return None if segment is None else segment.version

    def config_at(self, flag_id: str, environment_id: str, revision: int) -> FlagConfig | None:
        """Return the config that was in force at a revision of its environment; None if there was none yet."""
        found = version_in_force(self._connection, flag_id, environment_id, environment_id, revision)
        return None if found is None else found.entity

    def schedule(self, project_id: str, schedule_id: str) -> Schedule | None:
        """Return a scheduled change of the project."""
        return one(self._connection, Schedule, project_id=project_id, id=schedule_id.lower())

    def change_request(self, project_id: str, request_id: str) -> ChangeRequest | None:
        """Return a change request of the project."""
        return one(self._connection, ChangeRequest, project_id=project_id, id=request_id.lower())

    def waiting_schedules(self, project_id: str) -> int:
        """Return how many of the project's scheduled changes are still to come."""
        table = tables.schedules
        waiting = (table.c.project_id == project_id, table.c.status == ScheduleStatus.PENDING)
        query = select(func.count()).select_from(table).where(*waiting)
        return int(self._connection.execute(query).scalar_one())

    def waiting_requests(self, project_id: str) -> int:
        """Return how many of the project's change requests are open or approved."""
        return len(bindings_of_waiting(self._connection, project_id))

    def one_time_token(self, token_hash: str) -> OneTimeToken | None:
        """Return the invitation or reset with that hash, expired or not."""
        return one(self._connection, OneTimeToken, hash=token_hash)

    def one_time_tokens(self, member_id: str) -> Sequence[OneTimeToken]:
        """Return the member's invitation or reset."""
        return every(self._connection, OneTimeToken, member_id=member_id)

    def has_members(self) -> bool:
        """Tell whether there is any member in any organisation; nobody becomes the first one meanwhile."""
        # Two processes on PostgreSQL could both find nobody; whoever has this row's lock is alone.
        self._connection.execute(select(tables.lineage.c.id).with_for_update())
        return has_members(self._connection)

    def owners(self, organisation_id: str) -> Sequence[Member]:
        """Return the owners of the organisation."""
        return every(self._connection, Member, organisation_id=organisation_id, role=Role.OWNER)


def _by(reference: str) -> dict[str, str]:
    return {"id": reference.lower()} if is_id(reference) else {"key": reference}


def _of_project(table: Table, project_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.project_id == project_id, table.c.deleted_at.is_(None)
