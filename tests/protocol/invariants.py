"""The change stream's promises I1-I10, one checker each. A checker raises AssertionError when its promise is broken."""

from collections.abc import Mapping, Sequence

from relay.protocol.changes import Bookmark, ChangeSet, Message, Snapshot, State
from relay.protocol.resume import ResumeToken
from relay.sync.store import Configuration, Store, Swap
from tests.protocol.authority import Authority, Position, Replica

UNUSABLE_FLAG = "unusable"
UNUSABLE = b'{"type":1}'
"""A flag that passes every check of the protocol and that the engine refuses."""


def i1_monotonic(swap: Swap) -> None:
    """Within an epoch a revision never goes down."""
    if swap.before and swap.after and swap.before.state.epoch == swap.after.state.epoch:
        assert swap.after.revision >= swap.before.revision


def i2_no_gap(swap: Swap) -> None:
    """A change set is applied only to the revision that it starts from."""
    if swap.changes is not None:
        assert swap.before is not None
        assert swap.after is not None
        assert swap.changes.from_revision == swap.before.revision
        assert swap.changes.epoch == swap.before.state.epoch
        assert swap.changes.revision == swap.after.revision


def i3_atomic(swap: Swap, history: Mapping[Position, State]) -> None:
    """What is visible is exactly one revision, in the bytes and in what is evaluated."""
    after = swap.after
    if after is not None:
        whole = history[after.ref.id, after.state.epoch, after.revision]
        assert after.state == whole
        assert after.environment.revision == whole.revision
        assert after.environment.flags.keys() == whole.flags.keys()
        assert after.environment.segments.keys() == whole.segments.keys()
        assert {each.id for each in after.credentials.values()} == whole.credentials.keys()


def i4_unique(swap: Swap) -> None:
    """What is applied already changes nothing, so every swap shows something new."""
    if swap.before and swap.after:
        assert swap.before.state != swap.after.state
        if swap.changes is not None:
            assert swap.after.revision > swap.before.revision


def i5_resumable(token: ResumeToken | None, sent: Sequence[Message | None], replica: Replica) -> None:
    """A position in the kept window gets exactly the revisions after it; every other one gets one snapshot."""
    authority = replica.authority
    for environment_id, head in replica.heads.items():
        position = None if token is None else token.position(environment_id)
        changes = [m.revision for m in sent if isinstance(m, ChangeSet) and m.environment_id == environment_id]
        snapshots = [m.state for m in sent if isinstance(m, Snapshot) and m.state.ref.id == environment_id]
        known = None
        if token is not None and position is not None and token.epoch == head.epoch:
            known = authority.history.get((environment_id, token.epoch, position.revision))
        if (
            position is not None
            and known is not None
            and known.content_hash.startswith(position.hash8)
            and authority.floors[environment_id] <= position.revision
        ):
            assert changes == list(range(position.revision + 1, head.revision + 1))
            assert not snapshots
        elif position is not None and known is not None and position.revision == head.revision:
            assert not changes
            assert not snapshots
        else:
            assert not changes
            assert snapshots == [head]


def i5_no_needless_resync(reason: str, *, is_disturbed: bool, refused: int) -> None:
    """A stream that nothing disturbed is followed to the end: resuming is what makes resynchronising rare."""
    assert is_disturbed or refused, reason


def i6_bookmarked(bookmark: Bookmark, store: Store, refused: set[str | None]) -> None:
    """After a bookmark that ended nothing, everything up to it is there."""
    for environment_id, mark in bookmark.marks.items():
        if environment_id in refused:
            continue
        configuration = store.get(environment_id)
        assert configuration is not None
        assert configuration.state.epoch == mark.epoch
        assert configuration.revision >= mark.revision
        if configuration.revision == mark.revision:
            assert configuration.state.content_hash == mark.content_hash
            assert configuration.state.credentials_hash == mark.credentials_hash


def i7_convergent(authority: Authority, store: Store) -> None:
    """Once faults have ended, a follower holds the authority's bytes."""
    assert store.configurations.keys() == authority.states.keys()
    for environment_id, head in authority.states.items():
        assert store.configurations[environment_id].state == head


def i11_obedient(authority: Authority, store: Store) -> None:
    """Once connected anew, a follower forces off exactly what is forced off above it."""
    held = {each.id: each for each in store.overlays.all()}
    assert held == authority.overlays
    for environment_id, configuration in store.configurations.items():
        off = {each.flag for each in held.values() if each.environment_id == environment_id}
        for key, flag in configuration.environment.flags.items():
            assert flag.enabled == (configuration.published.flags[key].enabled and key not in off)


def i8_last_good(before: Mapping[str, Configuration], refused_before: int, store: Store, refused_now: int) -> None:
    """An invalid message is counted and changes nothing."""
    assert store.configurations is before
    assert refused_now == refused_before + 1


def i8_never_unusable(swap: Swap) -> None:
    """A configuration that the engine refuses is never served."""
    assert swap.after is None or UNUSABLE_FLAG not in swap.after.state.flags


def i9_durable(swap: Swap, history: Mapping[Position, State]) -> None:
    """Nothing is visible that was not committed."""
    assert swap.after is None or (swap.after.ref.id, swap.after.state.epoch, swap.after.revision) in history


def i10_whole_or_nothing(before: Mapping[str, Configuration], store: Store, messages: int) -> None:
    """A message that was cut off has no effect at all."""
    assert messages == 0
    assert store.configurations is before
