"""Large messages, read line by line: the same as when they are read whole, or refused."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.engine.steps import finished
from relay.protocol.changes import Applied, ChangeSet, State, apply, apply_steps
from relay.protocol.decode import BadMessage, decode_steps, parse_message
from relay.protocol.encode import SLICE_BYTES, Audience, changes_lines, encode_changes, snapshot_lines
from relay.protocol.state import advance, advance_steps, change_between
from tests.protocol.build import COMMITTED_AT, credential, flag, segment, state

TEXT = "x" * 2_000
BEFORE = state(1, flags={"gone": flag(), "old": flag()}, segments={"lost": segment()})
FLAGS = {f"flag-{number}": flag(number, metadata={"note": TEXT}) for number in range(80)}
AFTER = replace(
    state(
        2,
        flags={"old": flag(), **FLAGS},
        segments={"beta": segment(include=["u" * 1_000])},
        credentials={f"c{number}": credential(f"c{number}", f"{number:064x}") for number in range(3)},
    ),
    limits=b'{"evaluations_per_s":7}',
)
LARGE = change_between(BEFORE, AFTER, COMMITTED_AT)
LINES = list(changes_lines(LARGE, Audience.RELAY))


def of_server(change: ChangeSet) -> ChangeSet:
    """Return what a server key sees of a change set."""
    return replace(
        change, upsert_credentials={}, remove_credentials=(), limits=None, secrets=None, credentials_hash=None
    )


def test_a_small_change_set_is_one_line_and_a_large_one_is_many() -> None:
    """What every write sends stays one line; joined without line feeds, the lines of a large one are that line."""
    small = change_between(BEFORE, replace(BEFORE, revision=2), COMMITTED_AT)
    for audience in Audience:
        assert list(changes_lines(small, audience)) == [encode_changes(small, audience)]
        lines = list(changes_lines(LARGE, audience))
        assert len(lines) > 5
        assert max(map(len, lines)) <= SLICE_BYTES + len(TEXT)
        assert b"".join(lines) == encode_changes(LARGE, audience)


@st.composite
def change_sets(draw: st.DrawFn) -> ChangeSet:
    """Draw a change set, of which every part may be large, small or empty."""
    ids = range(draw(st.integers(0, 3)))
    return replace(
        LARGE,
        upsert_flags={key: FLAGS[key] for key in list(FLAGS)[: draw(st.integers(0, 70))]},
        upsert_segments={f"segment-{each}": segment(each, ["u" * 2_000]) for each in range(draw(st.integers(0, 40)))},
        upsert_credentials={f"c{each}": credential(f"c{each}") for each in ids},
        remove_flags=draw(st.sampled_from([(), ("gone",)])),
        secrets=draw(st.sampled_from([None, b'{"stream_secret":"s"}'])),
    )


@given(change_sets(), st.sampled_from(Audience))
def test_lines_say_what_the_whole_says(change: ChangeSet, audience: Audience) -> None:
    """Whatever a change set holds, in slices or as one line."""
    wanted = change if audience is Audience.RELAY else of_server(change)
    assert finished(decode_steps("changes", list(changes_lines(change, audience)))) == wanted
    assert parse_message("changes", encode_changes(change, audience)) == wanted


def test_every_line_is_a_step() -> None:
    """So the event loop turns between any two of them."""
    assert sum(1 for _ in decode_steps("changes", LINES)) == len(LINES) - 1


@pytest.mark.parametrize("kept", range(1, len(LINES)))
def test_a_change_set_that_lacks_lines_is_refused(kept: int) -> None:
    """A part is never taken for the whole, and the environment that it belongs to is known."""
    with pytest.raises(BadMessage) as refused:
        parse_message("changes", b"\n".join(LINES[:kept]))
    assert refused.value.environment_id == BEFORE.ref.id
    assert refused.value.reason == "the message is cut off here"


def test_a_change_set_that_goes_on_is_refused() -> None:
    """Nothing comes after the last line."""
    with pytest.raises(BadMessage, match="goes on after its end"):
        parse_message("changes", b"\n".join([*LINES, LINES[1]]))


@pytest.mark.parametrize("line", [b'"a":{}},"b":{"c":{}', b'"a":7', b'},"limits":{', b'"flags":[]', b"]}", b"}}}"])
def test_a_line_cannot_break_out_of_its_place(line: bytes) -> None:
    """A line that is no list of members does not change how the others are read."""
    with pytest.raises(BadMessage):
        parse_message("changes", b"\n".join([LINES[0], line, *LINES[2:]]))


@given(st.data())
def test_damaged_change_sets_are_read_or_refused(data: st.DataObject) -> None:
    """Bytes cut out or put in anywhere never raise anything else."""
    raw = b"\n".join(LINES)
    start = data.draw(st.integers(0, len(raw)))
    damaged = raw[:start] + data.draw(st.binary(max_size=3)) + raw[start + data.draw(st.integers(0, 3)) :]
    try:
        message = parse_message("changes", damaged)
    except BadMessage:
        return
    assert isinstance(message, ChangeSet)


def test_a_snapshot_in_slices_has_the_hash_of_the_whole() -> None:
    """The hash is carried on line by line, and compared with what the sender claims."""
    lines = list(snapshot_lines(AFTER, "start", Audience.RELAY))
    wrong = [lines[0].replace(AFTER.content_hash.encode(), b"0" * 32), *lines[1:]]
    with pytest.raises(BadMessage, match="differs from the hash of the content"):
        parse_message("snapshot", b"\n".join(wrong))


def test_a_large_change_set_is_applied_in_steps_that_make_the_same_state() -> None:
    """Every few hundred objects there is a pause, and what comes out is what comes out at once."""
    many = {f"flag-{number}": flag(number) for number in range(1_000)}
    after = state(2, flags=many)
    change = change_between(state(1), after, COMMITTED_AT)
    steps = advance_steps(state(1), change)
    pauses = 0
    advanced: State | None = None
    while advanced is None:
        try:
            next(steps)
            pauses += 1
        except StopIteration as done:
            advanced = done.value
    assert pauses >= 3
    assert advanced == advance(state(1), change)
    assert advanced.content_hash == after.content_hash
    assert apply(state(1), change) == finished(apply_steps(state(1), change)) == Applied(after)
