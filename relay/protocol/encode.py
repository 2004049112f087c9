"""Writes the change stream's messages as JSON, each audience getting what it may see and nothing else.

Objects are already canonical bytes, so messages are put together and not serialised again. The functions return the
data of an event; `relay.protocol.sse` frames it.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

import orjson

from relay.protocol.changes import Bookmark, ChangeSet, EnvironmentRef, Environments, Goodbye, Mark, State

SCHEMA = 1

SLICE_BYTES = 64 << 10
"""A data line of a large message is closed before the objects in it exceed this, unless a single object does."""


class Audience(StrEnum):
    """Who reads a stream: relays also get credentials, limits and secrets."""

    RELAY = "relay"
    SERVER = "server"


def snapshot_lines(state: State, reason: str, audience: Audience) -> Iterator[bytes]:
    """Yield the data lines of a `snapshot`. Joined by LF they are one JSON document, and each can be parsed alone."""
    head = {
        "schema": SCHEMA,
        "reason": reason,
        "environment": _ref(state.ref),
        "epoch": state.epoch,
        "revision": state.revision,
        "hash": state.content_hash,
    }
    yield orjson.dumps(head)[:-1] + b',"flags":{'
    yield from _slices(_members(state.flags))
    yield b'},"segments":{'
    yield from _slices(_members(state.segments))
    if audience is Audience.SERVER or state.credentials_hash is None:
        yield b"}}"
        return
    yield b'},"credentials":['
    yield from _slices(state.credentials.values())
    yield b'],"credentials_hash":"%b"%b%b}' % (
        state.credentials_hash.encode(),
        _optional("limits", state.limits),
        _optional("secrets", state.secrets),
    )


def encode_changes(change: ChangeSet, audience: Audience) -> bytes:
    """Return the data of a `changes` message in one line."""
    return b"".join(_change_pieces(change, audience))


def changes_lines(change: ChangeSet, audience: Audience) -> Iterator[bytes]:
    """Yield the data lines of a `changes` message: one, or many that can each be parsed alone where it is large."""
    upserts = (change.upsert_flags, change.upsert_segments, change.upsert_credentials)
    if sum(len(raw) for objects in upserts for raw in objects.values()) <= SLICE_BYTES:
        yield encode_changes(change, audience)
    else:
        yield from _change_pieces(change, audience)


def _change_pieces(change: ChangeSet, audience: Audience) -> Iterator[bytes]:
    remove: dict[str, Any] = {"flags": change.remove_flags, "segments": change.remove_segments}
    tail: dict[str, Any] = {"remove": remove, "committed_at": change.committed_at}
    head = {
        "environment": change.environment_id,
        "epoch": change.epoch,
        "from": change.from_revision,
        "to": change.revision,
        "hash": change.content_hash,
    }
    yield orjson.dumps(head)[:-1] + b',"upsert":{"flags":{'
    yield from _slices(_members(change.upsert_flags))
    yield b'},"segments":{'
    yield from _slices(_members(change.upsert_segments))
    if audience is Audience.SERVER:
        yield b"}}," + orjson.dumps(tail)[1:]
        return
    remove["credentials"] = change.remove_credentials
    if change.credentials_hash is not None:
        tail["credentials_hash"] = change.credentials_hash
    yield b'},"credentials":['
    yield from _slices(change.upsert_credentials.values())
    singles = _optional("limits", change.limits) + _optional("secrets", change.secrets)
    yield b"]%b},%b" % (singles, orjson.dumps(tail)[1:])


def encode_bookmark(bookmark: Bookmark, audience: Audience) -> bytes:
    """Return the data of a `bookmark` message."""
    marks = {environment_id: _mark(mark, audience) for environment_id, mark in bookmark.marks.items()}
    return orjson.dumps({"environments": marks, "at": bookmark.at, "age_s": bookmark.age_s})


def encode_environments(environments: Environments) -> bytes:
    """Return the data of an `environments` message."""
    told = {"complete": environments.is_complete, "lacking": sorted(environments.lacking)}
    return orjson.dumps({"environments": [_ref(ref) for ref in environments.refs], **told})


def encode_goodbye(goodbye: Goodbye) -> bytes:
    """Return the data of a `goodbye` message."""
    return orjson.dumps({"reason": goodbye.reason, "retry_ms": goodbye.retry_ms})


def _ref(ref: EnvironmentRef) -> dict[str, Any]:
    project = {"id": ref.project_id, "key": ref.project_key}
    return {"id": ref.id, "key": ref.key, "name": ref.name, "project": project}


def _mark(mark: Mark, audience: Audience) -> dict[str, Any]:
    members = {"epoch": mark.epoch, "revision": mark.revision, "hash": mark.content_hash}
    if audience is Audience.RELAY and mark.credentials_hash is not None:
        members["credentials_hash"] = mark.credentials_hash
    return members


def _members(objects: Mapping[str, bytes]) -> Iterator[bytes]:
    return (b"%b:%b" % (orjson.dumps(key), raw) for key, raw in objects.items())


def _optional(name: str, raw: bytes | None) -> bytes:
    return b"" if raw is None else b',"%b":%b' % (name.encode(), raw)


def _slices(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Join parts with commas into lines; every line but the last ends with the comma that the next one needs."""
    line: list[bytes] = []
    size = 0
    for part in parts:
        if line and size + len(part) > SLICE_BYTES:
            yield b",".join(line) + b","
            line, size = [], 0
        line.append(part)
        size += len(part) + 1
    if line:
        yield b",".join(line)
