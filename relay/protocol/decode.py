"""Reads the change stream's messages. Whatever is wrong with one is a `BadMessage` that says where and why.

A snapshot is read line by line (`decode_steps`), so that 10,000 flags never hold the event loop for long, and each
object is brought into canonical bytes at once, so that they never exist as dictionaries together. A snapshot whose
content has not the hash that it claims is refused here. Unknown fields and unknown event names are ignored: the sender
may be newer. An unknown schema is not.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

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
from relay.protocol.hashing import EMPTY_HASH, content_hash, credentials_hash, object_hash, shift_hash
from relay.protocol.moments import moment_ms
from relay.protocol.overlays import read_overlay, read_overlay_end
from relay.protocol.state import State

__all__ = ["BadMessage", "decode_steps", "parse_message"]


def parse_message(event: str, data: bytes) -> Message | None:
    """Parse one event at once; None for an event name that is not known.

    Raises:
        BadMessage: the data is malformed.
    """
    steps = decode_steps(event, data.split(b"\n"))
    while True:
        try:
            next(steps)
        except StopIteration as done:
            message: Message | None = done.value
            return message


def decode_steps(event: str, lines: Sequence[bytes]) -> Generator[None, None, Message | None]:
    """Parse one event given as its data lines, pausing (`yield`) after each line of a snapshot.

    Raises:
        BadMessage: the data is malformed.
    """
    if event == MessageName.SNAPSHOT:
        return (yield from _snapshot(lines))
    reader = _READERS.get(event)
    return None if reader is None else reader(Fields(load(b"\n".join(lines), event)))


def _snapshot(lines: Sequence[bytes]) -> Generator[None, None, Snapshot]:
    if not lines or not lines[0].endswith(b'"flags":{'):
        # Not cut into our lines: still a document that any sender may send.
        whole = _snapshot_head(load(b"\n".join(lines), MessageName.SNAPSHOT))
        flags, segments = whole.objects("flags"), whole.objects("segments")
        return _built(whole, flags, segments, content_hash(flags, segments), whole.identified("credentials"), whole)
    slices = _Slices(_snapshot_head(load(lines[0] + b"}}", MessageName.SNAPSHOT)))
    for line in lines[1:]:
        slices.take(line)
        yield
    return slices.finish()


class _Slices:
    """Takes the lines of a snapshot after the first, in the form that `relay.protocol.encode` writes."""

    def __init__(self, head: Fields) -> None:
        self._head = head
        self._section = "flags"
        self._tail = Fields({})
        self._objects: Mapping[str, dict[str, bytes]] = {"flags": {}, "segments": {}, "credentials": {}}
        # Hashing 10,000 objects at the end would hold the loop for 30 ms.
        self._content_hash = EMPTY_HASH

    def take(self, line: bytes) -> None:
        match self._section, line:
            case "flags", b'},"segments":{':
                self._section = "segments"
            case "segments", b'},"credentials":[':
                self._section = "credentials"
            case "segments", b"}}":
                self._section = "end"
            case "credentials", _ if line.startswith(b"]"):
                self._tail = self._fields(b'{"credentials":[' + line)
                self._section = "end"
            case "credentials", _:
                fields = self._fields(b'{"credentials":[' + line.removesuffix(b",") + b"]}")
                self._objects["credentials"].update(fields.identified("credentials"))
            case "flags" | "segments" as section, _:
                fields = self._fields(b'{"%b":{%b}}' % (section.encode(), line.removesuffix(b",")))
                objects = fields.objects(section)
                self._objects[section].update(objects)
                added = (object_hash(section.removesuffix("s"), key, raw) for key, raw in objects.items())
                self._content_hash = shift_hash(self._content_hash, added=added)
            case _:
                raise self._head.bad("message", "goes on after its end")

    def finish(self) -> Snapshot:
        if self._section != "end":
            raise self._head.bad(self._section, "the snapshot is cut off here")
        flags, segments, credentials = self._objects.values()
        return _built(self._head, flags, segments, self._content_hash, credentials, self._tail)

    def _fields(self, raw: bytes) -> Fields:
        environment_id = self._head.environment_id
        return Fields(load(raw, self._section, environment_id), environment_id=environment_id)


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
    upsert, remove = fields.fields("upsert"), fields.fields("remove")
    change = ChangeSet(
        environment_id=fields.environment_id,
        epoch=fields.text("epoch", EPOCH),
        from_revision=fields.integer("from"),
        revision=fields.integer("to"),
        content_hash=fields.text("hash", HASH),
        committed_at=_moment(fields, "committed_at"),
        upsert_flags=upsert.objects("flags"),
        upsert_segments=upsert.objects("segments"),
        remove_flags=remove.texts("flags"),
        remove_segments=remove.texts("segments"),
        upsert_credentials=upsert.identified("credentials"),
        remove_credentials=remove.texts("credentials"),
        limits=upsert.optional_object("limits"),
        secrets=upsert.optional_object("secrets"),
        credentials_hash=fields.optional_hash("credentials_hash"),
    )
    if change.revision != change.from_revision + 1:
        raise fields.bad("to", "one message must carry exactly one revision")
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
