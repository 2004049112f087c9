"""What the streams read: the lineage, whole environments, and the change log.

`read_snapshot` and `read_changes` see one moment, as every read transaction does. The log is kept for a window; what
has left it is answered with None, and the follower gets a snapshot instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Select, Text, delete, func, insert, select, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from relay.protocol.changes import ChangeSet, EnvironmentRef, State
from relay.protocol.decode import parse_message
from upstream.storage import tables

DAY_MS = 86_400_000


class _Timeline(FunctionElement[str]):
    """What follows a lineage's id in an epoch: on PostgreSQL the server's timeline, else nothing.

    A standby that takes over begins a new timeline, and may lack what was committed last: its revisions are others. A
    function, because SQLAlchemy caches what it compiles only for elements that say of what they are made.
    """

    inherit_cache = True
    type = Text()


@compiles(_Timeline)
def _no_timeline(_element: _Timeline, _compiler: Any, **_: Any) -> str:
    return "''"


@compiles(_Timeline, "postgresql")
def _timeline(_element: _Timeline, _compiler: Any, **_: Any) -> str:
    # Not pg_control_checkpoint(), which goes on naming the old timeline until the first checkpoint after a failover.
    return "('-' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))"


EPOCH = select(tables.lineage.c.id + _Timeline())
"""Selects the epoch of every stream."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where an environment stands."""

    ref: EnvironmentRef
    revision: int
    content_hash: str
    credentials_hash: str


def lineage(connection: Connection) -> str:
    """Return which line of revisions this is: the epoch of every stream."""
    return str(connection.execute(EPOCH).scalar_one())


def found_lineage(connection: Connection, lineage_id: str, now_ms: int) -> None:
    """Give a new database its lineage (16 hex digits); an existing one keeps its own."""
    if connection.execute(select(func.count()).select_from(tables.lineage)).scalar_one() == 0:
        connection.execute(insert(tables.lineage), {"id": lineage_id, "created_at": now_ms})


def renew_lineage(connection: Connection, lineage_id: str, now_ms: int) -> None:
    """Begin a new line of revisions, as after a restore: what followers hold may be ahead of what is stored now."""
    connection.execute(update(tables.lineage).values(id=lineage_id, created_at=now_ms))


def heads(connection: Connection) -> list[Head]:
    """Return where every environment stands."""
    return [_head(row) for row in connection.execute(_heads())]


def _heads() -> "Select[tuple[str, str, str, str, str, int, str, str]]":
    environments, projects = tables.environments, tables.projects
    return select(
        environments.c.id,
        environments.c.key,
        environments.c.name,
        projects.c.id,
        projects.c.key,
        environments.c.revision,
        environments.c.content_hash,
        environments.c.credentials_hash,
    ).join(projects, projects.c.id == environments.c.project_id)


def _head(row: Sequence[object]) -> Head:
    environment_id, key, name, project_id, project_key, revision, content_hash, credentials_hash = row
    ref = EnvironmentRef(str(environment_id), str(key), str(name), str(project_id), str(project_key))
    return Head(ref, int(str(revision)), str(content_hash), str(credentials_hash))


def read_snapshot(connection: Connection, environment_id: str) -> State | None:
    """Return one environment as it is published now; None if there is no such environment."""
    row = connection.execute(_heads().where(tables.environments.c.id == environment_id)).one_or_none()
    if row is None:
        return None
    head = _head(row)
    parts: dict[str, dict[str, bytes]] = {kind: {} for kind in ("flag", "segment", "credential", "limits", "secrets")}
    table = tables.environment_objects
    objects = select(table.c.kind, table.c.key, table.c.body).where(table.c.environment_id == environment_id)
    for kind, key, body in connection.execute(objects):
        parts[kind][key] = body
    return State(
        ref=head.ref,
        epoch=lineage(connection),
        revision=head.revision,
        flags=parts["flag"],
        segments=parts["segment"],
        content_hash=head.content_hash,
        credentials=parts["credential"],
        limits=parts["limits"].get(""),
        secrets=parts["secrets"].get(""),
        credentials_hash=head.credentials_hash,
    )


def read_changes(
    connection: Connection,
    environment_id: str,
    after: int,
    upto: int | None = None,
    *,
    at_most: int | None = None,
) -> tuple[ChangeSet, ...] | None:
    """Return the change sets (after, upto], at most so many; None when the log does not reach back to `after`."""
    table = tables.change_log
    query = select(table.c.revision, table.c.body).where(
        table.c.environment_id == environment_id,
        table.c.revision > after,
    )
    if upto is not None:
        query = query.where(table.c.revision <= upto)
    rows = connection.execute(query.order_by(table.c.revision).limit(at_most)).all()
    if rows:
        return tuple(_change(row.body) for row in rows) if rows[0].revision == after + 1 else None
    heads_table = tables.environments
    head = connection.execute(select(heads_table.c.revision).where(heads_table.c.id == environment_id)).scalar()
    is_current = head is not None and (head == after or (upto is not None and upto <= after <= head))
    return () if is_current else None


def _change(body: bytes) -> ChangeSet:
    return cast("ChangeSet", parse_message("changes", body))


def compact(connection: Connection, now_ms: int, *, keep_ms: int = 7 * DAY_MS, keep_revisions: int = 10_000) -> int:
    """Delete change sets that are older than `keep_ms` or not among the last `keep_revisions`; returns how many.

    What stays is dense up to the head, also after the wall clock jumped.
    """
    table = tables.change_log
    deleted = 0
    for environment_id, revision in connection.execute(
        select(tables.environments.c.id, tables.environments.c.revision),
    ).all():
        old = select(func.max(table.c.revision)).where(
            table.c.environment_id == environment_id,
            table.c.committed_at < now_ms - keep_ms,
        )
        bound = max(connection.execute(old).scalar() or 0, revision - keep_revisions)
        gone = delete(table).where(table.c.environment_id == environment_id, table.c.revision <= bound)
        deleted += connection.execute(gone).rowcount
    return deleted


def forget_idempotency(connection: Connection, before_ms: int) -> int:
    """Delete the answers to repeated writes that are older; returns how many."""
    return connection.execute(delete(tables.idempotency).where(tables.idempotency.c.at < before_ms)).rowcount
