"""How a message turns a follower's state into the next, case by case."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.changes import (
    Applied,
    ChangeSet,
    Duplicate,
    Mark,
    NeedResync,
    Outcome,
    Snapshot,
    State,
    apply,
    mark_of,
    verify,
)
from relay.protocol.hashing import EMPTY_HASH, content_hash, credentials_hash, diff_objects, object_hash, shift_hash
from relay.protocol.state import advance, build_state, change_between
from tests.protocol.build import COMMITTED_AT, credential, environment_ref, flag, segment, state

BEFORE = state(4)
AFTER = state(5, flags={"checkout": flag(2), "search": flag()}, segments={"beta": segment()})
CHANGE = change_between(BEFORE, AFTER, COMMITTED_AT)

objects = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([b"{}", b'{"v":1}', b'{"v":2}']))


def test_the_next_revision_is_applied() -> None:
    """A change set from the revision held leads to exactly the authority's state."""
    assert apply(BEFORE, CHANGE) == Applied(AFTER)


@pytest.mark.parametrize(
    ("held", "message", "outcome"),
    [
        (None, CHANGE, NeedResync("changes for an environment without a snapshot")),
        (replace(BEFORE, epoch="e0"), CHANGE, NeedResync("changes of epoch e1, held epoch e0")),
        (AFTER, CHANGE, Duplicate()),
        (replace(AFTER, revision=9), CHANGE, Duplicate()),
        (replace(BEFORE, revision=3), CHANGE, NeedResync("changes from revision 4, held revision 3")),
        (BEFORE, replace(CHANGE, content_hash=EMPTY_HASH), NeedResync("content hash differs at revision 5")),
        (BEFORE, replace(CHANGE, credentials_hash=EMPTY_HASH), NeedResync("credentials hash differs at revision 5")),
        (None, Snapshot(AFTER, "start"), Applied(AFTER)),
        (BEFORE, Snapshot(AFTER, "gap"), Applied(AFTER)),
        (AFTER, Snapshot(BEFORE, "start"), Duplicate()),
        (AFTER, Snapshot(AFTER, "start"), Duplicate()),
        (AFTER, Snapshot(BEFORE, "diverged"), Applied(BEFORE)),
        (replace(AFTER, epoch="e0"), Snapshot(BEFORE, "epoch"), Applied(BEFORE)),
        (replace(AFTER, content_hash=EMPTY_HASH), Snapshot(AFTER, "resync"), Applied(AFTER)),
        (replace(AFTER, credentials_hash=EMPTY_HASH), Snapshot(AFTER, "resync"), Applied(AFTER)),
    ],
)
def test_every_case_has_its_outcome(held: State | None, message: Snapshot | ChangeSet, outcome: Outcome) -> None:
    """Gaps, repeats, other epochs, other hashes and older snapshots each lead to what the protocol says."""
    assert apply(held, message) == outcome


@pytest.mark.parametrize(
    ("held", "mark", "reason"),
    [
        (AFTER, mark_of(AFTER), None),
        (AFTER, mark_of(BEFORE), None),
        (None, mark_of(AFTER), "bookmark for an environment without a snapshot"),
        (AFTER, replace(mark_of(AFTER), epoch="e2"), "bookmark of epoch e2, held epoch e1"),
        (BEFORE, mark_of(AFTER), "bookmark at revision 5, held revision 4"),
        (AFTER, replace(mark_of(AFTER), content_hash=EMPTY_HASH), "hash differs from the bookmark's at revision 5"),
        (AFTER, replace(mark_of(AFTER), credentials_hash=EMPTY_HASH), "hash differs from the bookmark's at revision 5"),
        (AFTER, replace(mark_of(AFTER), credentials_hash=None), None),
    ],
)
def test_a_bookmark_is_compared(held: State | None, mark: Mark, reason: str | None) -> None:
    """A bookmark finds what is missing or different; one that is behind proves nothing."""
    assert verify(held, mark) == (None if reason is None else NeedResync(reason))


def test_a_server_follows_without_credentials() -> None:
    """The server audience holds and compares content only."""
    before, after = (
        replace(each, credentials={}, limits=None, secrets=None, credentials_hash=None) for each in (BEFORE, AFTER)
    )
    assert apply(before, CHANGE) == Applied(after)


def test_a_revision_without_visible_content_moves_on() -> None:
    """Nothing to see in it, but the revision counts, and nothing is copied."""
    after = advance(BEFORE, change_between(BEFORE, replace(BEFORE, revision=5), COMMITTED_AT))
    assert after == replace(BEFORE, revision=5)
    assert after.flags is BEFORE.flags
    assert after.credentials is BEFORE.credentials


@given(objects, objects, objects, objects, st.sampled_from([b"{}", b'{"n":1}']), st.sampled_from([b"{}", b'{"s":1}']))
def test_hashes_carried_on_equal_hashes_from_scratch(  # noqa: PLR0917
    flags: dict[str, bytes],
    segments: dict[str, bytes],
    credentials: dict[str, bytes],
    other: dict[str, bytes],
    limits: bytes,
    secrets: bytes,
) -> None:
    """Whatever changes, the incremental hash is the one over the result."""
    before = build_state(environment_ref(), "e1", 1, flags=flags, segments=other, credentials=other)
    after = build_state(
        environment_ref(),
        "e1",
        2,
        flags=other,
        segments=segments,
        credentials=credentials,
        limits=limits,
        secrets=secrets,
    )
    assert apply(before, change_between(before, after, COMMITTED_AT)) == Applied(after)


def test_removing_what_is_not_there_changes_nothing() -> None:
    """A removal of an unknown key leaves content and hash alone."""
    change = replace(CHANGE, upsert_flags={}, upsert_segments={}, remove_flags=("unknown",))
    assert advance(BEFORE, change).content_hash == BEFORE.content_hash


def test_limits_appear_where_there_were_none() -> None:
    """The first limits and secrets of an environment enter its hash."""
    before = build_state(environment_ref(), "e1", 1, flags={}, segments={}, credentials={})
    after = build_state(environment_ref(), "e1", 2, flags={}, segments={}, credentials={}, limits=b"{}", secrets=b"{}")
    assert apply(before, change_between(before, after, COMMITTED_AT)) == Applied(after)


def test_the_hash_is_as_documented() -> None:
    """Sum modulo 2^128 of BLAKE2b-128 over kind, key and bytes, separated by 0x1F; kind and key matter."""
    assert f"{object_hash('flag', 'a', b'{}'):x}" == "42e693a7b6a79975c78607093135cf8c"
    assert object_hash("flag", "a", b"{}") != object_hash("segment", "a", b"{}")
    assert content_hash({}, {}) == credentials_hash({}, None, None) == EMPTY_HASH
    assert shift_hash(EMPTY_HASH, removed=[1]) == "f" * 32
    assert shift_hash("f" * 32, added=[1]) == EMPTY_HASH
    assert content_hash({"a": b"1", "b": b"2"}, {}) == content_hash({"b": b"2", "a": b"1"}, {})
    assert credentials_hash({"c": credential("c")}, None, None) != credentials_hash({}, credential("c"), None)


def test_difference_of_two_maps() -> None:
    """What to upsert and what to remove leads from the one to the other."""
    assert diff_objects({"a": b"1", "b": b"2"}, {"b": b"3", "c": b"4"}) == ({"b": b"3", "c": b"4"}, ("a",))
