"""Assembling an environment, amending it, and what is set aside in it."""

from typing import Any

import pytest

from relay.engine.environment import Gap, gaps
from relay.engine.model import Environment
from relay.engine.parse import amend, parse_flag, parse_segment
from tests.engine.build import HALF, clause, environment, flag, rule, ruled, segment

RAMP = {"ramp": {"to": "on", "else": "off", "start_at": 0, "increment": 1, "every_s": 1, "target": 9}}

FLAGS: dict[str, Any] = {
    "plain": flag(),
    "chained": flag(prerequisites=[{"flag": "plain"}]),
    "grouped": flag(group="g"),
    "mate": flag(group="g"),
    "ramping": flag(fallthrough=RAMP),
    "segmented": ruled({"segment": "outer"}),
}
SEGMENTS: dict[str, Any] = {"inner": segment(), "outer": segment(when={"segment": "inner"})}


def changed(
    before: Environment, flags: dict[str, Any] | None = None, segments: dict[str, Any] | None = None
) -> Environment:
    """Return the next revision; None stands for a removed object."""
    flags, segments = flags or {}, segments or {}
    return amend(
        before,
        revision=before.revision + 1,
        upsert_flags={key: parse_flag(key, obj) for key, obj in flags.items() if obj is not None},
        remove_flags=[key for key, obj in flags.items() if obj is None],
        upsert_segments={key: parse_segment(key, obj) for key, obj in segments.items() if obj is not None},
        remove_segments=[key for key, obj in segments.items() if obj is None],
    )


def test_assembled() -> None:
    """An environment knows who it is and what follows from its objects."""
    built = environment(FLAGS, SEGMENTS)

    assert (built.key, built.project_key, built.revision) == ("production", "shop", 1)
    assert built.usable.keys() == {"inner", "outer"}
    assert built.chained == {"chained": {"plain"}}
    assert built.groups == {"g": {"grouped", "mate"}}
    assert built.ramps.keys() == {"ramping"}
    assert built.unsettled == frozenset()


@pytest.mark.parametrize(
    ("flags", "segments"),
    [
        ({}, {}),
        ({"plain": flag(enabled=False)}, {}),
        ({"new": flag()}, {}),
        ({"plain": None}, {}),
        ({"gone": None}, {"gone": None}),
        ({"chained": flag()}, {}),
        ({"plain": flag(prerequisites=[{"flag": "chained"}])}, {}),
        ({"chained": flag(prerequisites=[{"flag": "grouped"}, {"flag": "x"}])}, {}),
        ({"grouped": flag(group="h")}, {}),
        ({"grouped": flag(group="g", enabled=False)}, {}),
        ({"grouped": None, "mate": None}, {}),
        ({"plain": flag(group="g")}, {}),
        ({"ramping": flag(fallthrough=RAMP, enabled=False)}, {}),
        ({"ramping": None, "plain": flag(fallthrough=RAMP)}, {}),
        ({}, {"inner": None}),
        ({}, {"inner": segment(when={"segment": "outer"})}),
        ({}, {"inner": segment(when=clause("a", "sounds_like", 1))}),
        ({"segmented": None}, {"new": segment(include=["u"])}),
    ],
)
def test_amended_equals_assembled(flags: dict[str, Any], segments: dict[str, Any]) -> None:
    """After any change, and after its undoing, an environment is what it would be if assembled anew."""
    before = environment(FLAGS, SEGMENTS)
    after = changed(before, flags, segments)
    kept_flags = {key: obj for key, obj in {**FLAGS, **flags}.items() if obj is not None}
    kept_segments = {key: obj for key, obj in {**SEGMENTS, **segments}.items() if obj is not None}

    assert after == amend(environment(kept_flags, kept_segments), revision=2)
    undo_flags = {key: FLAGS.get(key) for key in flags}
    undo_segments = {key: SEGMENTS.get(key) for key in segments}
    assert changed(after, undo_flags, undo_segments) == amend(before, revision=3)


def test_amend_shares_what_did_not_change() -> None:
    """A change of one flag leaves every other object, and every index it does not touch, the very same."""
    before = environment(FLAGS, SEGMENTS)
    after = changed(before, {"plain": flag(fallthrough=HALF)})

    assert after.revision == 2
    assert before.flags["plain"] is not after.flags["plain"]
    assert all(after.flags[key] is before.flags[key] for key in FLAGS if key != "plain")
    assert after.segments is before.segments
    assert after.usable is before.usable
    assert after.chained is before.chained
    assert after.unsettled is before.unsettled
    assert after.ramps is before.ramps


def test_amend_keeps_what_is_removed_and_upserted() -> None:
    """An object that one change both removes and brings stays."""
    plain = parse_flag("plain", flag())

    after = amend(environment(FLAGS), revision=2, upsert_flags={"plain": plain}, remove_flags=["plain"])
    assert after.flags["plain"] is plain


def test_gaps() -> None:
    """Everything that is set aside is named once with its place; a sound environment has no gaps."""
    flags = {
        "future": flag(rules=[rule({"all": []}), rule(clause("a", "sounds_like", 1))]),
        "lost": flag(rules=[rule({"segment": "gone"})], prerequisites=[{"flag": "nowhere"}]),
        "circle": flag(prerequisites=[{"flag": "circle"}]),
    }
    segments = {"s": segment(when=clause("a", "near", 1)), "t": segment(when={"segment": "s"})}

    assert list(gaps(environment(flags, segments))) == [
        Gap("segments.s", "unknown_operator", "near"),
        Gap("segments.t", "unusable_segment", "s"),
        Gap("flags.future.rules[1]", "unknown_operator", "sounds_like"),
        Gap("flags.lost.rules[0]", "unusable_segment", "gone"),
        Gap("flags.lost", "missing_prerequisite", "nowhere"),
        Gap("flags.circle", "unsettled_prerequisites", "circle"),
    ]
    assert list(gaps(environment(FLAGS, SEGMENTS))) == []
