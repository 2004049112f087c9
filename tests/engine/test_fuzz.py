"""Any JSON as configuration, any JSON as context: refused as `InvalidConfig`, or one answer in all four ways to ask.

The four ways are the interpreter, the compiled program, both for all flags at once, and the explanation.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.engine.dependencies import depends_on
from relay.engine.environment import gaps
from relay.engine.evaluate import evaluate, evaluate_all, next_change_at
from relay.engine.explain import Step, explain
from relay.engine.model import Environment
from relay.engine.operators import CONDITION_OPERATORS, OPERATORS
from relay.engine.program import build
from tests.engine.build import clause, environment, flag, ruled
from tests.engine.configurations import clauses, contexts, flags, json_values, names, segments, spoiled
from tests.engine.scale import at_scale
from tests.engine.test_totality import accepted, check, moments

KINDS = 5
CASES = at_scale(50_000, fast=50) // KINDS
"""Of each kind, so that together they are what is promised."""


def nested(depth: int, leaf: Any, *, as_list: bool) -> Any:
    """Return a value inside so many lists or objects; deeper than Python's recursion goes."""
    value = leaf
    for _ in range(depth):
        value = [value] if as_list else {"b": value}
    return value


def negated(depth: int, condition: Any) -> Any:
    """Return the condition negated so many times."""
    for _ in range(depth):
        condition = {"not": condition}
    return condition


odd_values: st.SearchStrategy[Any] = st.one_of(
    st.builds(nested, st.sampled_from([1, 9, 100, 3_000]), st.just("a"), as_list=st.booleans()),
    st.sampled_from([10**30, 2**63, 2**64, -(2**63) - 1, 10**400, 10**5_000, -(10**5_000)]),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1.7e308]),
    st.sampled_from(["\ud800", "a\udfff", "\x00", "1e999", "9" * 70, "9" * 5_000, "x" * 70_000, "1." * 200, "::1%a"]),
    st.lists(st.sampled_from([10**5_000, float("nan"), "\ud800", None, True, {}, []]), max_size=3),
)
odd_contexts: st.SearchStrategy[Any] = st.one_of(
    odd_values,
    st.dictionaries(st.sampled_from(["targetingKey", "a", "b", "a.b", "\ud800"]), odd_values, max_size=4),
)
asked: st.SearchStrategy[Any] = contexts | odd_contexts | json_values

# Conditions on odd values, and flags that hold them: the odd configuration beside the odd context.
_odd_clauses = st.builds(lambda clause, values: {**clause, "values": values}, clauses, st.lists(odd_values, max_size=2))
_odd_conditions = st.one_of(
    _odd_clauses,
    st.builds(negated, st.sampled_from([1, 9, 10, 400, 3_000]), clauses),
    odd_values,
)
_odd_flags = st.one_of(
    st.builds(ruled, _odd_conditions),
    st.builds(
        lambda member, value: flag(**{member: value}),
        st.sampled_from(sorted({*flag(), "metadata", "rules"})),
        odd_values,
    ),
    st.builds(
        lambda value, kind: flag(type=kind, variations=[{"key": "on", "value": value}, {"key": "off", "value": value}]),
        odd_values,
        st.sampled_from(["json", "number", "string"]),
    ),
)


def texts(steps: tuple[Step, ...]) -> list[str]:
    """Return the texts of all steps."""
    return [text for step in steps for text in (*texts(step.inner), step.text)]


def expect_one_answer(held: Environment, context: Any, now_ms: int) -> None:
    """Assert that all ways to ask agree, that each answer is one that the flag can give, and that nothing raises."""
    program = build(held)
    for client_side_only in (False, True):
        together = evaluate_all(held, context, now_ms, client_side_only=client_side_only)
        assert program.evaluate_all(context, now_ms, client_side_only=client_side_only) == together
    for key, answer in evaluate_all(held, context, now_ms).items():
        check(held.flags[key], answer)
    for key in (*held.flags, "nowhere", "\ud800"):
        answer = evaluate(held, key, context, now_ms)
        compiled = program.evaluate(key, context, now_ms)
        assert compiled == answer
        assert type(compiled.value) is type(answer.value)
        explained = explain(held, key, context, now_ms)
        assert explained.evaluation == answer
        for text in texts(explained.steps):
            assert text.encode()
        depends_on(held, key).next_change_at(now_ms)
    next_change_at(held, now_ms)
    list(gaps(held))


@settings(max_examples=CASES)
@given(json_values | odd_values, json_values | odd_values, asked, moments)
def test_any_json(flag_object: Any, segment_object: Any, context: Any, now_ms: int) -> None:
    """Whatever JSON stands where a flag and a segment should."""
    expect_one_answer(accepted({"a": flag_object}, {"a": segment_object}), context, now_ms)


@settings(max_examples=CASES)
@given(spoiled(flags), flags, spoiled(segments), asked, moments)
def test_a_configuration_with_one_wrong_member(
    spoiled_flag: Any, sound: Any, segment_object: Any, context: Any, now_ms: int
) -> None:
    """Whatever is wrong in one place, the other flags are answered too."""
    held = accepted({"a": spoiled_flag, "b": sound}, {"a": segment_object})
    assert "b" in held.flags
    expect_one_answer(held, context, now_ms)


@settings(max_examples=CASES)
@given(
    st.dictionaries(names, flags, min_size=1, max_size=3), st.dictionaries(names, segments, max_size=3), asked, moments
)
def test_a_sound_configuration(
    flag_objects: dict[str, Any], segment_objects: dict[str, Any], context: Any, now_ms: int
) -> None:
    """Everything that the engine knows, in any combination, on any context."""
    expect_one_answer(accepted(flag_objects, segment_objects), context, now_ms)


@settings(max_examples=CASES)
@given(st.dictionaries(names, flags, min_size=1, max_size=2), odd_contexts, st.integers(-(10**40), 10**40))
def test_contexts_at_the_edge(flag_objects: dict[str, Any], context: Any, now_ms: int) -> None:
    """Too deep, too large, not a number, half a character; and any moment."""
    expect_one_answer(accepted(flag_objects, {}), context, now_ms)


@settings(max_examples=CASES)
@given(_odd_flags, asked, moments)
def test_configurations_at_the_edge(flag_object: Any, context: Any, now_ms: int) -> None:
    """The same values as arguments, as variations and in the place of any member."""
    expect_one_answer(accepted({"a": flag_object}, {}), context, now_ms)


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("op", ["equals", "contains", "matches", "gt", "exists", "percentage_of"])
def test_a_context_deeper_than_recursion_goes(op: str, *, as_list: bool) -> None:
    """No step walks into a value, so depth is nothing to fear."""
    values = {"gt": [1], "exists": [], "percentage_of": [50_000]}.get(op, ["a"])
    held = environment({"f": ruled(clause("a", op, *values))})
    for path in ("a", "targetingKey"):
        expect_one_answer(held, {path: nested(10_000, "a", as_list=as_list)}, 0)


@pytest.mark.parametrize(
    "value",
    [10**5_000, -(10**5_000), float("nan"), float("-inf"), "\ud800", "\x00", "9" * 5_000, {"\ud800": 10**5_000}],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("as_list", [True, False])
def test_odd_values_meet_every_operator(value: Any, *, as_list: bool) -> None:
    """Also where Python itself would refuse to print the value."""
    given_to: dict[str, list[Any]] = {"between": [0, 1], "percentage_of": [50_000]}
    given_to |= {op: ["1.2.3"] for op in OPERATORS if op.startswith("semver")}
    given_to |= {op: ["10.0.0.0/8"] for op in ("in_cidr", "not_in_cidr")}
    given_to |= {op: [1] for op in ("gt", "gte", "lt", "lte", "before", "after")}
    given_to |= {op: [] for op in ("exists", "not_exists")}
    ops = sorted({*OPERATORS, *CONDITION_OPERATORS} - {"in_segment", "not_in_segment"})
    held = environment({op: ruled(clause("a", op, *given_to.get(op, ["a"]))) for op in ops})
    expect_one_answer(held, {"a": [value, "a"] if as_list else value, "targetingKey": value}, 0)


@pytest.mark.parametrize("op", ["equals", "in", "gt", "between", "after"])
def test_arguments_too_large_to_print(op: str) -> None:
    """A configured number of any length is compared, and an explanation tells of it."""
    values = [10**5_000] * (2 if op == "between" else 1)
    held = environment({"f": ruled(clause("a", op, *values))})
    for value in (1, 10**5_000, 10**5_001, 1e308):
        expect_one_answer(held, {"a": value}, 0)
