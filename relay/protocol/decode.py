"""Reads the change stream's messages. Whatever is wrong with one is a `BadMessage` that says where and why.

A snapshot, or a large change set, is read line by line (`decode_steps`), so that 10,000 flags never hold the event loop
for long. A snapshot whose content has not the hash that it claims is refused here. Unknown fields and unknown event
names are ignored: the sender may be newer. An unknown schema is not.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from relay.engine.steps import finished
from relay.protocol.changes import (
    MAX_ENVIRONMENTS,
    SNAPSHOT_REASONS,
    Bookmark,
    ChangeSet,
    EnvironmentRef,
    Environments,
    Goodbye,
    Mark,
    Message,
    MessageName,
    Snapshot,
)
from relay.protocol.encode import SCHEMA
from relay.protocol.fields import EPOCH, HASH, ID, BadMessage, Fields, load
from relay.protocol.hashing import content_hash, credentials_hash
from relay.protocol.moments import moment_ms
from relay.protocol.overlays import read_overlay, read_overlay_end
from relay.protocol.slices import Slices, is_sliced
from relay.protocol.state import State

__all__ = ["BadMessage", "decode_steps", "parse_message"]


def parse_message(event: str, data: bytes) -> Message | None:
    """Parse one event at once; None for an event name that is not known.

    Raises:
        BadMessage: the data is malformed.
    """
    return finished(decode_steps(event, data.split(b"\n")))


def decode_steps(event: str, lines: Sequence[bytes]) -> Generator[None, None, Message | None]:
    """Parse one event given as its data lines, pausing (`yield`) after each line of a large one.

    Raises:
        BadMessage: the data is malformed.
    """
    if event == MessageName.SNAPSHOT:
        return (yield from _snapshot(lines))
    if event == MessageName.CHANGES and is_sliced(lines):
        return (yield from _large_changes(lines))
    reader = _READERS.get(event)
    return None if reader is None else reader(Fields(load(b"\n".join(lines), event)))


def _snapshot(lines: Sequence[bytes]) -> Generator[None, None, Snapshot]:
    if not is_sliced(lines):
        # Still a document that any sender may send.
        whole = _snapshot_head(load(b"\n".join(lines), MessageName.SNAPSHOT))
        flags, segments = whole.objects("flags"), whole.objects("segments")
        return _built(whole, flags, segments, content_hash(flags, segments), whole.identified("credentials"), whole)
    head = _snapshot_head(load(lines[0] + b"}}", MessageName.SNAPSHOT))
    slices = Slices(head, b"{")
    yield from slices.take_each(lines[1:])
    return _built(head, slices.flags, slices.segments, slices.content_hash, slices.credentials, slices.tail)


def _large_changes(lines: Sequence[bytes]) -> Generator[None, None, ChangeSet]:
    head = Fields(load(lines[0] + b"}}}", MessageName.CHANGES))
    head.environment_id = head.text("environment", ID)
    slices = Slices(head, b'{"upsert":{')
    yield from slices.take_each(lines[1:])
    return _change_set(head, slices.tail, slices.flags, slices.segments, slices.credentials)


def _snapshot_head(obj: Any) -> Fields:
    fields = Fields(obj)
    fields.environment_id = fields.fields("environment").text("id", ID)
    if fields.integer("schema") != SCHEMA:
        raise fields.bad("schema", f"is not understood; this version reads schema {SCHEMA}")
    return fields


def _built(  # noqa: PLR0913, PLR0917 - the parts of a snapshot
    head: Fields,
    flags: dict[str, bytes],
    segments: dict[str, bytes],
    content: str,
    credentials: dict[str, bytes],
    tail: Fields,
) -> Snapshot:
    reason = head.text("reason")
    if reason not in SNAPSHOT_REASONS:
        # A newer sender's reason changes nothing but what the log says.
        reason = "start"
    if content != head.text("hash", HASH):
        raise head.bad("hash", "differs from the hash of the content")
    state = State(
        ref=_ref(head.fields("environment")),
        epoch=head.text("epoch", EPOCH),
        revision=head.integer("revision"),
        flags=flags,
        segments=segments,
        content_hash=content,
    )
    claimed = tail.optional_hash("credentials_hash")
    return Snapshot(state if claimed is None else _with_credentials(state, credentials, tail, claimed), reason)


def _with_credentials(state: State, credentials: dict[str, bytes], tail: Fields, claimed: str) -> State:
    limits, secrets = tail.optional_object("limits"), tail.optional_object("secrets")
    if credentials_hash(credentials, limits, secrets) != claimed:
        raise BadMessage("credentials_hash", "differs from the hash of the credentials", state.ref.id)
    return replace(state, credentials=credentials, limits=limits, secrets=secrets, credentials_hash=claimed)


def _ref(fields: Fields) -> EnvironmentRef:
    project = fields.fields("project")
    return EnvironmentRef(
        id=fields.text("id", ID),
        key=fields.text("key"),
        name=fields.text("name"),
        project_id=project.text("id"),
        project_key=project.text("key"),
    )


def _changes(fields: Fields) -> ChangeSet:
    fields.environment_id = fields.text("environment", ID)
    upsert = fields.fields("upsert")
    flags, segments = upsert.objects("flags"), upsert.objects("segments")
    return _change_set(fields, fields, flags, segments, upsert.identified("credentials"))


def _change_set(
    head: Fields, tail: Fields, flags: dict[str, bytes], segments: dict[str, bytes], credentials: dict[str, bytes]
) -> ChangeSet:
    upsert, remove = tail.fields("upsert"), tail.fields("remove")
    change = ChangeSet(
        environment_id=head.text("environment", ID),
        epoch=head.text("epoch", EPOCH),
        from_revision=head.integer("from"),
        revision=head.integer("to"),
        content_hash=head.text("hash", HASH),
        committed_at=_moment(tail, "committed_at"),
        upsert_flags=flags,
        upsert_segments=segments,
        remove_flags=remove.texts("flags"),
        remove_segments=remove.texts("segments"),
        upsert_credentials=credentials,
        remove_credentials=remove.texts("credentials"),
        limits=upsert.optional_object("limits"),
        secrets=upsert.optional_object("secrets"),
        credentials_hash=tail.optional_hash("credentials_hash"),
    )
    if change.revision != change.from_revision + 1:
        raise head.bad("to", "one message must carry exactly one revision")
    return change


def _bookmark(fields: Fields) -> Bookmark:
    environments = fields.fields("environments")
    ids = fields.members("environments")
    if len(ids) > MAX_ENVIRONMENTS:
        raise fields.bad("environments", f"more than {MAX_ENVIRONMENTS}")
    marks = {_id(fields, each): _mark(environments.fields(each)) for each in ids}
    at = None if fields.is_null("at") else _moment(fields, "at")
    return Bookmark(marks, at, _age_s(fields))


def _age_s(fields: Fields) -> float | None:
    # A sender that does not tell confirms what it sends by itself.
    if "age_s" not in fields:
        return 0.0
    return None if fields.is_null("age_s") else fields.number("age_s")


def _moment(fields: Fields, name: str) -> str:
    """Return a date-time as it stands there: `T` and `Z` in upper case, as everybody who reads it later expects."""
    text = fields.text(name)
    try:
        moment_ms(text)
    except ValueError as error:
        raise fields.bad(name, str(error)) from None
    if not text.isupper():
        raise fields.bad(name, "must have T and Z in upper case")
    return text


def _id(fields: Fields, text: str, name: str = "environments") -> str:
    if not ID.fullmatch(text):
        raise fields.bad(name, f"{text[:64]!r} is not an environment's id")
    return text


def _mark(fields: Fields) -> Mark:
    return Mark(
        epoch=fields.text("epoch", EPOCH),
        revision=fields.integer("revision"),
        content_hash=fields.text("hash", HASH),
        credentials_hash=fields.optional_hash("credentials_hash"),
    )


def _environments(fields: Fields) -> Environments:
    items = fields.items("environments")
    if "environments" not in fields or len(items) > MAX_ENVIRONMENTS:
        raise fields.bad("environments", f"must be an array of at most {MAX_ENVIRONMENTS}")
    refs = tuple(_ref(Fields(item, f"environments.{index}.")) for index, item in enumerate(items))
    is_complete = fields.boolean("complete") if "complete" in fields else True
    return Environments(refs, is_complete, frozenset(_id(fields, each, "lacking") for each in fields.texts("lacking")))


def _goodbye(fields: Fields) -> Goodbye:
    return Goodbye(fields.text("reason"), fields.integer("retry_ms"))


_READERS: Mapping[str, Callable[[Fields], Message]] = {
    MessageName.CHANGES: _changes,
    MessageName.BOOKMARK: _bookmark,
    MessageName.ENVIRONMENTS: _environments,
    MessageName.GOODBYE: _goodbye,
    MessageName.OVERLAY: read_overlay,
    MessageName.OVERLAY_END: read_overlay_end,
}
