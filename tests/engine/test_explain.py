"""Explanations: the same answer as the evaluation, with each step, what it compared, and why it did not hold."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.engine.evaluate import evaluate
from relay.engine.explain import Explanation, Step, _Explained, explain
from relay.engine.model import ErrorCode, UnknownOperator
from tests.engine.build import HALF, OFF, ON, clause, environment, flag, rule, ruled, segment
from tests.engine.configurations import contexts, flags, json_values, names, segments
from tests.engine.test_totality import accepted, moments

UNIT = {"targetingKey": "user-1"}


def explained(flags: dict[str, Any], context: Any, segments: dict[str, Any] | None = None) -> Explanation:
    return explain(environment(flags, segments), "f", context, 0)


def texts(steps: tuple[Step, ...]) -> list[str]:
    """Return the texts of all steps, those inside before the one that they are in."""
    return [text for step in steps for text in (*texts(step.inner), step.text)]


@given(
    st.dictionaries(names, flags, min_size=1, max_size=3),
    st.dictionaries(names, segments, max_size=2),
    contexts | json_values,
    moments,
)
def test_an_explanation_ends_in_the_evaluation(
    flag_objects: dict[str, Any], segment_objects: dict[str, Any], context: Any, now_ms: int
) -> None:
    """Looking on changes nothing; there are steps whenever there was something to decide, and all can be printed."""
    held = accepted(flag_objects, segment_objects)
    for key in held.flags:
        found = explain(held, key, context, now_ms)
        assert found.evaluation == evaluate(held, key, context, now_ms)
        assert bool(found.steps) == isinstance(context, dict)
        for text in texts(found.steps):
            assert text.encode()


@pytest.mark.parametrize(
    ("when", "context", "text"),
    [
        (clause("country", "in", "DE", "AT"), {"country": "FR"}, 'country in "DE", "AT": it is "FR"'),
        (clause("country", "in", "DE"), UNIT, "country in \"DE\": the context has no 'country'"),
        (clause("age", "gt", 18), {"age": "old"}, 'age gt 18: it is "old", which gt cannot read'),
        (clause("tags", "equals", "x"), {"tags": ["a", "b"]}, "tags equals \"x\": it is ['a', 'b']"),
        (clause("p", "equals", "X", fold_case=True), {"p": "y"}, 'p equals "X" (case folded): it is "y"'),
        (clause("p", "in", *range(25)), {"p": 99}, ", 18, 19 and 5 more: it is 99"),
        (clause("a.b", "exists"), UNIT, "a.b is missing"),
        (clause("a", "not_exists"), {"a": 1}, "a is there"),
        (clause("plan", "percentage_of", 0), UNIT, "percentage_of plan: the context has no 'plan' that is a unit"),
        (clause("plan", "percentage_of", 0), {"plan": "x"}, "and 0..-1 are meant"),
        ({"any": []}, UNIT, "any of 0"),
        ({"all": [{"any": []}, {"all": []}]}, UNIT, "all of 2; 1 more not looked at"),
        ({"segment": "s"}, UNIT, "is not in the segment 's'"),
    ],
)
def test_every_condition_says_why_it_does_not_hold(when: Any, context: Any, text: str) -> None:
    """With the value that was found, or that there was none, or that it could not be read."""
    held = {"s": segment(when=clause("x", "exists"))}
    found = explained({"f": ruled(when)}, context, held)
    assert found.evaluation.value is False
    assert any(text in each for each in texts(found.steps)), texts(found.steps)


def test_the_order_of_the_steps_is_the_order_of_the_evaluation() -> None:
    """Switch, prerequisites, group, targets, rules, fallthrough."""
    found = explained(
        {
            "f": flag(
                prerequisites=[{"flag": "g", "variations": ["on", "off"]}],
                group="x",
                targets=[{"variation": "off", "units": ["user-2"]}],
                rules=[rule(clause("a", "exists"))],
                fallthrough=HALF,
            ),
            "g": flag(),
        },
        UNIT,
    )
    assert [(step.kind, step.holds) for step in found.steps] == [
        ("switch", True),
        ("prerequisite", True),
        ("group", True),
        ("targets", False),
        ("rule", False),
        ("fallthrough", None),
    ]
    assert (
        found.steps[1].text == "needs 'g': it must be on and serve one of \"off\", \"on\", and it serves 'on' (STATIC)"
    )
    assert [step.kind for step in found.steps[1].inner] == ["switch", "fallthrough"]
    assert found.steps[2].facts["winner"] == "f"
    (split,) = found.steps[5].inner
    assert split.facts["ranges"][0] == {"variation": "on", "from": 0, "to": 50_000}
    assert f"is in bucket {split.facts['bucket']}" in split.text
    told = orjson.loads(orjson.dumps([step.members() for step in found.steps]))
    assert told[5]["steps"][0]["bucket"] == split.facts["bucket"]


@pytest.mark.parametrize(
    ("changes", "context", "kind", "text"),
    [
        ({"enabled": False}, UNIT, "switch", "'f' is switched off"),
        (
            {"prerequisites": [{"flag": "f"}]},
            UNIT,
            "prerequisites",
            "the prerequisites form a cycle or nest too deeply",
        ),
        ({"prerequisites": [{"flag": "x"}]}, UNIT, "prerequisite", "needs 'x', which does not exist"),
        ({"group": "g"}, {}, "group", "the group 'g' needs a targetingKey to draw for"),
        (
            {"targets": [{"variation": "on", "units": ["user-1"]}]},
            UNIT,
            "targets",
            "the unit 'user-1' is named under 'on'",
        ),
        (
            {"targets": [{"variation": "on", "units": ["a"]}]},
            {},
            "targets",
            "1 units are named, and the context has no",
        ),
        ({"rules": [rule(clause("a", "sounds_like"))]}, UNIT, "rule", 'this version does not know "sounds_like"'),
        ({"rules": [rule({"segment": "x"})]}, UNIT, "rule", '"x" cannot be used as a segment'),
        ({"rules": [rule({"all": []}, HALF)]}, {}, "rule", "its condition holds, but there is no unit to serve by"),
        ({"rules": [rule({"all": []}, ON)]}, {}, "rule", "rule 'r1' matches"),
    ],
)
def test_every_step_says_why(changes: dict[str, Any], context: Any, kind: str, text: str) -> None:
    """Also the steps that end an evaluation."""
    found = explained({"f": flag(**changes)}, context)
    step = next(each for each in found.steps if each.kind == kind)
    assert text in step.text


def test_a_prerequisite_that_is_off_without_a_value_says_so() -> None:
    """A flag without an off variation serves no value while it is off, not a variation called None."""
    found = explained({"f": flag(off=None, prerequisites=[{"flag": "g"}]), "g": flag(off=None, enabled=False)}, UNIT)
    step = next(each for each in found.steps if each.kind == "prerequisite")
    assert step.text == "needs 'g': it must be on, and it serves no value (DISABLED)"
    assert (found.evaluation.value, found.evaluation.variation) == (None, None)
    assert step.facts["variation"] is None


def test_ramps_tell_where_they_stand() -> None:
    """Share, target and bucket; without a unit that there is none."""
    ramp = {"to": "on", "else": "off", "start_at": 0, "increment": 10_000, "every_s": 1, "target": 50_000}
    held = environment({"f": flag(fallthrough={"ramp": ramp})})
    (step,) = explain(held, "f", UNIT, 3_000).steps[-1].inner
    assert "the ramp stands at 30 % of 50 %" in step.text
    (lacking,) = explain(held, "f", {}, 3_000).steps[-1].inner
    assert "has no 'targetingKey' that is a unit" in lacking.text


@pytest.mark.parametrize(
    ("held", "text"),
    [
        (segment(exclude=["user-1"]), "excluded by name"),
        (segment(include=["user-1"]), "included by name"),
        (segment(), "not included by name, and the segment has no condition"),
        (segment(when=clause("x", "equals", 1)), "x equals 1: the context has no 'x'"),
    ],
)
def test_segments_say_who_is_in(held: dict[str, Any], text: str) -> None:
    """By name or by condition; asked for twice, it is worked out once."""
    twice = {"any": [{"segment": "s"}, {"segment": "s"}]}
    found = explained({"f": flag(rules=[rule(twice)], fallthrough=OFF)}, UNIT, {"s": held})
    assert sum(text in each for each in texts(found.steps)) == 1


def test_an_unknown_operator_that_is_asked_says_so() -> None:
    """Although a rule or segment that holds one is skipped before it comes to that."""
    run = _Explained(environment({}), UNIT, 0)
    assert run.meets(UnknownOperator("sounds_like")) is False
    (step,) = run.steps()
    assert (step.kind, step.holds, step.facts) == ("unknown_operator", False, {"op": "sounds_like"})
    assert step.text == "this version does not know 'sounds_like'"


def test_what_does_not_exist_has_no_steps() -> None:
    """Unknown flags and contexts that are none are answered as everywhere."""
    unknown = explain(environment({}), "f", UNIT, 0)
    assert (unknown.evaluation.error_code, unknown.steps) == (ErrorCode.FLAG_NOT_FOUND, ())


def test_long_and_odd_values_are_shortened() -> None:
    """A line stays a line, and can be printed."""
    found = explained({"f": ruled(clause("a", "equals", "x"))}, {"a": "\ud800" + "y" * 500})
    (text,) = [each for each in texts(found.steps) if each.startswith("a equals")]
    assert len(text) < 200
    assert "\\ud800" in text
