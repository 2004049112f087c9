"""Bytes of the change stream that many followers share: encoded once per audience and revision.

Changes are kept in a bounded cache, newest used. Snapshots are made as they are sent, piece by piece, and kept only
as long as somebody is sending them: a thousand relays that reconnect read the same pieces, and an idle process holds
none.
"""

from collections.abc import Iterator, Mapping
from typing import Final
from weakref import WeakValueDictionary

from cachetools import LRUCache

from relay.protocol.changes import ChangeSet, Mark, MessageName, State
from relay.protocol.encode import Audience, changes_lines, snapshot_lines
from relay.protocol.resume import short_id
from relay.protocol.sse import iter_event

_CACHE_BYTES: Final = 4 << 20
_CHUNK_BYTES: Final = 32 << 10
_HASH8: Final = 8


class Frames:
    """The shared bytes of one process."""

    def __init__(self) -> None:
        self._changes: LRUCache[tuple[str, str, int, str, str | None, Audience], bytes] = LRUCache(_CACHE_BYTES, len)
        self._snapshots: WeakValueDictionary[tuple[str, str, int, str, str | None, str, Audience], _Pieces]
        self._snapshots = WeakValueDictionary()

    @property
    def snapshots_shared(self) -> int:
        """Return how many snapshots are held for those who are being sent them."""
        return len(self._snapshots)

    def changes(self, change: ChangeSet, audience: Audience) -> bytes:
        """Return a `changes` event up to, and without, its id."""
        # An authority that was restored may make a revision a second time, so its number alone does not name it.
        hashes = (change.content_hash, change.credentials_hash)
        name = (change.environment_id, change.epoch, change.revision, *hashes, audience)
        frame = self._changes.get(name)
        if frame is None:
            frame = b"".join(_without_end(iter_event(MessageName.CHANGES, changes_lines(change, audience))))
            if len(frame) <= _CACHE_BYTES:
                self._changes[name] = frame
        return frame

    def snapshot(self, state: State, reason: str, audience: Audience) -> Iterator[bytes]:
        """Yield a `snapshot` event in chunks up to, and without, its id."""
        hashes = (state.content_hash, state.credentials_hash)
        name = (state.ref.id, state.epoch, state.revision, *hashes, reason, audience)
        pieces = self._snapshots.get(name)
        if pieces is None:
            pieces = self._snapshots[name] = _Pieces(
                _chunked(_without_end(iter_event(MessageName.SNAPSHOT, snapshot_lines(state, reason, audience))))
            )
        return iter(pieces)


class _Pieces:
    """What an iterator yields, for any number of readers, each piece made when the first of them needs it."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._made: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        position = 0
        while True:
            if position == len(self._made):
                made = next(self._source, None)
                if made is None:
                    return
                self._made.append(made)
            yield self._made[position]
            position += 1


def _without_end(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Leave out the last piece of an event, the blank line, as the id has to come before it."""
    held = next(pieces)
    for piece in pieces:
        yield held
        held = piece


def _chunked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join small pieces, as each one that is sent costs a system call."""
    held: list[bytes] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) >= _CHUNK_BYTES:
            yield b"".join(held)
            held = []
    if held:
        yield b"".join(held)


def token_line(epoch: str, held: Mapping[str, Mark]) -> bytes:
    """Return the end of a message: the resume token of a follower that stands at these marks."""
    positions = [
        f"{short_id(each)}-{mark.revision}-{mark.content_hash[:_HASH8]}"
        for each, mark in held.items()
        if mark.epoch == epoch
    ]
    return f"id: 1.{epoch}.{','.join(positions)}\n\n".encode()
