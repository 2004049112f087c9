"""One environment at one revision, and the change set that leads from one revision to the next.

States are immutable and hold every object as canonical bytes, because a relay with 10,000 flags cannot afford them as
dictionaries. Hashes are carried on from the objects that a change touches. Nothing here checks a message: that is
`relay.protocol.changes.apply`; an authority calls `advance` and `change_between` with changes of its own making.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

from relay.engine.steps import finished
from relay.protocol.hashing import content_hash, credentials_hash, diff_objects, object_hash, shift_hash

_OBJECTS_PER_STEP = 256

_Shift = tuple[list[int], list[int]]
"""Hashes of the objects that left and of those that joined."""


@dataclass(frozen=True, slots=True)
class EnvironmentRef:
    """What names an environment; ids are UUID text."""

    id: str
    key: str
    name: str
    project_id: str
    project_key: str


@dataclass(frozen=True, slots=True)
class State:
    """One environment at one revision. Never mutated: every change makes a new state.

    `credentials` maps credential id -> canonical bytes. For the server audience `credentials_hash` is None and
    credentials, limits and secrets are absent.
    """

    ref: EnvironmentRef
    epoch: str
    revision: int
    flags: Mapping[str, bytes]
    segments: Mapping[str, bytes]
    content_hash: str
    credentials: Mapping[str, bytes] = field(default_factory=dict)
    limits: bytes | None = None
    secrets: bytes | None = None
    credentials_hash: str | None = None


def build_state(  # noqa: PLR0913 - one argument per part of an environment
    ref: EnvironmentRef,
    epoch: str,
    revision: int,
    *,
    flags: Mapping[str, bytes],
    segments: Mapping[str, bytes],
    credentials: Mapping[str, bytes] | None = None,
    limits: bytes | None = None,
    secrets: bytes | None = None,
) -> State:
    """Return a state with its hashes computed from scratch. `credentials=None` means the server audience."""
    return State(
        ref=ref,
        epoch=epoch,
        revision=revision,
        flags=flags,
        segments=segments,
        content_hash=content_hash(flags, segments),
        credentials=credentials or {},
        limits=limits,
        secrets=secrets,
        credentials_hash=None if credentials is None else credentials_hash(credentials, limits, secrets),
    )


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """What one revision changed: whole objects, nothing else. `limits` and `secrets` are None when unchanged."""

    environment_id: str
    epoch: str
    from_revision: int
    revision: int
    content_hash: str
    committed_at: str
    upsert_flags: Mapping[str, bytes] = field(default_factory=dict)
    upsert_segments: Mapping[str, bytes] = field(default_factory=dict)
    remove_flags: tuple[str, ...] = ()
    remove_segments: tuple[str, ...] = ()
    upsert_credentials: Mapping[str, bytes] = field(default_factory=dict)
    remove_credentials: tuple[str, ...] = ()
    limits: bytes | None = None
    secrets: bytes | None = None
    credentials_hash: str | None = None


def advance(state: State, change: ChangeSet) -> State:
    """Return the state that a change set makes of its predecessor."""
    return finished(advance_steps(state, change))


def advance_steps(state: State, change: ChangeSet) -> Generator[None, None, State]:
    """Do what `advance` does, pausing (`yield`) after every few hundred objects: each of them is hashed."""
    hashes: _Shift = ([], [])
    flags = yield from _amend("flag", state.flags, change.upsert_flags, change.remove_flags, hashes)
    segments = yield from _amend("segment", state.segments, change.upsert_segments, change.remove_segments, hashes)
    after = replace(
        state,
        revision=change.revision,
        flags=flags,
        segments=segments,
        content_hash=_shifted(state.content_hash, hashes),
    )
    if state.credentials_hash is None:
        return after
    return (yield from _advance_credentials(after, state.credentials_hash, change))


def _advance_credentials(state: State, before_hash: str, change: ChangeSet) -> Generator[None, None, State]:
    hashes: _Shift = ([], [])
    upsert, remove = change.upsert_credentials, change.remove_credentials
    credentials = yield from _amend("credential", state.credentials, upsert, remove, hashes)
    limits = _replace_single("limits", state.limits, change.limits, hashes)
    secrets = _replace_single("secrets", state.secrets, change.secrets, hashes)
    if not any(hashes):
        return state
    return replace(
        state,
        credentials=credentials,
        limits=limits,
        secrets=secrets,
        credentials_hash=_shifted(before_hash, hashes),
    )


def _shifted(before: str, hashes: _Shift) -> str:
    removed, added = hashes
    return shift_hash(before, removed=removed, added=added) if removed or added else before


def _amend(
    kind: str, before: Mapping[str, bytes], upsert: Mapping[str, bytes], remove: tuple[str, ...], hashes: _Shift
) -> Generator[None, None, Mapping[str, bytes]]:
    if not upsert and not remove:
        return before
    removed, added = hashes
    after = dict(before)
    for key in remove:
        if (raw := after.pop(key, None)) is not None:
            removed.append(object_hash(kind, key, raw))
    for count, (key, raw) in enumerate(upsert.items(), 1):
        if (old := after.get(key)) is not None:
            removed.append(object_hash(kind, key, old))
        added.append(object_hash(kind, key, raw))
        after[key] = raw
        if count % _OBJECTS_PER_STEP == 0:
            yield
    return after


def _replace_single(kind: str, before: bytes | None, after: bytes | None, hashes: _Shift) -> bytes | None:
    if after is None:
        return before
    removed, added = hashes
    if before is not None:
        removed.append(object_hash(kind, "", before))
    added.append(object_hash(kind, "", after))
    return after


def change_between(before: State, after: State, committed_at: str) -> ChangeSet:
    """Return the change set of one revision that leads from `before` to `after`."""
    upsert_flags, remove_flags = diff_objects(before.flags, after.flags)
    upsert_segments, remove_segments = diff_objects(before.segments, after.segments)
    upsert_credentials, remove_credentials = diff_objects(before.credentials, after.credentials)
    return ChangeSet(
        environment_id=after.ref.id,
        epoch=after.epoch,
        from_revision=before.revision,
        revision=after.revision,
        content_hash=after.content_hash,
        committed_at=committed_at,
        upsert_flags=upsert_flags,
        upsert_segments=upsert_segments,
        remove_flags=remove_flags,
        remove_segments=remove_segments,
        upsert_credentials=upsert_credentials,
        remove_credentials=remove_credentials,
        limits=after.limits if after.limits != before.limits else None,
        secrets=after.secrets if after.secrets != before.secrets else None,
        credentials_hash=after.credentials_hash,
    )
