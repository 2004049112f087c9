"""Resume tokens and what a server owes to whom presents one."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.changes import MAX_ENVIRONMENTS, ChangeSet, State
from relay.protocol.resume import (
    MAX_TOKEN_CHARACTERS,
    BadToken,
    Position,
    Replay,
    ResumeToken,
    SendSnapshot,
    Wait,
    parse_token,
    plan_resume,
    short_id,
    token_of,
)
from relay.protocol.state import change_between
from tests.protocol.build import COMMITTED_AT, flag, state

HISTORY = [state(revision, flags={"checkout": flag(revision)}) for revision in range(1, 7)]
CHANGES = [change_between(a, b, COMMITTED_AT) for a, b in pairwise(HISTORY)]
HEAD = HISTORY[-1]


def kept_since(floor: int) -> "Lookup":
    return Lookup(floor, CHANGES)


class Lookup:
    """A window that reaches back to `floor`."""

    def __init__(self, floor: int, changes: Sequence[ChangeSet]) -> None:
        self.floor = floor
        self.changes = changes

    def __call__(self, after: int) -> Sequence[ChangeSet] | None:
        return None if after < self.floor else [each for each in self.changes if each.revision > after]


def token_at(held: State) -> ResumeToken:
    return parse_token(token_of([held], held.epoch))


def test_a_token_is_compact_and_read_back() -> None:
    """The token has the documented form and names the follower's position in each environment."""
    states = [state(number=number, revision=10 + number) for number in (1, 2)]
    text = token_of(states, "e1")
    hash8 = states[0].content_hash[:8]
    assert text == f"1.e1.000000010000-11-{hash8},000000020000-12-{hash8}"
    token = parse_token(text)
    assert token.epoch == "e1"
    assert token.position(states[1].ref.id) == Position(12, hash8)
    assert token.position("ffffffff-0000-4000-8000-000000000000") is None


def test_states_of_another_epoch_are_left_out() -> None:
    """A token speaks of one epoch; what stands in another comes as a snapshot."""
    assert parse_token(token_of([state(), state(number=2, epoch="e0")], "e1")).positions.keys() == {"000000010000"}


def test_a_follower_of_nothing_has_an_empty_token() -> None:
    """No environments is a position, too."""
    assert parse_token("1.e1.").positions == {}


POSITION = "000000010000-1-00000000"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "head",
        "2.e1." + POSITION,
        "1.e1",
        "1..x",
        "1.e1." + POSITION + ",",
        "1.e1." + POSITION.upper() + "\0",
        "1.e1." + POSITION + "\n",
        "1.e1." + POSITION.replace("-1-", "-" + "1" * 20 + "-"),
        "1.e1." + POSITION.replace("-1-", "-٣-"),
        "1.e1." + POSITION + "," + POSITION,
        "1.e1." + ",".join(f"{n:012x}-1-00000000" for n in range(MAX_ENVIRONMENTS + 1)),
        "1." + "e" * 65 + "." + POSITION,
        "1.e1." + "0" * (1 << 20),
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    """Garbage, NUL, a megabyte, another version, doubled or too many environments: one documented exception."""
    with pytest.raises(BadToken):
        parse_token(text)


@given(st.text(max_size=60) | st.from_regex(r"1\.[a-z0-9.]{0,3}\.[0-9a-f,-]{0,60}"))
def test_arbitrary_text_is_a_token_or_refused(text: str) -> None:
    """Whatever is read as a token within the limits can be written again."""
    try:
        token = parse_token(text)
    except BadToken:
        return
    assert all(position.revision >= 0 for position in token.positions.values())


def test_the_largest_token_fits_the_limit() -> None:
    """A follower of as many environments as allowed, at the highest revisions, has a token that is accepted."""
    most = [replace(state(number=n), revision=2**63 - 1, epoch="e" * 64) for n in range(MAX_ENVIRONMENTS)]
    spread = [replace(each, ref=replace(each.ref, id=f"{n:08x}-{n:04x}-4000-8000-0")) for n, each in enumerate(most)]
    text = token_of(spread, "e" * 64)
    assert len(text) <= MAX_TOKEN_CHARACTERS
    assert len(parse_token(text).positions) == MAX_ENVIRONMENTS
    assert token_of([*spread, *spread], "e" * 64) == text


@pytest.mark.parametrize("revision", range(1, 7))
def test_a_position_in_the_window_gets_exactly_what_follows(revision: int) -> None:
    """From any revision of the history, the replay is (revision, head] and nothing else."""
    plan = plan_resume(token_at(HISTORY[revision - 1]), HEAD, kept_since(1))
    assert plan == Replay(tuple(CHANGES[revision - 1 :]))


def test_the_window_s_edge_is_inside() -> None:
    """The oldest position that can be led to the head is replayed, the one before it gets a snapshot."""
    assert isinstance(plan_resume(token_at(HISTORY[2]), HEAD, kept_since(3)), Replay)
    assert plan_resume(token_at(HISTORY[1]), HEAD, kept_since(3)) == SendSnapshot("expired")


def test_revision_zero_is_a_position_like_others() -> None:
    """An environment without any change yet can be resumed."""
    first = state(0)
    change = change_between(first, state(1, flags={}), COMMITTED_AT)
    assert plan_resume(token_at(first), state(1, flags={}), Lookup(0, [change])) == Replay((change,))


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, "start"),
        (ResumeToken("e1", {}), "start"),
        (ResumeToken("e1", {short_id(state(number=2).ref.id): Position(6, "0" * 8)}), "start"),
        (token_at(replace(HEAD, epoch="e0")), "epoch"),
        (token_at(replace(HEAD, revision=7)), "diverged"),
        (token_at(replace(HEAD, content_hash="0" * 32)), "diverged"),
        (token_at(replace(HISTORY[3], content_hash="0" * 32)), "diverged"),
    ],
)
def test_no_usable_position_gets_a_snapshot_with_the_reason(token: ResumeToken | None, reason: str) -> None:
    """Nothing, another environment, another epoch, ahead of head, another hash: the whole environment, and why."""
    assert plan_resume(token, HEAD, kept_since(1)) == SendSnapshot(reason)


def test_a_server_that_may_be_behind_waits() -> None:
    """A follower ahead of a server that is not the authority is never sent back."""
    plan = plan_resume(token_at(replace(HEAD, revision=9)), HEAD, kept_since(1), authoritative=False)
    assert plan == Wait(9)


def test_a_hole_in_the_history_gets_a_snapshot() -> None:
    """A change log that lacks a revision, stops short or is of another epoch is never replayed."""
    for broken in (CHANGES[:2] + CHANGES[3:], CHANGES[:-1], [*CHANGES[:-1], replace(CHANGES[-1], epoch="e0")]):
        assert plan_resume(token_at(HISTORY[0]), HEAD, Lookup(1, broken)) == SendSnapshot("gap")


def test_what_was_committed_meanwhile_is_left_to_the_live_stream() -> None:
    """Revisions beyond the head that the server publishes are not part of the replay."""
    assert plan_resume(token_at(HISTORY[0]), HISTORY[3], kept_since(1)) == Replay(tuple(CHANGES[:3]))
