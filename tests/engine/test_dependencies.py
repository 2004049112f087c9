"""What a flag's answer depends on: nothing else changes it, and what cannot matter is not named."""

from typing import Any

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from relay.engine.context import attribute, lookup
from relay.engine.dependencies import depends_on
from relay.engine.evaluate import evaluate
from tests.engine.build import HALF, OFF, clause, environment, flag, rule, ruled, segment
from tests.engine.configurations import contexts, flags, names, segments
from tests.engine.test_totality import accepted, moments

RAMP = {"ramp": {"to": "on", "else": "off", "start_at": 0, "increment": 1, "every_s": 1, "target": 2, "by": "plan"}}


@given(
    st.dictionaries(names, flags, min_size=1, max_size=3),
    st.dictionaries(names, segments, max_size=2),
    contexts,
    contexts,
    moments,
)
def test_contexts_that_agree_on_the_attributes_get_the_same_answer(
    flag_objects: dict[str, Any], segment_objects: dict[str, Any], one: Any, other: Any, now_ms: int
) -> None:
    """Whatever else is in them, until the next moment that is announced."""
    held = accepted(flag_objects, segment_objects)
    for key in held.flags:
        found = depends_on(held, key)
        mixed = {name: value for name, value in other.items() if name not in one}
        # Take over what is asked for: as a member named by the whole path, which goes first.
        agreeing = {**mixed, **{path: lookup(one, attribute(path)) for path in found.attributes}}
        assume(all(lookup(agreeing, attribute(path)) is lookup(one, attribute(path)) for path in found.attributes))
        event(f"{len(found.attributes)} attributes, {len(found.ramps)} ramps")
        step_ms = found.next_change_at(now_ms)
        last_ms = 10**15 if step_ms is None else step_ms - 1
        assert evaluate(held, key, agreeing, last_ms) == evaluate(held, key, one, now_ms)


@pytest.mark.parametrize(
    ("changes", "attributes", "is_timed"),
    [
        ({}, set(), False),
        ({"fallthrough": HALF}, {"targetingKey"}, False),
        ({"fallthrough": RAMP}, {"plan"}, True),
        ({"fallthrough": RAMP, "enabled": False}, set(), False),
        ({"targets": [{"variation": "on", "units": ["a"]}]}, {"targetingKey"}, False),
        ({"group": "g"}, {"targetingKey"}, False),
        ({"rules": [rule(clause("a.b", "equals", 1))]}, {"a.b"}, False),
        (
            {"rules": [rule({"not": {"all": [clause("a", "exists"), clause("b", "percentage_of", 5)]}})]},
            {"a", "b"},
            False,
        ),
        ({"rules": [rule(clause("a", "sounds_like"), RAMP)]}, set(), False),
        ({"rules": [rule({"any": [clause("a", "gt", 1), {"segment": "gone"}]})]}, set(), False),
        ({"rules": [rule({"segment": "outer"})]}, {"targetingKey", "x"}, False),
        ({"prerequisites": [{"flag": "other"}]}, {"plan", "y"}, True),
        ({"prerequisites": [{"flag": "f"}], "fallthrough": HALF}, set(), False),
        ({"prerequisites": [{"flag": "nowhere"}]}, set(), False),
    ],
)
def test_what_is_named(changes: dict[str, Any], attributes: set[str], *, is_timed: bool) -> None:
    """Attributes of clauses, splits, targets, groups, segments and prerequisites; and no more."""
    held = environment(
        {"f": flag(**changes), "other": flag(rules=[rule(clause("y", "exists"))], fallthrough=RAMP)},
        {
            "outer": segment(when={"segment": "inner"}),
            "inner": segment(include=["a"], when=clause("x", "exists")),
        },
    )
    found = depends_on(held, "f")
    assert (found.attributes, bool(found.ramps)) == (frozenset(attributes), is_timed)
    assert found.next_change_at(1_500) == (2_000 if is_timed else None)
    assert found.next_change_at(10_000) is None


def test_a_flag_that_does_not_exist_depends_on_nothing() -> None:
    """Its answer is the same for everybody and always."""
    held = environment({"f": ruled(clause("a", "exists"), group=None), "g": flag(fallthrough=OFF)})
    assert depends_on(held, "nowhere").attributes == frozenset()
