"""What a command makes visible: new objects, a new revision, and the change set that says so.

Runs inside the command's transaction, after its entities are written. For every environment that the command may
concern, the objects are rendered anew and compared with the bytes that were published last; only where they differ is
there a new revision, by `UPDATE … SET revision = revision + 1 … RETURNING`, taken in the order of environment ids, so
that revisions are dense and two writers never wait for each other in a circle. Hashes are carried on.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from relay.clock import rfc3339
from relay.protocol.encode import Audience, encode_changes
from relay.protocol.hashing import EMPTY_HASH, canonical, object_hash, shift_hash
from relay.protocol.state import ChangeSet
from upstream.storage import tables
from upstream.storage.history import EPOCH

Render: TypeAlias = Callable[[int], dict[str, Any] | None]
"""Renders an object, given the version to write into it; None = it is not published."""

Name: TypeAlias = tuple[str, str]
"""Kind and key of an object."""

CONTENT = ("flag", "segment")
_LOOKED_UP_ONE_BY_ONE = 20

# Statements are built once; building one costs more than running it. The parameters of conditions are named like no
# column, because SQLAlchemy keeps the columns' names for the values to be set.
_environments, _objects = tables.environments, tables.environment_objects
_THIS_ENVIRONMENT = _environments.c.id == bindparam("of_id")
_HEAD = (
    select(
        _environments.c.revision,
        _environments.c.content_hash,
        _environments.c.credentials_hash,
        EPOCH.scalar_subquery().label("epoch"),
    )
    .where(_THIS_ENVIRONMENT)
    # Not FOR UPDATE: that would wait for whoever has just added a row which refers to this one.
    .with_for_update(of=_environments, key_share=True)
)
_ADVANCE = (
    update(_environments)
    .where(_THIS_ENVIRONMENT)
    .values(
        revision=_environments.c.revision + 1,
        content_hash=bindparam("content_hash"),
        credentials_hash=bindparam("credentials_hash"),
    )
    .returning(_environments.c.revision)
)
_OF_ENVIRONMENT = _objects.c.environment_id == bindparam("of_environment")
_NAMED = (_OF_ENVIRONMENT, _objects.c.kind == bindparam("of_kind"), _objects.c.key == bindparam("of_key"))
_OBJECTS = select(_objects.c.kind, _objects.c.key, _objects.c.body, _objects.c.revision).where(_OF_ENVIRONMENT)
_OBJECT = _OBJECTS.where(*_NAMED[1:])
_DELETE = delete(_objects).where(*_NAMED)
_CHANGE = update(_objects).where(*_NAMED).values(body=bindparam("body"), revision=bindparam("revision"))


@dataclass(frozen=True, slots=True)
class _Stored:
    """An object as it was published last, and the revision that did."""

    body: bytes
    revision: int


@dataclass(slots=True)
class _Difference:
    """What one environment's next revision changes, with the hashes of the objects that leave and join."""

    upsert: dict[Name, bytes] = field(default_factory=dict)
    remove: list[Name] = field(default_factory=list)
    known: set[Name] = field(default_factory=set)
    left: dict[bool, list[int]] = field(default_factory=lambda: {True: [], False: []})
    joined: dict[bool, list[int]] = field(default_factory=lambda: {True: [], False: []})

    def note(self, name: Name, before: bytes | None, after: bytes | None) -> None:
        kind, key = name
        is_content = kind in CONTENT
        if before is not None:
            self.known.add(name)
            self.left[is_content].append(object_hash(kind, key, before))
        if after is not None:
            self.upsert[name] = after
            self.joined[is_content].append(object_hash(kind, key, after))
        else:
            self.remove.append(name)

    def shifted(self, before: str, *, is_content: bool) -> str:
        return shift_hash(before or EMPTY_HASH, removed=self.left[is_content], added=self.joined[is_content])

    def of_kind(self, kind: str) -> dict[str, bytes]:
        return {key: raw for (each, key), raw in self.upsert.items() if each == kind}

    def gone(self, kind: str) -> tuple[str, ...]:
        return tuple(key for each, key in self.remove if each == kind)

    def single(self, kind: str) -> bytes | None:
        return self.upsert.get((kind, ""))


def publish(connection: Connection, drafts: Mapping[str, Mapping[Name, Render]], now_ms: int) -> dict[str, int]:
    """Publish what differs and return the new revision of each environment that has one.

    Args:
        connection: the command's own.
        drafts: environment id -> name of an object -> how it is rendered now.
        now_ms: the time of the commit.
    """
    revisions: dict[str, int] = {}
    for environment_id in sorted(drafts):
        revision = _publish_one(connection, environment_id, drafts[environment_id], now_ms)
        if revision is not None:
            revisions[environment_id] = revision
    return revisions


def _publish_one(connection: Connection, environment_id: str, drafts: Mapping[Name, Render], now_ms: int) -> int | None:
    head = connection.execute(_HEAD, {"of_id": environment_id}).one_or_none()
    if head is None:
        # Deleted since it was drafted; only who drafts without a lock (expired keys) comes across that.
        return None
    stored = _stored(connection, environment_id, drafts) if head.revision else {}
    difference = _compared(drafts, stored, head.revision + 1)
    if not difference.upsert and not difference.remove:
        return None
    hashes = {
        "content_hash": difference.shifted(head.content_hash, is_content=True),
        "credentials_hash": difference.shifted(head.credentials_hash, is_content=False),
    }
    revision = int(connection.execute(_ADVANCE, {"of_id": environment_id, **hashes}).scalar_one())
    _store_objects(connection, environment_id, difference, revision)
    if revision > 1:
        # Nobody can hold revision 0, so the first one is only ever sent as a snapshot.
        change = _change_set(environment_id, difference, head.epoch, revision, now_ms, hashes)
        _log(connection, change, now_ms)
    return revision


def _stored(connection: Connection, environment_id: str, names: Iterable[Name]) -> dict[Name, _Stored]:
    """Return what is published under these names; under all of them where there are many."""
    wanted = list(names)
    if len(wanted) > _LOOKED_UP_ONE_BY_ONE:
        rows = list(connection.execute(_OBJECTS, {"of_environment": environment_id}))
    else:
        rows = [
            row
            for kind, key in wanted
            for row in connection.execute(_OBJECT, {"of_environment": environment_id, "of_kind": kind, "of_key": key})
        ]
    return {(row.kind, row.key): _Stored(row.body, row.revision) for row in rows}


def _compared(drafts: Mapping[Name, Render], stored: Mapping[Name, _Stored], revision: int) -> _Difference:
    difference = _Difference()
    for name, render in drafts.items():
        row = stored.get(name)
        if row is None:
            fresh = render(revision)
            if fresh is not None:
                difference.note(name, None, canonical(fresh))
            continue
        # Rendered with the version it has: equal bytes mean that nothing but bookkeeping was changed.
        same = render(row.revision)
        if same is None:
            difference.note(name, row.body, None)
        elif canonical(same) != row.body:
            difference.note(name, row.body, canonical(render(revision)))
    return difference


def _store_objects(connection: Connection, environment_id: str, difference: _Difference, revision: int) -> None:
    def rows(names: Iterable[Name]) -> list[dict[str, Any]]:
        return [{"of_environment": environment_id, "of_kind": kind, "of_key": key} for kind, key in names]

    if difference.remove:
        connection.execute(_DELETE, rows(difference.remove))
    changed = [name for name in difference.upsert if name in difference.known]
    if changed:
        bodies = [{"body": difference.upsert[name], "revision": revision} for name in changed]
        connection.execute(_CHANGE, [{**row, **body} for row, body in zip(rows(changed), bodies, strict=True)])
    fresh = [name for name in difference.upsert if name not in difference.known]
    if fresh:
        shared: dict[str, Any] = {"environment_id": environment_id, "revision": revision}
        new = [{**shared, "kind": name[0], "key": name[1], "body": difference.upsert[name]} for name in fresh]
        connection.execute(insert(tables.environment_objects), new)


def _change_set(  # noqa: PLR0913, PLR0917 - each of them is needed
    environment_id: str,
    difference: _Difference,
    epoch: str,
    revision: int,
    now_ms: int,
    hashes: Mapping[str, str],
) -> ChangeSet:
    return ChangeSet(
        environment_id=environment_id,
        epoch=epoch,
        from_revision=revision - 1,
        revision=revision,
        committed_at=rfc3339(now_ms),
        upsert_flags=difference.of_kind("flag"),
        upsert_segments=difference.of_kind("segment"),
        remove_flags=difference.gone("flag"),
        remove_segments=difference.gone("segment"),
        upsert_credentials=difference.of_kind("credential"),
        remove_credentials=difference.gone("credential"),
        limits=difference.single("limits"),
        secrets=difference.single("secrets"),
        **hashes,
    )


def _log(connection: Connection, change: ChangeSet, now_ms: int) -> None:
    row = {
        "environment_id": change.environment_id,
        "revision": change.revision,
        "committed_at": now_ms,
        "body": encode_changes(change, Audience.RELAY),
        "content_hash": change.content_hash,
        "credentials_hash": change.credentials_hash,
    }
    connection.execute(insert(tables.change_log), row)
